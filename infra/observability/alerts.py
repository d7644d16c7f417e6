"""The alerting rules: the design's thresholds, and what runbooks are about. Pure.

Critical ones wake somebody up (PagerDuty), warnings wait for working hours (Slack). Each names the
runbook that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from infra.observability.model import CONTROL_PLANE, GATEWAYS, SERVICES, Pace
from infra.slo import duration
from infra.topology import EDGE

JSON = dict[str, Any]
Severity = Literal["critical", "warning"]

ERROR_RATIO = 0.01
P99_MILLISECONDS = 500
CPU = 0.8
MEMORY = 0.85
CONNECTIONS = 0.8
LAG_SECONDS = 10
CERTIFICATE_DAYS = 14
# Fewer requests than this in a window say nothing about a share or a percentile of them.
LEAST_REQUESTS = 20
# A failover that went well stays in sight for so long.
FAILOVER_SECONDS = 900
EVENTS_WAITING = 1000

EDGE_ONLY = '{envoy_http_conn_manager_prefix="edge"}'
EDGE_FAILED = '{envoy_http_conn_manager_prefix="edge",envoy_response_code_class="5"}'


@dataclass(frozen=True)
class Alert:
    """`expr` is PromQL with a series for each thing that is wrong; `at_once`: without waiting for
    `Pace.hold`."""

    name: str
    severity: Severity
    runbook: str
    expr: str
    summary: str
    description: str
    at_once: bool = False

    def rule(self, hold: float) -> JSON:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": duration(0 if self.at_once else hold),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": self.runbook,
                "command": f"regionctl runbook show {self.runbook}",
            },
        }


def document(pace: Pace) -> JSON:
    """rules/alerts.yml."""
    window = duration(pace.window)
    groups = {
        "customers": _customers(window),
        "load": _load(window),
        "instances": _instances(),
        "databases": _databases(),
        "events": _events(window),
    }
    return {"groups": [_group(name, alerts, pace) for name, alerts in groups.items()]}


def _group(name: str, alerts: Iterable[Alert], pace: Pace) -> JSON:
    return {"name": name, "rules": [each.rule(pace.hold) for each in alerts]}


def _customers(window: str) -> list[Alert]:
    """What customers get, as the edge counts it."""
    completed = f"envoy_http_downstream_rq_completed{EDGE_ONLY}"
    failed = f"envoy_http_downstream_rq_xx{EDGE_FAILED}"
    times = f"envoy_http_downstream_rq_time_bucket{EDGE_ONLY}"
    enough = f"sum(increase({completed}[{window}])) >= {LEAST_REQUESTS}"
    ratio = f"sum(rate({failed}[{window}])) / sum(rate({completed}[{window}]))"
    p99 = f"histogram_quantile(0.99, sum by (le) (rate({times}[{window}])))"
    return [
        Alert(
            "ErrorRateHigh",
            "critical",
            "service-outage",
            f"({ratio} > {ERROR_RATIO}) and ({enough})",
            "Customers get errors",
            "{{ $value | humanizePercentage }} of the requests failed with a 5xx in the last "
            f"{window}; at most {ERROR_RATIO:.0%} may.",
        ),
        Alert(
            "LatencyHigh",
            "critical",
            "service-outage",
            f"({p99} > {P99_MILLISECONDS}) and ({enough})",
            "Customers wait",
            f"The 99th percentile of the last {window} is "
            f"{{{{ $value | humanize }}}} ms; at most {P99_MILLISECONDS} ms is allowed.",
        ),
    ]


def _load(window: str) -> list[Alert]:
    cpu = f'rate(process_cpu_seconds_total{{job="{SERVICES}"}}[{window}])'
    busy = f"rate(regionctl_machine_cpu_busy_seconds_total[{window}]) / regionctl_machine_cpus"
    free = "regionctl_machine_memory_available_bytes / regionctl_machine_memory_bytes"
    used = 'regionctl_database_connections{state="used"}'
    pool = f"sum by (component, region, zone, server) ({used})"
    size = "sum by (component, region, zone, server) (regionctl_database_connections_limit)"
    share = "{{ $value | humanizePercentage }}"
    return [
        Alert(
            "ServiceCpuHigh",
            "critical",
            "overload",
            f"{cpu} > {CPU}",
            "{{ $labels.instance }} has nearly no processor time left",
            f"It used {share} of one processor, which is all that one process can use; at most "
            f"{CPU:.0%} leaves room for a peak.",
        ),
        Alert(
            "MachineCpuHigh",
            "critical",
            "overload",
            f"max by (region) ({busy}) > {CPU}",
            "The machines of {{ $labels.region }} have nearly no processor time left",
            f"{share} of a machine's processors is in use; at most {CPU:.0%} leaves room.",
        ),
        Alert(
            "MemoryHigh",
            "warning",
            "overload",
            f"max by (region) (1 - {free}) > {MEMORY}",
            "The machines of {{ $labels.region }} have nearly no memory left",
            f"{share} of a machine's memory is in use; above {MEMORY:.0%} the kernel soon kills.",
        ),
        Alert(
            "DatabaseConnectionsHigh",
            "warning",
            "overload",
            f"{pool} / {size} > {CONNECTIONS}",
            "{{ $labels.component }} has nearly no connections to {{ $labels.server }} left",
            f"{share} of the pool is in use; above {CONNECTIONS:.0%} requests wait for each other.",
        ),
    ]


def _instances() -> list[Alert]:
    inside = f'up{{job=~"{SERVICES}|{GATEWAYS}"}}'
    return [
        Alert(
            "EdgeDown",
            "critical",
            "service-outage",
            f'up{{job="{EDGE}"}} == 0',
            "The edge does not answer: no customer gets in",
            "Prometheus cannot read the metrics of {{ $labels.instance }}.",
        ),
        Alert(
            "RegionDown",
            "critical",
            "region-failure",
            f"sum by (region) ({inside}) == 0",
            "Nothing of {{ $labels.region }} answers",
            "None of its services and gateways can be read.",
        ),
        Alert(
            "ServiceDown",
            "critical",
            "service-outage",
            f'sum by (component, region) (up{{job="{SERVICES}"}}) == 0',
            "No {{ $labels.component }} service answers in {{ $labels.region }}",
            "Every instance of it there is away.",
        ),
        Alert(
            "InstanceDown",
            "warning",
            "service-outage",
            f"{inside} == 0",
            "{{ $labels.instance }} does not answer",
            "Others take its requests; its supervisor starts it again.",
        ),
        Alert(
            "ControlPlaneDown",
            "critical",
            "control-plane-lost",
            f'up{{job="{CONTROL_PLANE}"}} == 0',
            "The control plane does not answer: nothing fails over by itself",
            "Customers are served all the same, until something else breaks.",
        ),
        Alert(
            "CertificateExpires",
            "warning",
            "certificate-expired",
            f'envoy_server_days_until_first_cert_expiring{{job="{EDGE}"}} < {CERTIFICATE_DAYS}',
            "The edge's certificate ends in {{ $value }} days",
            "Without a new one every client refuses to connect.",
        ),
    ]


def _databases() -> list[Alert]:
    # Known from what was told last, also while the control plane tells nothing.
    seen = f"[{duration(FAILOVER_SECONDS)}]"
    moved = f"last_over_time(regionctl_database_failover_timestamp_seconds{seen})"
    return [
        Alert(
            "DatabaseDown",
            "critical",
            "database-failure",
            "regionctl_database_primary_running == 0",
            "The primary of {{ $labels.database }} does not run",
            "Writes wait until its standby is promoted.",
        ),
        Alert(
            "DatabaseFailedOver",
            "warning",
            "database-failure",
            f"time() - ({moved} > 0) < {FAILOVER_SECONDS}",
            "{{ $labels.database }} failed over",
            "{{ $value | humanizeDuration }} ago. See why, and acknowledge it: "
            "regionctl failover acknowledge {{ $labels.database }}",
            at_once=True,
        ),
        Alert(
            "StandbyLost",
            "warning",
            "database-failure",
            "regionctl_database_standbys_in_sync == 0",
            "{{ $labels.database }} has no standby in sync",
            "Commits wait for nobody: the loss of its primary would lose orders.",
        ),
        Alert(
            "ReplicaFarBehind",
            "warning",
            "region-failure",
            f"max by (database, replica) (regionctl_database_lag_seconds) > {LAG_SECONDS}",
            "{{ $labels.replica }} is {{ $value | humanizeDuration }} behind",
            "A failover to its region would lose as much.",
        ),
        Alert(
            "ArchiveGap",
            "warning",
            "disk-full",
            "regionctl_archive_gap == 1",
            "The archive of {{ $labels.database }} has a gap",
            "Until the next full backup it cannot be restored to a moment after the gap.",
        ),
    ]


def _events(window: str) -> list[Alert]:
    dead = 'regionctl_events_consumed_total{outcome="dead"}'
    lag = "max by (region, group) (regionctl_stream_lag)"
    return [
        Alert(
            "EventsSetAside",
            "warning",
            "events-set-aside",
            f"sum by (component, region) (increase({dead}[{window}])) > 0",
            "{{ $labels.component }} set events aside in {{ $labels.region }}",
            "Somebody has to decide about them: regionctl events dlq",
            at_once=True,
        ),
        Alert(
            "EventsWait",
            "warning",
            "queue-lost",
            f"{lag} > {EVENTS_WAITING}",
            "{{ $labels.group }} has {{ $value }} events to read in {{ $labels.region }}",
            f"More than {EVENTS_WAITING} wait: orders stay unconfirmed meanwhile.",
        ),
    ]
