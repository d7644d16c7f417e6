"""Reads a gate file: what a load run must hold, written in an SLO file (OpenSLO v1, YAML). Pure.

A file has one document of kind SLO for each objective, or one of kind SloFile whose `items` they
are. Of each SLO only `spec.objectives`, `spec.budgetingMethod`, `spec.timeWindow` and
the block `x-regionctl` are looked at here; the platform reads the rest.

    x-regionctl:
      gates:
        - {metric: latency.p99, op: "<=", value: 100ms, where: {phase: steady}}
      burn:
        - {severity: page, factor: 14.4, long: 1h, short: 5m}

An objective with a `value` (milliseconds) is one of latency, one without is one of errors.
A metric that nobody knows is no fault of the file as such: its gate is kept and fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

JSON = Mapping[str, Any]

NAMED = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
OPERATORS = ("<=", "<", ">=", ">", "==")
SELECTORS = ("phase", "endpoint", "journey")
# Metric → what its value is measured in.
METRICS: Mapping[str, str] = {
    **{f"{kind}.{name}": "ms" for kind in ("latency", "service") for name in NAMED},
    "errors.ratio": "ratio",
    "arrivals.dropped": "count",
    "offered.ratio": "ratio",
    "budget.spent": "ratio",
    "rto": "s",
    "rpo.lost": "count",
}
# (unit as written, what is measured in) → factor.
UNITS = {
    ("ms", "ms"): 1.0,
    ("s", "ms"): 1000.0,
    ("", "ms"): 1.0,
    ("ms", "s"): 0.001,
    ("s", "s"): 1.0,
    ("m", "s"): 60.0,
    ("h", "s"): 3600.0,
    ("", "s"): 1.0,
    ("%", "ratio"): 0.01,
    ("", "ratio"): 1.0,
    ("", "count"): 1.0,
}
SPANS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
MONTH_SECONDS = 30 * 86_400.0
IMPOSSIBLE = 1.0


class Unreadable(ValueError):
    """The file cannot be used at all; the message is a sentence for people."""


@dataclass(frozen=True)
class Gate:
    """`limit` in the metric's own unit; `written` as the file has it. `where` selects."""

    metric: str
    op: str
    limit: float
    written: str
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """`target` (0..1) of the requests, or of the time slices, must be good.

    `milliseconds` None: good is what is no error; else what was answered in that time, too.
    `slice_seconds` None: requests are counted; else slices, of which each is good when
    `slice_target` of its requests are. `window_seconds`: the time that the budget must last.
    """

    name: str
    target: float
    milliseconds: float | None = None
    slice_seconds: float | None = None
    slice_target: float = 1.0
    window_seconds: float = MONTH_SECONDS


@dataclass(frozen=True)
class Burn:
    """An alert: budget burns `factor` times too fast over both windows (seconds)."""

    severity: str
    factor: float
    long_seconds: float
    short_seconds: float


@dataclass(frozen=True)
class GateFile:
    name: str
    gates: tuple[Gate, ...] = ()
    objectives: tuple[Objective, ...] = ()
    burns: tuple[Burn, ...] = ()


def parse(text: str, source: str) -> GateFile:
    """Raises `Unreadable` with every fault that makes the file useless, one a line."""
    faults: list[str] = []
    found = _read(text, source, faults)
    if faults:
        raise Unreadable("\n".join(faults))
    return found


def lint(text: str, source: str) -> list[str]:
    """Everything that is wrong with a file, unknown metrics included; nothing when all is well."""
    faults: list[str] = []
    try:
        found = _read(text, source, faults)
    except Unreadable as error:
        return str(error).splitlines()
    faults += [unknown(gate.metric) for gate in found.gates if gate.metric not in METRICS]
    if not found.gates:
        faults.append(f"{source}: x-regionctl.gates is empty: such a file lets every run pass")
    return faults


def unknown(metric: str) -> str:
    return f"nobody measures {metric!r}; one of: {', '.join(METRICS)}"


