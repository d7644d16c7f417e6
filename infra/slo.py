"""Service level objectives: a subset of OpenSLO v1 as YAML, and the alerts on their budgets. Pure.

One file has a document of kind SLO for each objective (github.com/OpenSLO/OpenSLO, v1):

    errors        a ratio of bad requests, budgeting by occurrences
    latency       a threshold in milliseconds, budgeting by occurrences
    availability  a ratio of bad requests, budgeting by time slices: a slice is good when enough
                  of its requests were

An SLO that says nothing of alerts gets those of the SRE workbook (chapter 5, "Multiwindow,
Multi-Burn-Rate Alerts"): each fires when so large a share of the budget would be gone within the
long window, and stops soon after the short one is calm again. Times in seconds, shares 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from infra.topology_policies import ServiceLevels

JSON = dict[str, Any]
Sli = Literal["availability", "latency", "errors"]
Severity = Literal["page", "ticket"]

DAY = 86_400.0
PERIOD_SECONDS = 30 * DAY
SLICE_SECONDS = 5.0
P99 = 0.99
# An objective of 100 % has no budget, one of 0 % has nothing to keep: both are a hair off.
HAIR = 1e-9
QUANTILES = {0.5: "p50", 0.9: "p90", 0.95: "p95", 0.99: "p99", 0.999: "p999"}
# (severity, share of the budget, long window, short window)
WORKBOOK: tuple[tuple[Severity, float, float, float], ...] = (
    ("page", 0.02, 3600.0, 300.0),
    ("page", 0.05, 6 * 3600.0, 1800.0),
    ("ticket", 0.10, DAY, 2 * 3600.0),
    ("ticket", 0.10, 3 * DAY, 6 * 3600.0),
)


@dataclass(frozen=True)
class Alert:
    """Fires while the budget burns `factor` times too fast, over both windows."""

    severity: Severity
    factor: float
    long_seconds: float
    short_seconds: float


@dataclass(frozen=True)
class Slo:
    """`target`: the share of requests, or of slices, that must be good. `milliseconds`: of
    latency, the time in which a good request is answered. Of availability a slice of
    `slice_seconds` is good when `slice_target` of its requests are."""

    name: str
    service: str
    sli: Sli
    target: float
    alerts: tuple[Alert, ...]
    window_seconds: float = PERIOD_SECONDS
    milliseconds: float = 0.0
    slice_seconds: float = SLICE_SECONDS
    slice_target: float = 1.0
    description: str = ""


def workbook(target: float, window_seconds: float = PERIOD_SECONDS) -> tuple[Alert, ...]:
    """The workbook's alerts for a window; without those that this target can never set off."""
    found = (
        Alert(severity, share * window_seconds / long, long, short)
        for severity, share, long, short in WORKBOOK
    )
    return tuple(each for each in found if possible(each.factor, target))


def possible(factor: float, target: float) -> bool:
    """With every request failing a budget burns 1 / (1 − target) times too fast, and no faster."""
    return factor * (1 - target) <= 1


def impossible(slo: Slo) -> list[str]:
    """Alerts that can never fire."""
    return [
        f"{slo.name}: {alert.severity} at {alert.factor:g}: {alert.factor:g} × (1 − "
        f"{slo.target:g}) is more than 1, so not even a total outage sets it off; at most "
        f"{1 / (1 - slo.target):.3g} can be reached"
        for alert in slo.alerts
        if not possible(alert.factor, slo.target)
    ]


def of_levels(levels: ServiceLevels, service: str) -> tuple[Slo, ...]:
    """The objectives that a topology's service levels amount to."""
    errors = levels.error_rate_percent / 100
    return (
        _slo(
            "availability",
            service,
            levels.availability_percent / 100,
            f"Of the slices of {SLICE_SECONDS:g} s with requests, those in which at most "
            f"{levels.error_rate_percent:g} % failed",
            slice_target=_kept(1 - errors),
        ),
        _slo(
            "latency",
            service,
            P99,
            f"Of the requests, those answered within {levels.p99_milliseconds:g} ms",
            milliseconds=levels.p99_milliseconds,
        ),
        _slo("errors", service, 1 - errors, "Of the requests, those not answered with a 5xx"),
    )


def _slo(name: Sli, service: str, target: float, description: str, **own: float) -> Slo:
    kept = _kept(target)
    return Slo(name, service, name, kept, workbook(kept), description=description, **own)


def _kept(target: float) -> float:
    return min(max(round(target, 12), HAIR), 1 - HAIR)


def file(name: str, slos: Iterable[Slo]) -> JSON:
    """All objectives as one document, with the gates of a load run that they amount to."""
    items = [document(slo) for slo in slos]
    return {"apiVersion": "regionctl/v1", "kind": "SloFile", "name": name, "items": items}


def document(slo: Slo) -> JSON:
    """One SLO as OpenSLO has it."""
    objective: JSON = {"displayName": slo.name, "targetPercent": round(100 * slo.target, 10)}
    if slo.sli == "latency":
        objective = {**objective, "op": "lte", "value": slo.milliseconds}
        indicator: JSON = {"thresholdMetric": _metric("latency")}
    else:
        indicator = {
            "ratioMetric": {"counter": True, "bad": _metric("errors"), "total": _metric("requests")}
        }
    if slo.sli == "availability":
        objective["timeSliceTarget"] = round(slo.slice_target, 10)
        objective["timeSliceWindow"] = duration(slo.slice_seconds)
    return {
        "apiVersion": "openslo/v1",
        "kind": "SLO",
        "metadata": {"name": slo.name},
        "spec": {
            "description": slo.description,
            "service": slo.service,
            "indicator": {"metadata": {"name": slo.name}, "spec": indicator},
            "timeWindow": [{"duration": duration(slo.window_seconds), "isRolling": True}],
            "budgetingMethod": "Timeslices" if slo.sli == "availability" else "Occurrences",
            "objectives": [objective],
        },
        "x-regionctl": {"gates": _gates(slo), "burn": [_burn(alert) for alert in slo.alerts]},
    }


def _metric(name: str) -> JSON:
    return {"metricSource": {"type": "Regionctl", "spec": {"metric": name}}}


def _gates(slo: Slo) -> list[JSON]:
    """What a load run is held to by default: the latency and the errors of its steady phase."""
    where = {"phase": "steady"}
    if slo.sli == "latency":
        metric = f"latency.{QUANTILES.get(slo.target, 'p99')}"
        return [{"metric": metric, "op": "<=", "value": f"{slo.milliseconds:g}ms", "where": where}]
    if slo.sli == "errors":
        allowed = f"{100 * (1 - slo.target):.6g}%"
        return [{"metric": "errors.ratio", "op": "<=", "value": allowed, "where": where}]
    return []


def _burn(alert: Alert) -> JSON:
    return {
        "severity": alert.severity,
        "factor": round(alert.factor, 6),
        "long": duration(alert.long_seconds),
        "short": duration(alert.short_seconds),
    }


def duration(seconds: float) -> str:
    """A time as OpenSLO and Prometheus write it: 30d, 6h, 5m, 90s."""
    for unit, length in (("d", DAY), ("h", 3600.0), ("m", 60.0)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"
