"""Each alert fires above its threshold and not below, as Prometheus itself judges.

Every case is a series for each thing that an alert looks at, in promtool's notation: "0+15x60" is
0, 15, 30 ... at every scrape of the usual pace, which is 15 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.observability import alerts
from infra.observability.model import Pace
from tests.infra.observability.tools import monitoring, run, write

Series = Mapping[str, str]
LONG = 80
PACE = Pace()
EDGE = 'envoy_http_conn_manager_prefix="edge"'
COMPLETED = f"envoy_http_downstream_rq_completed{{{EDGE}}}"
FAILED = f'envoy_http_downstream_rq_xx{{{EDGE},envoy_response_code_class="5"}}'
ORDERS = 'component="orders",region="us-east-1"'


def always(value: float) -> str:
    return f"{value}x{LONG}"


def growing(a_second: float) -> str:
    return f"0+{a_second * PACE.scrape}x{LONG}"


def failing(share: float) -> Series:
    return {COMPLETED: growing(100), FAILED: growing(100 * share)}


def slow(milliseconds: float) -> Series:
    """Half of the requests are quick; the others end in the bucket of that time."""
    bucket = f"envoy_http_downstream_rq_time_bucket{{{EDGE},le="
    bounds = [250, 500, 1000]
    counts = {f'{bucket}"{b}"}}': growing(100 if milliseconds <= b else 50) for b in bounds}
    return {COMPLETED: growing(100), f'{bucket}"+Inf"}}': growing(100), **counts}


def service_cpu(share: float) -> Series:
    return {'process_cpu_seconds_total{job="services",instance="orders.a"}': growing(share)}


def machine_cpu(share: float) -> Series:
    busy = "regionctl_machine_cpu_busy_seconds_total"
    return {
        f"{busy}{{{ORDERS}}}": growing(2 * share),
        f"regionctl_machine_cpus{{{ORDERS}}}": "2x80",
    }


def memory(share: float) -> Series:
    name = "regionctl_machine_memory"
    free = always(1000 - 1000 * share)
    return {f"{name}_bytes{{{ORDERS}}}": "1000x80", f"{name}_available_bytes{{{ORDERS}}}": free}


def connections(used: float) -> Series:
    name, server = "regionctl_database_connections", f'{ORDERS},server="s1.us-east-1a"'
    return {
        f'{name}{{{server},state="used"}}': always(used),
        f'{name}{{{server},state="idle"}}': always(8 - used),
        f"{name}_limit{{{server}}}": always(8),
    }


def edge_up(up: float) -> Series:
    return {'up{job="edge",instance="edge"}': always(up)}


def control_plane_up(up: float) -> Series:
    return {'up{job="control-plane",instance="control-plane"}': always(up)}


def others_up(up: float) -> Series:
    """One orders service is away, the other is what is asked about."""
    orders = f'up{{job="services",{ORDERS},instance="orders'
    return {f'{orders}.a"}}': always(0), f'{orders}.b"}}': always(up)}


def one_up(up: float) -> Series:
    return {f'up{{job="services",{ORDERS},instance="orders.a"}}': always(up)}


def gauge(name: str, labels: str = 'database="s1"') -> Callable[[float], Series]:
    return lambda value: {f"{name}{{{labels}}}": always(value)}


def dead(count: float) -> Series:
    return {f'regionctl_events_consumed_total{{{ORDERS},outcome="dead"}}': f"0x20 {count}x60"}


# Alert → what it looks at, a value that is wrong, and the nearest one that is not.
CASES: Mapping[str, tuple[Callable[[float], Series], float, float]] = {
    "ErrorRateHigh": (failing, 0.011, 0.009),
    "LatencyHigh": (slow, 501, 500),
    "ServiceCpuHigh": (service_cpu, 0.81, 0.79),
    "MachineCpuHigh": (machine_cpu, 0.81, 0.79),
    "MemoryHigh": (memory, 0.86, 0.84),
    "DatabaseConnectionsHigh": (connections, 7, 6),
    "EdgeDown": (edge_up, 0, 1),
    "RegionDown": (others_up, 0, 1),
    "ServiceDown": (others_up, 0, 1),
    "InstanceDown": (one_up, 0, 1),
    "ControlPlaneDown": (control_plane_up, 0, 1),
    "CertificateExpires": (
        gauge("envoy_server_days_until_first_cert_expiring", 'job="edge"'),
        13,
        14,
    ),
    "DatabaseDown": (gauge("regionctl_database_primary_running"), 0, 1),
    "DatabaseFailedOver": (gauge("regionctl_database_failover_timestamp_seconds"), 1, 0),
    "StandbyLost": (gauge("regionctl_database_standbys_in_sync"), 0, 1),
    "ReplicaFarBehind": (
        gauge("regionctl_database_lag_seconds", 'database="s1",replica="s1.us-west-2a"'),
        10.1,
        9.9,
    ),
    "ArchiveGap": (gauge("regionctl_archive_gap"), 1, 0),
    "EventsSetAside": (dead, 1, 0),
    "EventsWait": (gauge("regionctl_stream_lag", 'region="us-east-1",group="orders"'), 1001, 1000),
}


def case(alert: str, series: Series, at: str, fires: bool) -> dict[str, Any]:
    """One test of promtool's: does it fire at that time?"""
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    return {
        "interval": "15s",
        "name": f"{alert} {'fires' if fires else 'does not fire'} at {at}",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"({firing}) > bool 0",
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
        ],
    }


