"""The topology's service levels: the shares that were good, and what is left of budgets. Pure.

availability  of the time slices in which somebody asked, those in which at most
              errorRatePercent failed; must be availabilityPercent
latency       of the requests, those answered within p99Milliseconds; must be 99 %
errors        of the requests, those not answered with a 5xx; at most errorRatePercent may be
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from control_plane.traffic import P99, Level, Slice, within
from infra.topology_policies import ServiceLevels

LEAST_ALLOWED = 1e-9  # an objective of 100 % allows nothing, and nothing cannot be divided by


@dataclass(frozen=True)
class Tally:
    """Good and bad since some moment. `slices` had requests, of which `bad_slices` too many failed;
    of the requests that were timed, `slow` took too long."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    slow: float = 0.0
    slices: int = 0
    bad_slices: int = 0

    def plus(self, seen: Slice | None, limits: ServiceLevels) -> Tally:
        """The same after one more time slice; None when it was not seen."""
        if seen is None:
            return self
        timed = seen.buckets[-1][1] if seen.buckets else 0
        failed = 100 * seen.errors > limits.error_rate_percent * seen.requests
        return Tally(
            self.requests + seen.requests,
            self.errors + seen.errors,
            self.timed + timed,
            self.slow + timed - within(seen.buckets, limits.p99_milliseconds),
            self.slices + (seen.requests > 0),
            self.bad_slices + failed,
        )

    def less(self, earlier: Tally) -> Tally:
        """What came after `earlier`, a tally on the way to this one."""
        return Tally(
            self.requests - earlier.requests,
            self.errors - earlier.errors,
            self.timed - earlier.timed,
            self.slow - earlier.slow,
            self.slices - earlier.slices,
            self.bad_slices - earlier.bad_slices,
        )

    def more(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.requests + other.requests,
            self.errors + other.errors,
            self.timed + other.timed,
            self.slow + other.slow,
            self.slices + other.slices,
            self.bad_slices + other.bad_slices,
        )

    def bad(self) -> dict[str, float | None]:
        """Level → the share that was bad; None without anything to share."""
        return {
            "availability": _share(self.bad_slices, self.slices),
            "latency": _share(self.slow, self.timed),
            "errors": _share(self.errors, self.requests),
        }


def _share(bad: float, all_of: int) -> float | None:
    return bad / all_of if all_of else None


def objectives(limits: ServiceLevels) -> dict[str, float]:
    """Level → the share that must be good."""
    return {
        "availability": limits.availability_percent / 100,
        "latency": P99,
        "errors": 1 - limits.error_rate_percent / 100,
    }


def levels(
    limits: ServiceLevels,
    since: datetime,
    so_far: Tally,
    windows: Mapping[str, Tally],
    watched: float = 1.0,
) -> tuple[Level, ...]:
    """Each level over all that was tallied since then, which is the share `watched` of the period
    that its budget is for, and its burn over each window."""
    bad = so_far.bad()
    recently = {name: tally.bad() for name, tally in windows.items()}
    return tuple(
        Level(
            name,
            objective,
            since,
            good=_good(bad[name]),
            budget_left=left(bad[name], objective, watched),
            burn={window: burn(shares[name], objective) for window, shares in recently.items()},
        )
        for name, objective in objectives(limits).items()
    )


def least_left(limits: ServiceLevels, so_far: Tally, watched: float = 1.0) -> float | None:
    """What is left of the budget that is spent most, 0 to 1; None when nobody asked."""
    bad = so_far.bad()
    found = [left(bad[name], objective, watched) for name, objective in objectives(limits).items()]
    known = [each for each in found if each is not None]
    return max(0.0, min(known)) if known else None


def left(bad: float | None, objective: float, watched: float = 1.0) -> float | None:
    """What is left of a period's budget: 1 of an untouched one, below 0 of an overspent one.

    `watched` is the share of the period that `bad` is about; the rest of it, which lies before
    anybody looked, has spent nothing.
    """
    factor = burn(bad, objective)
    return None if factor is None else 1 - factor * watched


def burn(bad: float | None, objective: float) -> float | None:
    """How many times faster than allowed a budget burns: at 1 it lasts exactly its period."""
    return None if bad is None else bad / max(1 - objective, LEAST_ALLOWED)


def _good(bad: float | None) -> float | None:
    return None if bad is None else 1 - bad