def seconds(written: object) -> float:
    """A time such as 5m or 30d. Raises `ValueError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(written).strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{written!r} is no time such as 30s, 5m, 6h or 30d")
    return float(match[1]) * SPANS[match[2]]


def _read(text: str, source: str, faults: list[str]) -> GateFile:
    try:
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        raise Unreadable(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    slos = [each for each in _unpacked(documents) if each.get("kind") == "SLO"]
    if not slos:
        raise Unreadable(f"{source} has no document of kind SLO")
    gates: list[Gate] = []
    objectives: list[Objective] = []
    burns: list[Burn] = []
    for slo in slos:
        name = str(_mapping(slo.get("metadata")).get("name") or "slo")
        own = _mapping(slo.get("x-regionctl"))
        mine = list(_each(_objective, _objectives(slo, name), f"{name}: objectives", faults))
        alerts = list(_each(_burn, own.get("burn"), f"{name}: x-regionctl.burn", faults))
        faults += impossible(name, mine, alerts)
        objectives += mine
        burns += alerts
        gates += _each(_gate, own.get("gates"), f"{name}: x-regionctl.gates", faults)
    return GateFile(_name(slos), tuple(gates), tuple(objectives), tuple(burns))


def _unpacked(documents: Iterable[object]) -> Iterable[JSON]:
    """Each document that is a mapping; those of a SloFile one by one."""
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "SloFile":
            yield from _unpacked(document.get("items") or ())
        elif isinstance(document, dict):
            yield document


def impossible(name: str, objectives: Iterable[Objective], burns: Iterable[Burn]) -> list[str]:
    """Alerts that could never fire: not even with every request failing is the burn that high."""
    return [
        f"{name}: {burn.factor:g} × (1 − {objective.target:g}) = "
        f"{burn.factor * (1 - objective.target):.3g} > 1: even with everything failing the budget "
        f"burns only {1 / (1 - objective.target):.3g} times too fast, so this never alerts"
        for objective in objectives
        for burn in burns
        if burn.factor * (1 - objective.target) > IMPOSSIBLE
    ]


def _name(slos: list[JSON]) -> str:
    names = [str(_mapping(slo.get("metadata")).get("name") or "slo") for slo in slos]
    return ", ".join(names)


def _mapping(value: object) -> JSON:
    return value if isinstance(value, dict) else {}


def _each(read: Any, value: object, where: str, faults: list[str]) -> Iterable[Any]:
    """What `read` makes of each item; an item that it cannot read becomes a fault."""
    if value is None:
        return
    if not isinstance(value, list):
        faults.append(f"{where} must be a list")
        return
    for number, item in enumerate(value):
        try:
            if not isinstance(item, dict):
                raise ValueError("is no mapping")
            yield read(item)
        except (ValueError, TypeError, KeyError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            faults.append(f"{where}[{number}]: {why}")


def _gate(item: JSON) -> Gate:
    metric, op = str(item["metric"]), str(item["op"])
    if op not in OPERATORS:
        raise ValueError(f"op {op!r} is none of {' '.join(OPERATORS)}")
    where = {str(key): str(value) for key, value in _mapping(item.get("where")).items()}
    if strange := sorted(where.keys() - set(SELECTORS)):
        raise ValueError(f"where has {', '.join(strange)}; known: {', '.join(SELECTORS)}")
    written = str(item["value"])
    measure = METRICS.get(metric)
    limit = float("nan") if measure is None else _limit(written, measure, metric)
    return Gate(metric, op, limit, written, where)


def _limit(written: str, measure: str, metric: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|ms|s|m|h|)", written.strip())
    factor = UNITS.get((match[2], measure)) if match else None
    if match is None or factor is None:
        units = [unit for unit, of in UNITS if of == measure and unit]
        raise ValueError(
            f"value {written!r} does not fit {metric}: a number"
            + (f", or one with {' or '.join(units)}" if units else "")
        )
    return float(match[1]) * factor


def _objectives(slo: JSON, name: str) -> object:
    """The objectives as written, each with what it shares with the others of its SLO."""
    spec = _mapping(slo.get("spec"))
    listed = spec.get("objectives")
    if not isinstance(listed, list):
        return listed
    windows = spec.get("timeWindow") or [{}]
    window = _mapping(windows[0] if isinstance(windows, list) else windows).get("duration", "30d")
    shared = {"name": name, "method": spec.get("budgetingMethod"), "window": window}
    return [{**each, "shared": shared} if isinstance(each, dict) else each for each in listed]


def _objective(item: JSON) -> Objective:
    shared = item["shared"]
    if "targetPercent" in item:
        target = float(item["targetPercent"]) / 100
    else:
        target = float(item["target"])
    if not 0 < target < 1:
        raise ValueError(f"a target of {target:g} leaves no budget, or nothing to keep")
    sliced = shared["method"] in ("Timeslices", "RatioTimeslices")
    value = item.get("value")
    return Objective(
        name=str(item.get("displayName") or shared["name"]),
        target=target,
        milliseconds=None if value is None else float(value),
        slice_seconds=seconds(item["timeSliceWindow"]) if sliced else None,
        slice_target=float(item["timeSliceTarget"]) if sliced else 1.0,
        window_seconds=seconds(shared["window"]),
    )


def _burn(item: JSON) -> Burn:
    burn = Burn(
        str(item["severity"]), float(item["factor"]), seconds(item["long"]), seconds(item["short"])
    )
    if burn.factor <= 0 or burn.short_seconds >= burn.long_seconds:
        raise ValueError("the factor must be above 0 and the short window shorter than the long")
    return burn
