"""Rates, percentiles and error budgets from counts that grow, and that begin anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.levels import Tally, least_left, left, levels, objectives
from control_plane.minutes import Minutes
from control_plane.sampler import History, Sampler
from control_plane.traffic import (
    ERRORS,
    LATENCY,
    Measured,
    Slice,
    between,
    outage,
    percentile,
    rates,
    within,
)
from infra.slo import PERIOD_SECONDS
from infra.topology import load
from infra.topology_policies import ServiceLevels
from infra.traffic import BOUNDS, Traffic
from tests.control_plane.platform import Platform

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LEVELS = ServiceLevels()
EDGE, GATEWAY, OTHER = "edge", "gateway.us-east-1a", "gateway.us-east-1b"

counts = st.lists(st.integers(0, 10_000), min_size=len(BOUNDS), max_size=len(BOUNDS))
histograms = counts.map(lambda each: tuple(zip(map(float, BOUNDS), accumulate(each), strict=True)))
traffics = st.builds(Traffic, st.integers(0, 10_000), st.integers(0, 10_000), histograms)
shares = st.floats(0.001, 1.0)


@given(histograms, shares)
def test_a_percentile_lies_in_the_bucket_of_its_request(
    buckets: tuple[tuple[float, int], ...], share: float
) -> None:
    found = percentile(buckets, share)
    total = buckets[-1][1]
    if not total:
        assert found is None
        return
    assert found is not None
    low, high = next(
        (low, high)
        for (low, _), (high, count) in pairwise(((0.0, 0), *buckets))
        if count >= share * total
    )
    assert low <= found <= high


@given(histograms, shares, shares)
def test_a_higher_percentile_is_never_quicker(
    buckets: tuple[tuple[float, int], ...], one: float, other: float
) -> None:
    low, high = (percentile(buckets, share) for share in sorted((one, other)))
    assert (low or 0.0) <= (high or 0.0) + 1e-9


@given(histograms, st.floats(0.0, 40_000.0))
def test_what_was_quick_enough_lies_between_the_counts_of_the_bounds_around(
    buckets: tuple[tuple[float, int], ...], limit: float
) -> None:
    found = within(buckets, limit)
    low = max((count for bound, count in buckets if bound <= limit), default=0)
    high = min((count for bound, count in buckets if bound >= limit), default=low)
    assert low <= found <= max(low, high)


@given(traffics, traffics, st.floats(0.1, 60.0))
def test_no_difference_is_ever_negative(before: Traffic, after: Traffic, seconds: float) -> None:
    done = between(before, after, seconds)
    assert done.rate >= 0
    assert done.requests >= 0
    assert done.errors >= 0
    parts = [high - low for (_, low), (_, high) in pairwise(((0.0, 0), *done.buckets))]
    assert all(part >= 0 for part in parts)


def test_a_door_that_was_started_again_has_done_what_it_has_counted_since() -> None:
    before = Traffic(900, 3, ((10.0, 900),))
    after = Traffic(20, 1, ((10.0, 20),))
    assert between(before, after, 5.0) == Slice(4.0, 20, 1, ((10.0, 20),))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_a_budget_only_shrinks_while_bad_things_happen_among_as_many_requests(
    bad: list[tuple[int, int]],
) -> None:
    """Of the same requests, those of whom more failed or were slow leave less of every budget."""
    asked = 100
    fine = Tally()
    worse = Tally()
    for errors, slow in bad:
        fine = fine.plus(_slice(asked, 0, 0), LEVELS)
        worse = worse.plus(_slice(asked, errors, slow), LEVELS)
        for name, objective in objectives(LEVELS).items():
            lost, kept = left(worse.bad()[name], objective), left(fine.bad()[name], objective)
            assert kept == 1
            assert lost is not None
            assert lost <= kept
        still = least_left(LEVELS, worse)
        assert still is not None
        assert 0 <= still <= 1


@given(st.integers(0, 100), st.integers(0, 100))
def test_more_errors_never_leave_more_of_a_budget(one: int, other: int) -> None:
    few, many = (
        Tally().plus(_slice(100, errors, errors), LEVELS) for errors in sorted((one, other))
    )
    for name, objective in objectives(LEVELS).items():
        less, more = left(many.bad()[name], objective), left(few.bad()[name], objective)
        assert less is not None
        assert more is not None
        assert less <= more


def test_a_level_that_allows_nothing_has_a_whole_budget_or_none() -> None:
    limits = ServiceLevels(availability_percent=100.0)
    for errors, good in ((0, True), (50, False)):
        tally = Tally().plus(_slice(100, errors, 0), limits)
        level = levels(limits, NOW, tally, {})[0]
        assert level.name == "availability"
        assert level.budget_left is not None
        assert (level.budget_left == 1) == good
        assert level.budget_left > 0 or not good


def _slice(requests: int, errors: int, slow: int) -> Slice:
    return Slice(requests / 5, requests, errors, ((100.0, requests - slow), (1000.0, requests)))


class Doors:
    """Counts as front doors would give them, a look each five seconds."""

    def __init__(self) -> None:
        self.history = History(NOW)
        self.topology = load("two-regions")
        self.counted = {id: Traffic() for id in (EDGE, GATEWAY, OTHER)}
        self.looks = 0

    def ask(self, times: int, *, at: str = GATEWAY, ms: float = 8.0, failed: bool = False) -> None:
        for id in (EDGE, at):
            for _ in range(times):
                self.counted[id] = self.counted[id].with_request(ms, failed=failed)

    def look(self, *without: str) -> Measured:
        self.looks += 1
        seen = {id: each for id, each in self.counted.items() if id not in without}
        seconds = 5.0 * self.looks
        return self.history.add(self.topology, seen, seconds, NOW + timedelta(seconds=seconds))


def test_what_was_counted_before_the_first_look_is_nobodys() -> None:
    doors = Doors()
    doors.ask(1000, failed=True)
    first = doors.look()
    assert first.regions["us-east-1"].rate is None
    assert {level.good for level in first.levels} == {None}
    assert first.shares == {}
    assert doors.look().regions["us-east-1"].rate == 0.0


def test_a_region_is_what_its_gateways_do_and_the_platform_what_the_edge_does() -> None:
    doors = Doors()
    doors.look()
    doors.ask(50)
    doors.ask(30, at=OTHER)
    measured = doors.look()
    region = measured.regions["us-east-1"]
    assert (region.rate, region.error_ratio, region.requests) == (16.0, 0.0, 80)
    assert region.p99_ms is not None
    assert 5 < region.p99_ms <= 10
    assert measured.shares == {"us-east-1": 1.0, "us-west-2": 0.0}
    assert measured.budgets == {"us-east-1": 1.0}
    assert [point.rate for point in measured.series.points] == [None, 16.0]


def test_a_gateway_that_comes_back_is_no_burst() -> None:
    doors = Doors()
    doors.ask(10_000, at=OTHER)
    doors.look()
    doors.ask(50)
    doors.look(OTHER)
    assert doors.look().regions["us-east-1"].requests == 50
    doors.counted[OTHER] = Traffic()
    doors.ask(5, at=OTHER)
    assert doors.look().regions["us-east-1"].requests == 55


def test_a_region_that_says_nothing_any_more_has_no_rates() -> None:
    doors = Doors()
    doors.look()
    doors.ask(50)
    doors.look()
    assert doors.look(GATEWAY, OTHER).regions["us-east-1"].rate is None


@pytest.mark.parametrize(("rule", "ms", "failed"), [(LATENCY, 400.0, False), (ERRORS, 8.0, True)])
def test_a_limit_counts_as_exceeded_since_the_first_look_that_saw_it(
    rule: str, ms: float, failed: bool
) -> None:
    doors = Doors()
    doors.look()
    doors.ask(5, ms=ms, failed=failed)
    assert doors.look().over_since == {}  # too few to say
    doors.ask(30, ms=ms, failed=failed)
    since = NOW + timedelta(seconds=15)
    assert doors.look().over_since == {("us-east-1", rule): since}
    assert doors.look().over_since == {("us-east-1", rule): since}


def test_an_outage_burns_the_short_window_faster_than_the_long_one() -> None:
    doors = Doors()
    doors.look()
    for _ in range(100):
        doors.ask(10)
        measured = doors.look()
    assert {each for level in measured.levels for each in level.burn.values()} == {0.0}
    for _ in range(10):
        doors.ask(10, failed=True)
        measured = doors.look()
    availability, _, errors = measured.levels
    assert availability.good == pytest.approx(100 / 110)
    assert errors.burn["5m"] == pytest.approx(10 / 60 / 0.01)
    assert errors.burn["1h"] == pytest.approx(10 / 110 / 0.01)
    watched = 111 * 5 / PERIOD_SECONDS
    assert errors.budget_left == pytest.approx(1 - 10 / 110 / 0.01 * watched)
    spent = 10 / 110 / 0.0001 * watched
    assert measured.budgets["us-east-1"] == pytest.approx(1 - spent)


def test_an_edge_that_lets_nobody_in_fails_as_many_as_came_before() -> None:
    doors = Doors()
    doors.look()
    for _ in range(12):
        doors.ask(10)
        doors.look()
    mine = doors.counted[EDGE]
    doors.counted[EDGE] = Traffic(serves=False)
    for _ in range(12):
        measured = doors.look()
    whole = doors.history.pending
    assert (whole.requests, whole.errors) == (240, 120)
    assert (whole.slices, whole.bad_slices) == (24, 12)
    availability, latency, errors = measured.levels
    assert (availability.good, latency.good, errors.good) == (0.5, 1.0, 0.5)
    assert errors.burn["5m"] == pytest.approx(0.5 / 0.01)
    assert measured.series.points[-1].rate is None
    doors.counted[EDGE] = mine
    doors.ask(10)
    doors.look()
    assert (doors.history.pending.requests, doors.history.pending.errors) == (250, 120)


def test_an_edge_that_only_says_nothing_or_never_answered_has_failed_nobody() -> None:
    doors = Doors()
    mine, doors.counted[EDGE] = doors.counted[EDGE], Traffic(serves=False)
    for _ in range(3):
        doors.look()  # a platform that is just coming up
    doors.counted[EDGE] = mine
    doors.ask(10)
    for _ in range(3):
        doors.look()
        doors.ask(10)
    for _ in range(3):
        doors.look(EDGE)  # only what it counts is not to be had
    assert doors.history.pending.errors == 0


@given(
    st.lists(st.builds(_slice, st.integers(0, 500), st.just(0), st.just(0)), max_size=12),
    st.floats(0, 60),
)
def test_an_outage_fails_at_least_whoever_looked_and_nobody_is_served(
    before: list[Slice], seconds: float
) -> None:
    lost = outage(before, seconds)
    assert lost.requests == lost.errors >= 1
    most = max((each.rate for each in before), default=0.0)
    assert lost.requests <= max(1, round(most * seconds))


async def test_a_killed_edge_burns_the_budget_of_the_platform() -> None:
    async with Platform.open() as platform:
        await platform.run("provision")
        sampler = Sampler(platform.provider, platform.clock, Minutes(platform.store.database))
        for number in range(30):
            platform.provider.write("s1", str(number))
            if number == 15:
                await platform.provider.ensure_stopped([EDGE])
            await sampler.look()
            platform.clock.advance(5.0)
        found = await sampler.seen([300.0])
        assert found.windows[300.0].errors == 15
        assert (found.whole.slices, found.whole.bad_slices) == (29, 15)


async def test_the_sampler_asks_the_provider() -> None:
    async with Platform.open() as platform:
        await platform.run("provision")
        sampler = Sampler(platform.provider, platform.clock, Minutes(platform.store.database))
        await sampler.look()
        platform.provider.write("s1", "1")
        platform.clock.advance(5.0)
        await sampler.look()
        assert sampler.measured.regions["us-east-1"].rate == pytest.approx(0.2)
        assert sampler.measured.regions["us-west-2"].rate == 0.0


def test_without_steps_nothing_is_known() -> None:
    assert rates([], 3).rate is None
