"""Asks the front doors every few seconds what they have counted, and keeps the last hour of it.

What the edge did is kept for good, minute by minute (`control_plane.minutes`), for as long as the
budgets are for: they outlive the control plane. Those of regions count from when it began.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime

from control_plane.levels import Tally, least_left, levels
from control_plane.minutes import SECONDS, Minutes
from control_plane.slo import Seen
from control_plane.traffic import (
    ERRORS,
    EVERY_SECONDS,
    LATENCY,
    Measured,
    Rates,
    Series,
    Slice,
    between,
    outage,
    rates,
    together,
)
from infra.provider import Provider
from infra.slo import PERIOD_SECONDS
from infra.topology import EDGE, Topology
from infra.traffic import Traffic
from runtime.clock import Clock
from runtime.errors import Problem

log = logging.getLogger(__name__)

LEAST_REQUESTS = 20
POINTS = 180
RECENT = 12
RATE_OF = 3
WINDOWS = {"5m": 60, "1h": 720}


class History:
    """What was counted, look by look. Pure but for being changed: it reads no clock.

    The whole platform is what the edge counts, which also sees what no region answered; nothing is
    known of it while the edge does not say. While an edge that has answered before lets nobody in,
    as many requests have failed as came in the last minute of it (`control_plane.traffic.outage`).
    `kept` is what was known before, `since` when that began; `pending` has come since and is not
    kept yet.
    """

    def __init__(self, since: datetime) -> None:
        self.began = since
        self.since = since
        self.kept = Tally()
        self.pending = Tally()
        self.doors: dict[str, tuple[float, Traffic]] = {}
        self.recent: dict[str, deque[Slice]] = {}
        self.tallies: dict[str, Tally] = {}
        self.whole: deque[Tally] = deque([Tally()], maxlen=max(WINDOWS.values()) + 1)
        self.last: deque[Slice | None] = deque(maxlen=2)
        self.served: deque[Slice] = deque(maxlen=RECENT)
        self.looked: float | None = None
        self.points: deque[Rates] = deque(maxlen=POINTS)
        self.over_since: dict[tuple[str, str], datetime] = {}

    def add(
        self, topology: Topology, counted: Mapping[str, Traffic], monotonic: float, now: datetime
    ) -> Measured:
        """Takes in what each door has counted by now; what all looks together say."""
        slices: dict[str, list[Slice]] = {region.name: [] for region in topology.regions}
        slices[""] = []
        shut = not counted.get(EDGE, Traffic()).serves
        counted = {door: traffic for door, traffic in counted.items() if traffic.serves}
        for door, traffic in counted.items():
            before = self.doors.get(door)
            self.doors[door] = monotonic, traffic
            if before is not None and monotonic > before[0] and door in topology.by_id:
                region = topology.by_id[door].region
                slices[region].append(between(before[1], traffic, monotonic - before[0]))
        inside = {name: together(found) for name, found in slices.items() if name}
        whole = together(slices[""])
        lost = None
        if whole is not None:
            self.served.append(whole)
        elif shut and EDGE in self.doors and self.looked is not None:
            lost = outage(self.served, monotonic - self.looked)
        self.looked = monotonic
        self._keep(topology, inside, whole, lost, now)
        return self._measured(topology, now)

    def _keep(
        self,
        topology: Topology,
        inside: Mapping[str, Slice | None],
        whole: Slice | None,
        lost: Slice | None,
        now: datetime,
    ) -> None:
        limits = topology.service_levels
        self.whole.append(self.whole[-1].plus(whole or lost, limits))
        self.pending = self.pending.plus(whole or lost, limits)
        self.last.append(whole)
        # Doors count times later than requests: a single slice may have none.
        seen = [each for each in self.last if each is not None]
        p99 = rates(seen, 1).p99_ms
        alone = rates([whole] if whole else [], 1)
        self.points.append(Rates(alone.rate, p99, alone.error_ratio, alone.requests))
        for region, done in inside.items():
            self.tallies[region] = self.tallies.get(region, Tally()).plus(done, limits)
            recent = self.recent.setdefault(region, deque(maxlen=RECENT))
            if done is None:
                recent.clear()
            else:
                recent.append(done)
        for region in self.recent.keys() - inside.keys():
            del self.recent[region], self.tallies[region]

    def _measured(self, topology: Topology, now: datetime) -> Measured:
        limits = topology.service_levels
        known = {name: rates(tuple(kept), RATE_OF) for name, kept in self.recent.items()}
        over: dict[tuple[str, str], datetime] = {}
        for region, found in known.items():
            exceeded = {
                ERRORS: 100 * (found.error_ratio or 0.0) > limits.error_rate_percent,
                LATENCY: (found.p99_ms or 0.0) > limits.p99_milliseconds,
            }
            for rule, broken in exceeded.items():
                if broken and found.requests >= LEAST_REQUESTS:
                    over[region, rule] = self.over_since.get((region, rule), now)
        self.over_since = over
        mine = _watched(self.began, now)
        budgets = {name: least_left(limits, tally, mine) for name, tally in self.tallies.items()}
        whole = self.whole[-1]
        windows = {
            name: whole.less(self.whole[max(0, len(self.whole) - 1 - count)])
            for name, count in WINDOWS.items()
        }
        return Measured(
            regions=known,
            shares=_shares(known),
            budgets={name: left for name, left in budgets.items() if left is not None},
            levels=levels(
                limits,
                self.since,
                self.kept.more(self.pending),
                windows,
                _watched(self.since, now),
            ),
            series=Series(now, tuple(self.points)),
            over_since=over,
        )


def _watched(since: datetime, now: datetime) -> float:
    """The share of the budgets' period that has been watched, 0 to 1."""
    return min(max((now - since).total_seconds() / PERIOD_SECONDS, 0.0), 1.0)


