"""Judges a load run by the gates of its file. Pure: run.json in, verdicts out.

A gate is met, not met, or (met None) cannot be judged because too little was measured; the last
makes the whole run invalid. A metric, endpoint or phase that nobody knows is not met: a gate that
gates nothing must not pass.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests import budget, histograms
from loadtests.gatefile import METRICS, Gate, Objective, unknown

JSON = Mapping[str, Any]
HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Found:
    """What a metric is; None with the reason why it is not known. `void`: too little was
    measured, which says nothing about the platform."""

    value: float | None
    because: str = ""
    void: bool = False


@dataclass(frozen=True)
class Verdict:
    """One gate, judged. `value` and `limit` in the unit of METRICS."""

    gate: Gate
    value: float | None
    met: bool | None
    because: str

    def to_json(self) -> dict[str, Any]:
        known = self.gate.metric in METRICS
        return {
            "metric": self.gate.metric,
            "where": dict(self.gate.where),
            "op": self.gate.op,
            "limit": self.gate.limit if known else None,
            "unit": METRICS.get(self.gate.metric),
            "value": self.value,
            "met": self.met,
            "because": self.because,
        }


def judge(run: JSON, gates: Iterable[Gate], objectives: Sequence[Objective]) -> list[Verdict]:
    return [_judge(run, gate, objectives) for gate in gates]


def _judge(run: JSON, gate: Gate, objectives: Sequence[Objective]) -> Verdict:
    found = measure(run, gate, objectives)
    if found.value is None:
        return Verdict(gate, None, None if found.void else False, found.because)
    met = HOLDS[gate.op](found.value, gate.limit)
    unit = METRICS[gate.metric]
    told = f"{shown(found.value, unit)}, must be {gate.op} {shown(gate.limit, unit)}"
    return Verdict(gate, found.value, met, f"{told}; {found.because}" if found.because else told)


def measure(run: JSON, gate: Gate, objectives: Sequence[Objective]) -> Found:
    """The value of a gate's metric in this run."""
    if gate.metric not in METRICS:
        return Found(None, unknown(gate.metric))
    kind, _, detail = gate.metric.partition(".")
    if kind in ("latency", "service"):
        return _latency(run, gate, "intended" if kind == "latency" else "service", detail)
    if gate.metric == "errors.ratio":
        return _errors(run, gate)
    if gate.metric == "budget.spent":
        return _budget(run, gate, objectives)
    if gate.where:
        return Found(None, f"{gate.metric} is about the whole run: it has no `where`")
    if kind in ("rto", "rpo"):
        return _drill(run, gate.metric)
    return _offered(run, gate.metric)


def _chosen(run: JSON, gate: Gate) -> tuple[list[JSON], str]:
    """The endpoints that the gate is about; else why there are none."""
    chosen = histograms.selected(run, gate.where)
    if chosen or not gate.where:
        return chosen, ""
    fields = {"phase": "phase", "endpoint": "name", "journey": "journey"}
    for key, wanted in gate.where.items():
        known = sorted({str(each[fields[key]]) for each in run["endpoints"]})
        if wanted not in known:
            return [], f"the run has no {key} {wanted!r}; it has {', '.join(known) or 'none'}"
    return [], f"nothing was asked where {_where(gate)}"


def _where(gate: Gate) -> str:
    return ", ".join(f"{key} is {value}" for key, value in gate.where.items())


def _latency(run: JSON, gate: Gate, clock: histograms.Clock, quantile: str) -> Found:
    chosen, why = _chosen(run, gate)
    if why:
        return Found(None, why)
    whole = histograms.merged(chosen, clock)
    samples, percent = whole.get_total_count(), histograms.NAMED[quantile]
    if not samples:
        return Found(None, "there are no samples", void=True)
    if not histograms.enough(samples, percent):
        why = (
            f"{samples} samples are too few for {quantile}: "
            f"{histograms.needed(percent)} are needed, {histograms.ABOVE} of them above it"
        )
        return Found(None, why, void=True)
    return Found(histograms.milliseconds(whole, percent))


def _errors(run: JSON, gate: Gate) -> Found:
    chosen, why = _chosen(run, gate)
    if why:
        return Found(None, why)
    errors = sum(each["errors"] for each in chosen)
    answered = errors + sum(each["ok"] for each in chosen)
    if not answered:
        return Found(None, "there are no samples", void=True)
    return Found(errors / answered, f"{errors} of {answered}")


def _budget(run: JSON, gate: Gate, objectives: Sequence[Objective]) -> Found:
    """The budget that is spent most among the file's objectives."""
    if not objectives:
        return Found(None, "the file has no objectives, so there is no budget")
    if "journey" in gate.where:
        return Found(None, "budgets are kept by endpoint and phase, not by journey")
    endpoint = gate.where.get("endpoint", budget.EVERYTHING)
    phase = gate.where.get("phase", budget.EVERYTHING)
    rows = [
        each
        for each in budget.of(run, objectives)
        if (each.endpoint, each.phase) == (endpoint, phase)
    ]
    if not rows:
        _, why = _chosen(run, gate)
        return Found(None, why or f"no budget is kept where {_where(gate)}")
    known = [each for each in rows if each.spent is not None]
    if not known:
        return Found(None, "there are no samples", void=True)
    worst = max(known, key=lambda each: each.spent or 0.0)
    return Found(worst.spent, f"{worst.objective}: {worst.bad} bad of {worst.counted}")


def _drill(run: JSON, metric: str) -> Found:
    drill = run.get("drill")
    if not drill:
        return Found(None, f"{metric} is measured by a drill: regionctl drill run NAME --load")
    value = drill.get({"rto": "rtoSeconds", "rpo.lost": "lost"}[metric])
    if value is None:
        return Found(None, "the drill could not measure it")
    return Found(float(value))


def _offered(run: JSON, metric: str) -> Found:
    offered = run["offered"]
    if metric == "arrivals.dropped":
        return Found(float(offered["dropped"]))
    if not offered["planned"]:
        return Found(None, "no arrival was planned", void=True)
    return Found(offered["started"] / offered["planned"])


def shown(value: float, unit: str) -> str:
    """A value for people."""
    if unit == "ratio":
        return f"{100 * value:.4g} %"
    if unit == "count":
        return f"{value:g}"
    return f"{value:.4g} {unit}"
