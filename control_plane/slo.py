"""How the service level objectives stand: what was good, what is left, what burns. Pure.

The budget of a period (30 days) is what may be bad in it: the share 1 − target of the requests, or
of the slices of time. What was watched may be shorter; the rest of the period has spent nothing:

    spent = burn × watched / period,    burn = share that was bad / (1 − target)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from control_plane import levels
from control_plane.levels import Tally
from infra.slo import Alert, Slo, duration

JSON = dict[str, Any]
State = Literal["unknown", "ok", "ticket", "page", "spent"]

STATES: tuple[State, ...] = ("unknown", "ok", "ticket", "page", "spent")
"""From nothing known to the worst."""
MISSED = ("page", "spent")
HOUR = 3600.0


@dataclass(frozen=True)
class Seen:
    """All that was tallied from `since` to `until`, and within each window (seconds) before it."""

    since: datetime
    until: datetime
    whole: Tally
    windows: Mapping[float, Tally]


@dataclass(frozen=True)
class Burning:
    """An alert, and how fast the budget burns over its windows; None where nobody asked."""

    alert: Alert
    long: float | None
    short: float | None

    @property
    def firing(self) -> bool:
        """Both windows are over it: the long one proves it, the short one that it goes on."""
        least = min(self.long or 0.0, self.short or 0.0)
        return least > 0 and least >= self.alert.factor

    def to_json(self) -> JSON:
        return {
            "severity": self.alert.severity,
            "factor": self.alert.factor,
            "long": duration(self.alert.long_seconds),
            "short": duration(self.alert.short_seconds),
            "burnLong": self.long,
            "burnShort": self.short,
            "firing": self.firing,
        }


@dataclass(frozen=True)
class Standing:
    """One objective. `counted` requests or slices, of which `bad` were; `spent` of the period's
    budget (1: all of it); `burn` over the last hour; `lasts_seconds` until the budget is spent if
    that goes on, None when it never will be."""

    slo: Slo
    counted: int
    bad: float
    spent: float | None
    burn: float | None
    lasts_seconds: float | None
    burning: tuple[Burning, ...]

    @property
    def state(self) -> State:
        if self.spent is None:
            return "unknown"
        if self.spent >= 1:
            return "spent"
        firing = {each.alert.severity for each in self.burning if each.firing}
        return "page" if "page" in firing else "ticket" if "ticket" in firing else "ok"

    def to_json(self) -> JSON:
        return {
            "name": self.slo.name,
            "service": self.slo.service,
            "sli": self.slo.sli,
            "description": self.slo.description,
            "target": self.slo.target,
            "period": duration(self.slo.window_seconds),
            "state": self.state,
            "counted": self.counted,
            "bad": self.bad,
            "good": 1 - self.bad / self.counted if self.counted else None,
            "budgetSpent": self.spent,
            "budgetLeft": None if self.spent is None else 1 - self.spent,
            "burn": self.burn,
            "lastsSeconds": self.lasts_seconds,
            "alerts": [each.to_json() for each in self.burning],
        }


def lengths(slos: Iterable[Slo]) -> list[float]:
    """Every window (seconds) that somebody asks about."""
    asked = {HOUR}
    for slo in slos:
        for alert in slo.alerts:
            asked |= {alert.long_seconds, alert.short_seconds}
    return sorted(asked)


def standings(slos: Iterable[Slo], seen: Seen) -> list[Standing]:
    return [_standing(slo, seen) for slo in slos]


def _standing(slo: Slo, seen: Seen) -> Standing:
    counted, bad = _counts(slo, seen.whole)
    watched = min((seen.until - seen.since).total_seconds() / slo.window_seconds, 1.0)
    left = levels.left(bad / counted if counted else None, slo.target, watched)
    now = burn(slo, seen.windows[HOUR])
    return Standing(
        slo,
        counted,
        bad,
        None if left is None else 1 - left,
        now,
        lasts(left, now, slo.window_seconds),
        tuple(
            Burning(
                alert,
                burn(slo, seen.windows[alert.long_seconds]),
                burn(slo, seen.windows[alert.short_seconds]),
            )
            for alert in slo.alerts
        ),
    )


def burn(slo: Slo, tally: Tally) -> float | None:
    """How many times too fast the budget burnt while this was tallied; None: nobody asked."""
    return levels.burn(tally.bad()[slo.sli], slo.target)


def lasts(left: float | None, burning: float | None, period_seconds: float) -> float | None:
    """How long what is left of a budget lasts at this burn; None: for ever, or not known."""
    if left is None or not burning:
        return None
    return max(left, 0.0) * period_seconds / burning


def _counts(slo: Slo, tally: Tally) -> tuple[int, float]:
    if slo.sli == "availability":
        return tally.slices, tally.bad_slices
    if slo.sli == "latency":
        return tally.timed, tally.slow
    return tally.requests, tally.errors


def worst(found: Sequence[Standing]) -> State:
    return max((each.state for each in found), key=STATES.index, default="unknown")


def document(name: str, found: Sequence[Standing], seen: Seen) -> JSON:
    """What `GET /v1/slo` answers."""
    state = worst(found)
    return {
        "apiVersion": "regionctl/v1",
        "kind": "SloStatus",
        "name": name,
        "state": state,
        "met": state not in MISSED,
        "since": seen.since.isoformat(),
        "until": seen.until.isoformat(),
        "items": [each.to_json() for each in found],
    }