def _shares(known: Mapping[str, Rates]) -> dict[str, float]:
    """Of all requests inside regions; none while there are none."""
    total = sum(each.rate or 0.0 for each in known.values())
    if not total:
        return {}
    return {name: (each.rate or 0.0) / total for name, each in known.items()}


class Sampler:
    """Start `run()` as a task; cancel it to stop. `measured` is what is known by now."""

    def __init__(self, provider: Provider, clock: Clock, minutes: Minutes) -> None:
        self.provider = provider
        self.clock = clock
        self.minutes = minutes
        self.minute: int | None = None
        self.history = History(clock.now())
        self.measured = Measured()
        self.said = ""

    async def run(self) -> None:
        while True:
            try:
                await self.look()
                self.said = ""
            except Problem as problem:
                if problem.detail != self.said:
                    log.info("cannot say what clients get: %s", problem.detail)
                self.said = problem.detail
            except Exception:
                log.exception("could not look at what clients get")
            await self.clock.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        counted = await self.provider.traffic()
        now = self.clock.now()
        minute = int(now.timestamp() // SECONDS)
        if self.minute != minute:
            await self._turn(minute, now)
        self.measured = self.history.add(
            self.provider.topology, counted, self.clock.monotonic(), now
        )

    async def seen(self, windows: Iterable[float]) -> Seen:
        """What was tallied up to the newest look: in all, and within each window (seconds)."""
        now = self.clock.now()
        first, kept = await self.minutes.period(now)
        found = await self.minutes.windows(now, windows)
        pending = self.history.pending
        return Seen(
            first or self.history.began,
            now,
            kept.more(pending),
            {length: tally.more(pending) for length, tally in found.items()},
        )

    async def _turn(self, minute: int, now: datetime) -> None:
        """A minute is over, or the first look is about to be taken."""
        history = self.history
        if self.minute is not None:
            over, history.pending = history.pending, Tally()
            try:
                await self.minutes.keep(self.minute, over)
            except BaseException:
                history.pending = over.more(history.pending)
                raise
        self.minute = minute
        first, history.kept = await self.minutes.period(now)
        history.since = first or history.began
