"""How many instances a service should have: in bounds, monotone, without fluttering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.scaling import Decision, Look, decide, used_between
from infra.topology_policies import ScalingPolicy
from infra.usage import Usage

EVERY = 5.0
POLICY = ScalingPolicy()


@st.composite
def policies(draw: st.DrawFn) -> ScalingPolicy:
    least = draw(st.integers(1, 5))
    cpu = draw(st.floats(10, 90))
    return ScalingPolicy(
        min_instances=least,
        max_instances=draw(st.integers(least, 12)),
        cpu_percent=cpu,
        idle_percent=draw(st.floats(0, cpu * 0.99)),
        hold_seconds=draw(st.sampled_from([5.0, 30.0, 60.0])),
        cool_seconds=draw(st.sampled_from([5.0, 60.0, 300.0])),
    )


percents = st.floats(0, 120)
looks_at = st.lists(st.lists(percents, max_size=6), max_size=80)


def looks_of(count: int, found: list[list[float]]) -> list[Look]:
    return [
        Look(EVERY * number, count, tuple(used[:count])) for number, used in enumerate(found, 1)
    ]


def steady(policy: ScalingPolicy, count: int, percent: float, seconds: float) -> Decision:
    """The decision after each instance has used `percent` for `seconds`."""
    looks = looks_of(count, [[percent] * count] * round(seconds / EVERY + 1))
    return decide(policy, count, looks, looks[-1].at)


@given(policy=policies(), count=st.integers(1, 15), found=looks_at)
def test_the_count_is_always_within_the_bounds(
    policy: ScalingPolicy, count: int, found: list[list[float]]
) -> None:
    looks = looks_of(count, found)
    wanted = decide(policy, count, looks, EVERY * len(found)).count
    assert policy.min_instances <= wanted <= policy.max_instances


@settings(max_examples=50)
@given(policy=policies(), cores=st.floats(0, 12), start=st.integers(1, 12))
def test_a_constant_load_never_has_it_grow_and_shrink_by_turns(
    policy: ScalingPolicy, cores: float, start: int
) -> None:
    """What there is to do is the same all the time; a process does no more than one core can."""
    count = min(max(start, policy.min_instances), policy.max_instances)
    path, looks = [count], list[Look]()
    for number in range(200):
        used = min(100.0, 100 * cores / count)
        looks = [*looks[-70:], Look(EVERY * number, count, (used,) * count)]
        count = decide(policy, count, looks, EVERY * number).count
        path.append(count)
    assert path in (sorted(path), sorted(path, reverse=True))
    settled = path[-1]
    enough = 100 * cores / settled <= policy.cpu_percent * 1.101
    assert enough or settled == policy.max_instances


@given(
    policy=policies(),
    count=st.integers(1, 12),
    found=looks_at,
    more=st.floats(0, 100),
    at=st.integers(0, 79),
)
def test_who_uses_more_never_gets_fewer(
    policy: ScalingPolicy, count: int, found: list[list[float]], more: float, at: int
) -> None:
    looks = looks_of(count, found)
    now = EVERY * len(found)
    busier = [
        replace(look, used=tuple(each + more for each in look.used)) if number >= at else look
        for number, look in enumerate(looks)
    ]
    assert decide(policy, count, looks, now).count <= decide(policy, count, busier, now).count


@given(policy=policies(), count=st.integers(1, 12), length=st.integers(0, 100))
def test_nothing_changes_while_nobody_says_what_is_used(
    policy: ScalingPolicy, count: int, length: int
) -> None:
    count = min(max(count, policy.min_instances), policy.max_instances)
    looks = looks_of(count, [[]] * length)
    assert decide(policy, count, looks, EVERY * length).count == count


@given(policy=policies(), count=st.integers(1, 12), found=looks_at)
def test_nothing_changes_while_it_is_held(
    policy: ScalingPolicy, count: int, found: list[list[float]]
) -> None:
    looks = looks_of(count, found)
    assert decide(policy, count, looks, EVERY * len(found), "op-1 runs") == (
        Decision(count, "op-1 runs")
    )


@pytest.mark.parametrize(
    ("count", "percent", "seconds", "wanted"),
    [
        (1, 90, 60, 2),
        (1, 90, 50, 1),  # not for long enough
        (1, 76, 3600, 1),  # within the tolerance of a tenth
        (2, 100, 60, 3),
        (4, 100, 3600, 4),  # there are no more
        (4, 20, 300, 2),
        (4, 20, 250, 4),
        (4, 0, 300, 1),
        (2, 30, 3600, 2),  # not idle
        (1, 0, 3600, 1),  # one always stays
    ],
)
def test_how_many_there_should_be(count: int, percent: float, seconds: float, wanted: int) -> None:
    assert steady(POLICY, count, percent, seconds).count == wanted


def without_one(look: Look) -> Look:
    return replace(look, used=look.used[1:])


def at_another_count(look: Look) -> Look:
    return replace(look, count=look.count + 1)


@pytest.mark.parametrize("spoil", [without_one, at_another_count])
@pytest.mark.parametrize("percent", [100.0, 0.0])
def test_one_look_that_says_less_keeps_the_count(
    percent: float, spoil: Callable[[Look], Look]
) -> None:
    """Of two, one says nothing once: it may have been idle, or as busy as can be."""
    looks = looks_of(2, [[percent] * 2] * 200)
    assert decide(POLICY, 2, looks, looks[-1].at).count != 2
    looks[-3] = spoil(looks[-3])
    assert decide(POLICY, 2, looks, looks[-1].at).count == 2


def test_a_single_busy_look_is_no_reason_to_grow() -> None:
    looks = looks_of(1, [[10.0]] * 50 + [[100.0]] + [[10.0]] * 5)
    assert decide(POLICY, 1, looks, looks[-1].at).count == 1


def test_each_decision_says_why() -> None:
    assert steady(POLICY, 1, 90, 60).because == "more than 70 % of a core used for 60 s"
    assert steady(POLICY, 4, 0, 300).because == "less than 25 % of a core used for 300 s"
    assert steady(POLICY, 4, 100, 60).because == "100 % of a core used, but 4 is the most"
    assert steady(POLICY, 2, 40, 60).because == "40 % of a core used"
    assert decide(POLICY, 9, [], 0.0) == Decision(4, "there are 1 to 4 of a service")


def test_what_is_used_is_known_only_of_a_process_that_was_there_before() -> None:
    before = {"a": Usage(1, 10.0, 0, 1), "b": Usage(2, 50.0, 0, 1), "gone": Usage(3, 1.0, 0, 1)}
    after = {"a": Usage(1, 14.0, 0, 1), "b": Usage(9, 0.5, 0, 1), "new": Usage(4, 2.0, 0, 1)}
    assert used_between(before, after, 5.0) == {"a": 80.0}
    assert used_between(before, after, 0.0) == {}
