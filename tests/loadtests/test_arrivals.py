"""Plans of intended start times: what is offered is what was planned, and can be offered again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import profiles
from loadtests.arrivals import (
    STEADY,
    WARM_UP,
    Plan,
    Segment,
    arrivals,
    due,
    hottest,
    phases,
    pick,
    read,
    share,
    zipf,
)
from loadtests.calibrate import too_much

RATES = st.floats(0, 60)
SEGMENTS = st.lists(
    st.builds(Segment, st.just("ramp"), RATES, RATES, st.floats(0.1, 8)), min_size=1, max_size=4
).filter(lambda segments: sum(each.area for each in segments) > 1)


def plan(segments: list[Segment], seed: int = 1, spacing: str = "poisson") -> Plan:
    total = sum(each.seconds for each in segments)
    return Plan(
        profile="test",
        seed=seed,
        spacing=spacing,  # type: ignore[arg-type]
        segments=tuple(segments),
        phases=phases([(WARM_UP, total / 4), (STEADY, total)]),
        mix={"browse": 1.0, "refresh": 3.0},
        users=16,
    )


def expected(made: Plan, until: float) -> float:
    """Λ(until): the integral of the rate."""
    area, begin = 0.0, 0.0
    for each in made.segments:
        inside = min(max(until - begin, 0.0), each.seconds)
        slope = (each.to_rate - each.from_rate) / each.seconds
        area += each.from_rate * inside + slope * inside**2 / 2
        begin += each.seconds
    return area


@given(SEGMENTS, st.integers(0, 2**31), st.sampled_from(["poisson", "uniform"]))
def test_arrivals_come_in_order_within_the_plan_and_the_same_seed_replays_them(
    segments: list[Segment], seed: int, spacing: str
) -> None:
    made = plan(segments, seed, spacing)
    first = list(arrivals(made))
    assert first == list(arrivals(made))
    assert [each.n for each in first] == list(range(len(first)))
    assert all(before.at <= after.at for before, after in pairwise(first))
    assert all(0 <= each.at <= made.seconds + 1e-9 for each in first)
    assert all(0 <= draw < 1 for each in first for draw in each.draws)


@given(SEGMENTS, st.integers(0, 1000), st.integers(1, 7))
def test_the_shares_of_the_workers_are_disjoint_and_complete(
    segments: list[Segment], seed: int, workers: int
) -> None:
    made = plan(segments, seed)
    dealt = [each for index in range(workers) for each in share(made, index, workers)]
    assert sorted(dealt, key=lambda each: each.n) == list(arrivals(made))


@given(SEGMENTS, st.floats(0, 1))
def test_even_arrivals_are_at_every_moment_as_many_as_the_rate_says(
    segments: list[Segment], part: float
) -> None:
    made = plan(segments, spacing="uniform")
    until = part * made.seconds
    assert abs(due(made, until) - expected(made, until)) <= 1


@given(SEGMENTS, st.integers(0, 2**31))
def test_random_arrivals_are_about_as_many_as_the_rate_says(
    segments: list[Segment], seed: int
) -> None:
    made = plan(segments, seed)
    wanted = expected(made, made.seconds)
    assert abs(due(made) - wanted) <= 7 * sqrt(wanted) + 1


def test_gaps_of_random_arrivals_are_exponential_and_those_of_even_ones_alike() -> None:
    steady = [Segment("constant", 50, 50, 100)]
    random = [b.at - a.at for a, b in pairwise(arrivals(plan(steady)))]
    mean = sum(random) / len(random)
    longer = sum(gap > mean for gap in random) / len(random)
    assert isclose(mean, 0.02, rel_tol=0.1)
    assert isclose(longer, 0.368, abs_tol=0.03)
    even = [b.at - a.at for a, b in pairwise(arrivals(plan(steady, spacing="uniform")))]
    assert all(isclose(gap, 0.02, abs_tol=1e-9) for gap in even)


def test_another_seed_gives_other_arrivals_and_journeys_come_by_their_weight() -> None:
    made = plan([Segment("constant", 100, 100, 20)])
    other = replace(made, seed=2)
    assert [each.at for each in arrivals(made)] != [each.at for each in arrivals(other)]
    journeys = [each.journey for each in arrivals(made)]
    assert isclose(journeys.count("refresh") / len(journeys), 0.75, abs_tol=0.05)


@given(RATES, RATES, st.floats(0.1, 100), st.floats(0, 1))
def test_when_so_many_are_due_they_are_due(
    begin: float, end: float, seconds: float, part: float
) -> None:
    segment = Segment("ramp", begin, end, seconds)
    at = segment.when(part * segment.area)
    assert 0 <= at <= seconds
    assert isclose(expected(plan([segment]), at), part * segment.area, rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_profile_has_a_plan_that_can_be_written_down_and_read(name: str) -> None:
    made = profiles.named(name, 1.0, None, seed=3)
    assert read(made.document()) == made
    assert made.phase_at(0) == WARM_UP
    assert made.phase_at(made.seconds) == ("400/s" if name == "breakpoint" else STEADY)


@given(st.sampled_from(sorted(profiles.PROFILES)), st.floats(0.05, 2), st.floats(1, 3600))
def test_scale_and_seconds_change_rates_and_times_and_nothing_else(
    name: str, scale: float, seconds: float
) -> None:
    usual = profiles.named(name, 1.0, None, 1)
    changed = profiles.named(name, scale, seconds, 1)
    assert isclose(changed.peak, usual.peak * scale)
    assert isclose(changed.seconds, seconds)
    stretched = isclose(
        sum(each.area for each in changed.segments),
        sum(each.area for each in usual.segments) * scale * seconds / usual.seconds,
    )
    assert stretched


@given(st.floats(1, 100), st.floats(0, 0.3))
def test_no_user_is_made_to_order_more_than_the_platform_lets_one(peak: float, skew: float) -> None:
    users = profiles.users_for(peak, profiles.MIX, skew)
    orders = peak * 60 * (profiles.MIX["checkout"] + profiles.MIX["cancel"])
    assert orders * hottest(users, skew) <= profiles.ORDERS_PER_MINUTE


@pytest.mark.parametrize(("scale", "seconds"), [(0, None), (-1, None), (1, 0), (1e9, None)])
def test_a_plan_that_cannot_be_is_refused(scale: float, seconds: float | None) -> None:
    with pytest.raises(ValueError, match=r"rate scale|seconds|users"):
        profiles.named("smoke", scale, seconds, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing", "sometimes"),
        ("segments", []),
        ("phases", []),
        ("mix", {"browse": 0}),
        ("users", 0),
        ("timeoutSeconds", 0),
        ("hot", 2),
        ("seed", None),
        ("segments", [{"kind": "constant", "fromRate": -1, "toRate": 1, "seconds": 1}]),
        ("segments", [{"kind": "flat", "fromRate": 1, "toRate": 1, "seconds": 1}]),
        ("segments", [{"kind": "constant", "fromRate": 1, "toRate": 1}]),
    ],
)
def test_a_plan_with_a_fault_cannot_be_read(key: str, value: object) -> None:
    document = profiles.named("smoke", 1.0, None, 1).document()
    with pytest.raises(ValueError, match="the plan has"):
        read({**document, key: value})


@given(st.integers(1, 200), st.floats(0, 2), st.floats(0, 1, exclude_max=True))
def test_skew_prefers_the_first_and_reaches_everybody(count: int, skew: float, draw: float) -> None:
    bounds = zipf(count, skew)
    shares = [after - before for before, after in pairwise([0.0, *bounds])]
    assert isclose(bounds[-1], 1.0)
    assert all(before >= after - 1e-12 for before, after in pairwise(shares))
    assert 0 <= pick(bounds, draw) < count


@given(st.floats(1, 1000), st.floats(1, 5000), st.integers(1, 8))
def test_a_plan_is_too_much_for_workers_that_it_would_use_by_more_than_half(
    rate: float, ceiling: float, workers: int
) -> None:
    made = replace(plan([Segment("constant", rate, rate, 5)]), mix={"browse": 1, "refresh": 1})
    refused = too_much(made, ceiling, workers)
    assert bool(refused) == (rate * 1.5 > ceiling * workers / 2)