def judge(folder: Path, *tests: dict[str, Any]) -> None:
    """promtool agrees with all of them."""
    write(folder, monitoring())
    document = {
        "rule_files": ["rules/alerts.yml"],
        "evaluation_interval": "15s",
        "tests": list(tests),
    }
    (folder / "tests.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    run("promtool", "test", "rules", "tests.yml", folder=folder)


def test_each_alert_fires_above_its_threshold_and_not_below(tmp_path: Path) -> None:
    rules = [rule for group in alerts.document(PACE)["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == set(CASES)
    tests = []
    for alert, (make, wrong, right) in CASES.items():
        tests += [case(alert, make(wrong), "8m", True), case(alert, make(right), "8m", False)]
    judge(tmp_path, *tests)


def test_what_is_over_soon_wakes_nobody_up(tmp_path: Path) -> None:
    blink = {'up{job="edge",instance="edge"}': "1x10 0x2 1x60"}
    outage = {'up{job="edge",instance="edge"}': "1x10 0x60"}
    judge(
        tmp_path,
        *(case("EdgeDown", blink, at, False) for at in ("3m", "4m", "8m")),
        case("EdgeDown", outage, "3m", False),
        case("EdgeDown", outage, "5m", True),
    )


def test_a_handful_of_requests_says_nothing_about_a_share_of_them(tmp_path: Path) -> None:
    few = {COMPLETED: growing(0.05), FAILED: growing(0.025)}
    judge(tmp_path, case("ErrorRateHigh", few, "8m", False))


def test_a_failover_stays_in_sight_for_a_quarter_of_an_hour(tmp_path: Path) -> None:
    failed_over = CASES["DatabaseFailedOver"][0](60)
    # After two minutes the control plane is away.
    untold = dict.fromkeys(failed_over, "60x8 _x60")
    judge(
        tmp_path,
        case("DatabaseFailedOver", failed_over, "14m", True),
        case("DatabaseFailedOver", failed_over, "17m", False),
        case("DatabaseFailedOver", untold, "8m", True),
    )


def test_an_alert_says_what_was_measured_and_what_to_type(tmp_path: Path) -> None:
    at = {
        "eval_time": "8m",
        "alertname": "ErrorRateHigh",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "critical"},
                "exp_annotations": {
                    "summary": "Customers get errors",
                    "description": "5% of the requests failed with a 5xx in the last 5m; "
                    "at most 1% may.",
                    "runbook": "service-outage",
                    "command": "regionctl runbook show service-outage",
                },
            }
        ],
    }
    judge(tmp_path, {**case("ErrorRateHigh", failing(0.05), "8m", True), "alert_rule_test": [at]})
