"""What the dashboards show: customers first, then what serves them, then what keeps their orders.

Pure. Each panel is a chart of PromQL; Grafana puts in the window and the chosen regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from infra.observability import alerts
from infra.observability.alerts import EDGE_FAILED, EDGE_ONLY
from infra.observability.model import GATEWAYS, SERVICES
from infra.topology_policies import ServiceLevels

WINDOW = "$__rate_interval"
IN_REGION = 'region=~"$region"'
SERVICE, GATEWAY = f'job="{SERVICES}"', f'job="{GATEWAYS}"'
COUNT, SHARE, BYTES = "short", "percentunit", "bytes"
SECONDS, MILLISECONDS, PER_SECOND = "s", "ms", "ops"


@dataclass(frozen=True)
class Panel:
    """`lines` are (expression, legend), `unit` is one of Grafana's; a value above `limit` is bad,
    or one `below` it."""

    title: str
    unit: str
    lines: Sequence[tuple[str, str]]
    limit: float | None = None
    below: bool = False


@dataclass(frozen=True)
class Dashboard:
    """`regions`: whether one may choose among them."""

    uid: str
    title: str
    panels: Sequence[Panel]
    regions: bool = False


def dashboards(levels: ServiceLevels) -> tuple[Dashboard, ...]:
    services = [*_requests(), *_resources(), *_events()]
    return (
        Dashboard("regionctl-customers", "regionctl: customers", _customers(levels)),
        Dashboard("regionctl-services", "regionctl: services", services, regions=True),
        Dashboard("regionctl-databases", "regionctl: databases", _databases()),
    )


def expressions(found: Iterable[Dashboard]) -> list[str]:
    """All PromQL of them, as it is when everything is chosen."""
    return [
        expr.replace(WINDOW, "1m").replace("$region", ".*")
        for each in found
        for panel in each.panels
        for expr, _ in panel.lines
    ]


def _one(title: str, unit: str, expr: str, legend: str, limit: float | None = None) -> Panel:
    return Panel(title, unit, [(expr, legend)], limit)


def _rate(series: str) -> str:
    return f"rate({series}[{WINDOW}])"


def _here(name: str, *more: str) -> str:
    """The series of the chosen regions."""
    return f"{name}{{{','.join((IN_REGION, *more))}}}"


def _customers(levels: ServiceLevels) -> list[Panel]:
    completed = _rate(f"envoy_http_downstream_rq_completed{EDGE_ONLY}")
    failed = _rate(f"envoy_http_downstream_rq_xx{EDGE_FAILED}")
    times = _rate(f"envoy_http_downstream_rq_time_bucket{EDGE_ONLY}")
    served = _rate(f"envoy_cluster_external_upstream_rq_completed{{{GATEWAY}}}")
    active = f"envoy_http_downstream_rq_active{EDGE_ONLY}"
    ratio, allowed = f"sum({failed}) / sum({completed})", levels.error_rate_percent / 100
    quantiles = [
        (f"histogram_quantile({share}, sum by (le) ({times}))", name)
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]
    cluster, by_cluster = "{{envoy_cluster_name}}", f"sum by (envoy_cluster_name) ({served})"
    budget = [("regionctl:slo_budget_left:ratio", "{{slo}}")]
    return [
        _one("Requests", PER_SECOND, f"sum({completed})", "all"),
        _one("Errors", SHARE, ratio, "5xx", allowed),
        Panel("Latency", MILLISECONDS, quantiles, levels.p99_milliseconds),
        _one("Requests by service", PER_SECOND, by_cluster, cluster),
        _one("In flight", COUNT, active, "edge"),
        Panel("Error budget left", SHARE, budget, 0.1, below=True),
        _one("Troubles", COUNT, "regionctl_troubles", "{{about}}", 1),
        _one("Region that clients are sent to", COUNT, "regionctl_region_routed", "{{region}}"),
        _one("Alerts that fire", COUNT, 'ALERTS{alertstate="firing"}', "{{alertname}}"),
    ]


def _requests() -> list[Panel]:
    running = _here("up", SERVICE)
    count = _rate(_here("regionctl_request_seconds_count"))
    failed = _rate(_here("regionctl_request_seconds_count", 'status=~"5.."'))
    times = _rate(_here("regionctl_request_seconds_bucket"))
    again = _rate(_here("envoy_cluster_upstream_rq_retry", GATEWAY))
    hits = _rate(_here("regionctl_cache_total", 'outcome="hit"'))
    looked = _rate(_here("regionctl_cache_total", 'outcome=~"hit|miss"'))
    by, service = "by (component)", "{{component}}"
    # A service that never failed has no series of failures.
    ratio = f"(sum {by} ({failed}) or 0 * sum {by} ({count})) / sum {by} ({count})"
    p99 = f"histogram_quantile(0.99, sum by (component, le) ({times}))"
    slowest = alerts.P99_MILLISECONDS / 1000
    retries = f"sum by (envoy_cluster_name) ({again})"
    return [
        _one("Instances that answer", COUNT, f"sum {by} ({running})", service),
        _one("Requests", PER_SECOND, f"sum {by} ({count})", service),
        _one("Errors", SHARE, ratio, service, alerts.ERROR_RATIO),
        _one("p99", SECONDS, p99, service, slowest),
        _one("Tried again by gateways", PER_SECOND, retries, "{{envoy_cluster_name}}"),
        _one("Cache hits", SHARE, f"sum({hits}) / sum({looked})", "hits"),
    ]


def _resources() -> list[Panel]:
    cpu = _rate(_here("process_cpu_seconds_total", SERVICE))
    memory = _here("process_resident_memory_bytes", SERVICE)
    busy = _rate(_here("regionctl_machine_cpu_busy_seconds_total"))
    free = _here("regionctl_machine_memory_available_bytes")
    used = _here("regionctl_database_connections", 'state="used"')
    cpus, all_of = _here("regionctl_machine_cpus"), _here("regionctl_machine_memory_bytes")
    size = _here("regionctl_database_connections_limit")
    pools = f"max by (component, server) ({used} / ignoring (state) {size})"
    machines, taken = (
        f"max by (region) ({busy} / {cpus})",
        f"max by (region) (1 - {free} / {all_of})",
    )
    instance, region, pool = "{{instance}}", "{{region}}", "{{component}} to {{server}}"
    return [
        _one("Processor of a process", SHARE, cpu, instance, alerts.CPU),
        _one("Memory of a process", BYTES, memory, instance),
        _one("Database connections in use", SHARE, pools, pool, alerts.CONNECTIONS),
        _one("Processors of the machines", SHARE, machines, region, alerts.CPU),
        _one("Memory of the machines", SHARE, taken, region, alerts.MEMORY),
    ]


def _events() -> list[Panel]:
    lag = f"max by (group) ({_here('regionctl_stream_lag')})"
    pending = f"max by (group) ({_here('regionctl_stream_pending')})"
    consumed = f"sum by (outcome) ({_rate(_here('regionctl_events_consumed_total'))})"
    outside = f"sum by (server, outcome) ({_rate(_here('regionctl_outside_calls_total'))})"
    return [
        _one("Events to read", COUNT, lag, "{{group}}", alerts.EVENTS_WAITING),
        _one("Events read and not acknowledged", COUNT, pending, "{{group}}"),
        _one("Events", PER_SECOND, consumed, "{{outcome}}"),
        _one("Calls outside", PER_SECOND, outside, "{{server}} {{outcome}}"),
    ]


def _databases() -> list[Panel]:
    database = "{{database}}"
    primaries = [("regionctl_database_primary_running", database)]
    standbys = [("regionctl_database_standbys_in_sync", database)]
    lag = "regionctl_database_lag_seconds"
    since = "time() - (regionctl_database_failover_timestamp_seconds > 0)"
    retries = f"sum by (reason) ({_rate('regionctl_database_retries_total')})"
    reads = f"sum by (copy) ({_rate('regionctl_database_reads_total')})"
    relayed = f"sum by (database) ({_rate('regionctl_outbox_relayed_total')})"
    maps = "max by (region) (regionctl_shard_map_version)"
    return [
        Panel("Primaries that run", COUNT, primaries, 1, below=True),
        Panel("Standbys in sync", COUNT, standbys, 1, below=True),
        _one("Replicas behind", SECONDS, lag, "{{replica}}", alerts.LAG_SECONDS),
        _one("Epochs", COUNT, "regionctl_database_epoch", database),
        _one("Since the last failover", SECONDS, since, database),
        _one("Work begun anew", PER_SECOND, retries, "{{reason}}"),
        _one("Gaps in the archive", COUNT, "regionctl_archive_gap", database, 1),
        _one("Reads by copy", PER_SECOND, reads, "{{copy}}"),
        _one("Events relayed", PER_SECOND, relayed, database),
        _one("Shard maps in use", COUNT, maps, "{{region}}"),
    ]
