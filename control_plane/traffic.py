"""What clients get, from what front doors count: rates, latencies, shares of errors. Pure.

A front door is a gateway or the edge. Counts only grow, until the door is started again and they
begin anew; whatever is said here is about the difference between two looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from infra.traffic import Traffic

ERRORS, LATENCY = "errors", "latency"
EVERY_SECONDS = 5.0
P99 = 0.99

Buckets = tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Rates:
    """Requests a second, the 99th percentile in milliseconds, the share that failed with a 5xx.

    None: not known, or nobody asked for anything. `requests`: how many that share is of.
    """

    rate: float | None = None
    p99_ms: float | None = None
    error_ratio: float | None = None
    requests: int = 0


@dataclass(frozen=True)
class Level:
    """A service level: the share that must be good, and the share that was, since `since`.

    `budget_left` is 1 when nothing bad happened, 0 when the budget is spent, less when it is
    overspent. `burn` (window → factor): at 1 the budget would last exactly; over as much of the
    window as has been watched.
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


@dataclass(frozen=True)
class Slice:
    """What some doors did between two looks. `rate`: requests a second, while they were seen."""

    rate: float
    requests: int
    errors: int
    buckets: Buckets


def between(before: Traffic, after: Traffic, seconds: float) -> Slice:
    """What a door did in the `seconds` between two looks at it.

    Counts that are lower than before began anew: all that they have came since.
    """
    if _began_anew(before, after):
        before = Traffic()
    known = dict(before.buckets)
    buckets = tuple((bound, count - known.get(bound, 0)) for bound, count in after.buckets)
    requests = after.requests - before.requests
    return Slice(requests / seconds, requests, after.errors - before.errors, buckets)


def outage(before: Iterable[Slice], seconds: float) -> Slice:
    """What clients got for so many `seconds` of an edge that let nobody in: requests at the mean
    rate of the slices `before`, all failed; at least one, for whoever looked got nothing either."""
    rates_before = [each.rate for each in before]
    rate = sum(rates_before) / len(rates_before) if rates_before else 0.0
    expected = max(1, round(rate * seconds))
    return Slice(expected / seconds if seconds > 0 else 0.0, expected, expected, ())


def _began_anew(before: Traffic, after: Traffic) -> bool:
    if after.requests < before.requests or after.errors < before.errors:
        return True
    if not before.buckets:
        return False
    if [bound for bound, _ in before.buckets] != [bound for bound, _ in after.buckets]:
        return True
    # Not only each count but each bucket's own share must have grown.
    was = _parts(before.buckets)
    return any(part < old for part, old in zip(_parts(after.buckets), was, strict=True))


def _parts(buckets: Buckets) -> list[int]:
    """How many are in each bucket and in no lower one."""
    counts = [0, *(count for _, count in buckets)]
    return [high - low for low, high in pairwise(counts)]


def together(slices: Iterable[Slice]) -> Slice | None:
    """What several doors did at the same time; None when none was seen."""
    found = list(slices)
    if not found:
        return None
    return Slice(
        sum(each.rate for each in found),
        sum(each.requests for each in found),
        sum(each.errors for each in found),
        summed(each.buckets for each in found),
    )


def summed(buckets: Iterable[Buckets]) -> Buckets:
    """Histograms as one. They have the same bounds or none: those of others are left out."""
    found = [each for each in buckets if each]
    if not found:
        return ()
    bounds = [bound for bound, _ in found[0]]
    alike = [each for each in found if [bound for bound, _ in each] == bounds]
    counts = zip(*([count for _, count in each] for each in alike), strict=True)
    return tuple(zip(bounds, map(sum, counts), strict=True))


def rates(recent: Sequence[Slice], rate_of: int) -> Rates:
    """Latency and errors over all of the slices, the rate over the last `rate_of` of them."""
    if not recent:
        return Rates()
    last = recent[-rate_of:]
    requests = sum(each.requests for each in recent)
    errors = sum(each.errors for each in recent)
    return Rates(
        rate=sum(each.rate for each in last) / len(last),
        p99_ms=percentile(summed(each.buckets for each in recent), P99),
        error_ratio=errors / requests if requests else None,
        requests=requests,
    )


def percentile(buckets: Buckets, share: float) -> float | None:
    """The time (ms) within which `share` of the requests were answered; None without requests.

    It lies in the bucket of that request, by as much as the bucket's others suggest.
    """
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    rank = share * total
    low, below = 0.0, 0
    for bound, count in buckets:
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low


def within(buckets: Buckets, milliseconds: float) -> float:
    """How many requests were answered within the time; in a bucket they are spread evenly."""
    low, below = 0.0, 0
    for bound, count in buckets:
        if milliseconds < bound:
            return below + (count - below) * (milliseconds - low) / (bound - low)
        low, below = bound, count
    return float(below)
