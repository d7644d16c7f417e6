"""What clients get, measured: rates, latencies, errors, and what is left of the error budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

ERRORS, LATENCY = "errors", "latency"
EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Rates:
    """Requests a second, the 99th percentile in milliseconds, the share that failed with a 5xx.

    None: not known, or nobody asked for anything.
    """

    rate: float | None = None
    p99_ms: float | None = None
    error_ratio: float | None = None


@dataclass(frozen=True)
class Level:
    """A service level: the share that must be good, and the share that was, since `since`.

    `budget_left` is 1 when nothing bad happened, 0 when the budget is spent, less when it is
    overspent. `burn` (window → factor): at 1 the budget would last exactly.
    """

    name: str
    objective: float
    since: datetime
    good: float | None = None
    budget_left: float | None = None
    burn: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """The whole platform, a point each `step_seconds`, the last one at `until`."""

    until: datetime | None = None
    points: tuple[Rates, ...] = ()
    step_seconds: float = EVERY_SECONDS


@dataclass(frozen=True)
class Measured:
    """By region where it has regions. `budgets`: the least that is left of any level, 0 to 1.
    `over_since`: (region, ERRORS or LATENCY) → since when its limit has been exceeded."""

    regions: Mapping[str, Rates] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    budgets: Mapping[str, float] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    series: Series = field(default_factory=Series)
    over_since: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
