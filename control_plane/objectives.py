"""Objectives: a limit and how evidence is judged by it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from infra.topology import Topology

JSON = dict[str, Any]
ObjectiveName = Literal["rto", "rpo", "pause"]


@dataclass(frozen=True)
class Evidence:
    """What one or more repeats measured. `rto_seconds` is None when recovery is not proven;
    `loss_seconds` is 0 when nothing was lost, `lost` counts acknowledged writes; it is None when
    nobody could look for them all. `pause_seconds` is the 99th percentile of the pauses that
    hand-overs of slots made; None without any."""

    rto_seconds: float | None
    loss_seconds: float
    lost: int | None
    pause_seconds: float | None = None


@dataclass(frozen=True)
class Verdict:
    """`measured_seconds` is None when there is nothing to measure by: then it is not met."""

    name: str
    limit_seconds: float
    measured_seconds: float | None
    met: bool
    because: str

    def to_json(self) -> JSON:
        return {
            "name": self.name,
            "limitSeconds": self.limit_seconds,
            "measuredSeconds": self.measured_seconds,
            "met": self.met,
            "because": self.because,
        }


@dataclass(frozen=True)
class Objective:
    """RTO: from the fault to steady service. RPO: how far back acknowledged writes may be lost.

    Pause: how long writers of one user wait while the user changes shards.
    """

    name: ObjectiveName
    limit_seconds: float

    def judge(self, evidence: Evidence) -> Verdict:
        if self.name == "rto":
            return self._judge_rto(evidence.rto_seconds)
        if self.name == "pause":
            return self._judge_pause(evidence.pause_seconds)
        return self._judge_rpo(evidence)

    def _judge_rto(self, measured: float | None) -> Verdict:
        if measured is None:
            why = "no acknowledged write after the fault was followed by steady success"
            return Verdict(self.name, self.limit_seconds, None, False, why)
        met = measured <= self.limit_seconds
        why = (
            f"steady again {measured:.2f} s after the fault; the limit is {self.limit_seconds:g} s"
        )
        return Verdict(self.name, self.limit_seconds, measured, met, why)

    def _judge_pause(self, measured: float | None) -> Verdict:
        if measured is None:
            why = "no slots were handed over"
            return Verdict(self.name, self.limit_seconds, None, False, why)
        why = f"p99 of the pauses {1000 * measured:.0f} ms"
        return Verdict(self.name, self.limit_seconds, measured, measured <= self.limit_seconds, why)

    def _judge_rpo(self, evidence: Evidence) -> Verdict:
        """A limit of 0 s means that nothing at all may be lost, not even in the same instant."""
        if evidence.lost is None:
            why = "not every acknowledged write was looked for"
            return Verdict(self.name, self.limit_seconds, None, False, why)
        measured = max(evidence.loss_seconds, 0.0)
        met = evidence.lost == 0 or (self.limit_seconds > 0 and measured <= self.limit_seconds)
        why = (
            f"{evidence.lost} acknowledged writes lost, back to {measured:.2f} s before the fault"
            if evidence.lost
            else "no acknowledged write was lost"
        )
        return Verdict(self.name, self.limit_seconds, measured, met, why)


def of(
    topology: Topology, scenario: str, own: Iterable[tuple[ObjectiveName, float]] = ()
) -> tuple[Objective, ...]:
    """The objectives of one row of the topology's table; none when it has no such row.

    `own` limits of a drill, in seconds, go before those of the row.
    """
    limits: dict[ObjectiveName, float] = {}
    for row in topology.objectives:
        if row.scenario == scenario:
            limits = {"rto": row.rto_seconds, "rpo": row.rpo_seconds}
    return tuple(Objective(name, limit) for name, limit in {**limits, **dict(own)}.items())
