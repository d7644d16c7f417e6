"""How much platform is needed: enough of everything, and not one more."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isclose
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import capacity
from control_plane.capacity import Assumed, Measured, Stair, needed
from loadtests import profiles
from runtime.errors import Invalid

RATES = st.floats(1, 5000)
TIMES = st.floats(0.001, 20)
MEASURED = st.builds(
    Measured,
    ceiling=RATES,
    broke=st.booleans(),
    each=st.floats(1, 20),
    writes=st.floats(0, 1),
    journey=TIMES,
    request=TIMES,
)
ASSUMED = st.builds(
    Assumed,
    users=st.integers(1, 1_000_000),
    think=st.floats(0, 600),
    utilisation=st.floats(0.1, 1),
    instances=st.integers(1, 8),
    shards=st.integers(1, 8),
    writes_per_shard=st.one_of(st.none(), RATES),
    zones=st.integers(3, 6),
    lost_zones=st.integers(0, 2),
)


@given(MEASURED, ASSUMED)
def test_customers_are_where_littles_law_says(measured: Measured, assumed: Assumed) -> None:
    need = needed(measured, assumed)
    thinking = need.journeys * assumed.think
    shopping = need.journeys * measured.journey
    assert isclose(thinking + shopping, assumed.users, rel_tol=1e-9)
    assert isclose(need.in_flight, need.requests * measured.request)


@given(MEASURED, ASSUMED)
def test_there_are_enough_of_everything_and_one_less_were_too_few(
    measured: Measured, assumed: Assumed
) -> None:
    need = needed(measured, assumed)
    one = measured.ceiling / assumed.instances * assumed.utilisation
    shard = capacity.writes_of_shard(measured, assumed) * assumed.utilisation
    left = assumed.zones - assumed.lost_zones
    assert need.instances == need.in_each_zone * assumed.zones
    for count, bears, load in (
        (need.in_each_zone, one * left, need.requests),
        (need.shards, shard, need.writes),
        (need.pool, capacity.POOL_SHARE, need.connections),
        (need.connections, 1.0, need.in_flight),
    ):
        assert count * bears >= load * (1 - 1e-6)
        assert count == 1 or (count - 1) * bears < load * (1 + 1e-6)
    assert need.pool_of_instance * need.in_each_zone * left >= need.pool


@given(MEASURED, ASSUMED, st.integers(1, 1_000_000))
def test_more_customers_never_need_less(measured: Measured, assumed: Assumed, more: int) -> None:
    few = needed(measured, assumed)
    many = needed(measured, replace(assumed, users=assumed.users + more))
    for name in ("instances", "shards", "connections", "pool"):
        assert getattr(many, name) >= getattr(few, name)


def test_a_hundred_thousand_customers_by_hand() -> None:
    measured = Measured(ceiling=400, broke=True, each=3, writes=0.5, journey=1, request=0.05)
    need = needed(measured, Assumed(users=100_000, think=49, writes_per_shard=500))
    assert (need.journeys, need.requests, need.writes) == (2000, 6000, 1000)
    assert (need.instances, need.in_each_zone, need.shards) == (44, 22, 3)
    assert (need.connections, need.pool, need.pool_of_instance) == (300, 375, 18)


@pytest.mark.parametrize(
    ("zones", "lost", "instances"), [(2, 1, 44), (2, 0, 22), (3, 1, 33), (3, 2, 66), (1, 0, 22)]
)
def test_what_is_left_of_the_zones_carries_everything(
    zones: int, lost: int, instances: int
) -> None:
    measured = Measured(ceiling=400, broke=True, each=3, writes=0.5, journey=1, request=0.05)
    need = needed(measured, Assumed(think=49, zones=zones, lost_zones=lost))
    assert need.instances == instances
    assert need.in_each_zone * (zones - lost) >= 22


@pytest.mark.parametrize(
    "assumed",
    [
        Assumed(users=0),
        Assumed(think=-1),
        Assumed(utilisation=1.1),
        Assumed(utilisation=0),
        Assumed(instances=0),
        Assumed(shards=0),
        Assumed(writes_per_shard=0),
        Assumed(zones=1),
        Assumed(zones=2, lost_zones=2),
        Assumed(lost_zones=-1),
    ],
)
def test_what_cannot_be_assumed_is_refused(assumed: Assumed) -> None:
    with pytest.raises(Invalid):
        needed(capacity.stated(100, 0.05), assumed)


def breakpoint_run(*rates_and_p99: tuple[float, float], late: float = 1.0) -> dict[str, Any]:
    """Steps of four seconds, in the last of which the generator was `late` milliseconds.

    Each arrival makes three requests, one of which is a write. Of a step with a p99 of 500 ms or
    less a request takes 20 ms and a journey 40; of others a thousand times as long, and there a
    customer gives up after the first.
    """
    timeline, segments, phases, endpoints, journeys = [], [], [], [], []
    for number, (rate, p99) in enumerate(rates_and_p99):
        last, name = number == len(rates_and_p99) - 1, f"{rate:g}/s"
        slow = 1000 if p99 > 500 else 1
        second = {"errors": 0, "p99Ms": p99, "lateMs": late if last else 1.0}
        timeline += [{"t": 4 * number + t, "ok": 3 * rate, **second} for t in range(4)]
        segments.append({"kind": "step", "fromRate": rate, "toRate": rate, "seconds": 4.0})
        phases.append({"name": name, "from": 4.0 * number, "to": 4.0 * number + 4})
        figures = {"intendedMs": {"mean": 40.0 * slow}, "serviceMs": {"mean": 20.0 * slow}}
        row = {"phase": name, "errors": 0, **figures}
        endpoints += [
            {**row, "name": "GET /products", "ok": 8 * rate},
            {**row, "name": "POST /orders", "ok": 4 * rate if slow == 1 else 0},
        ]
        journeys.append({**row, "name": "(whole)", "ok": 4 * rate})
    return {
        "plan": {
            "segments": segments,
            "phases": phases,
            "limits": {"p99Ms": 500.0, "errors": 0.01},
        },
        "offered": {"started": int(4 * sum(rate for rate, _ in rates_and_p99))},
        "generator": {"lagLimitMs": 50.0},
        "timeline": timeline,
        "endpoints": endpoints,
        "journeys": journeys,
    }


def test_the_ceiling_is_the_last_step_that_held() -> None:
    run = breakpoint_run((20, 30), (40, 60), (60, 900), (80, 50))
    assert [step.held for step in capacity.steps(run)] == [True, True, False, True]
    measured = capacity.read(run)
    assert (measured.ceiling, measured.broke) == (120, True)
    assert (measured.each, measured.writes) == (3, 1)
    assert (measured.journey, measured.request) == (0.04, 0.02)


def test_what_a_step_did_that_was_too_much_is_not_averaged_in() -> None:
    """In the second run the fourth step would have held by itself: its queue was inherited."""
    alone = capacity.read(breakpoint_run((20, 30), (40, 60)))
    for steps in (((60, 900),), ((60, 900), (80, 50))):
        found = capacity.read(breakpoint_run((20, 30), (40, 60), *steps))
        assert found == replace(alone, broke=True)


def test_a_run_whose_phases_are_not_its_steps_is_not_averaged_at_all() -> None:
    run = breakpoint_run((20, 30), (60, 900))
    run["plan"]["phases"] = [{"name": "20/s", "from": 0.0, "to": 8.0}]
    with pytest.raises(Invalid, match="does not tell its steps apart"):
        capacity.read(run)


@pytest.mark.parametrize("stretch", [None, 210.0])
def test_each_step_of_the_profile_that_finds_the_ceiling_is_a_phase(stretch: float | None) -> None:
    plan = profiles.named("breakpoint", 1.0, stretch, 1).document()
    seconds = [{"t": t, "ok": 9, "errors": 0, "p99Ms": 9.0, "lateMs": 1.0} for t in range(420)]
    run = {"plan": plan, "timeline": seconds, "generator": {"lagLimitMs": 50.0}}
    found = capacity.steps(run)
    names = {each["name"] for each in plan["phases"]}
    assert len(names) == 21
    assert capacity.held_phases(run, found) == names - {"warm-up"}


def test_a_run_that_never_broke_gives_a_ceiling_that_is_at_least_so_high() -> None:
    assert capacity.ceiling_of([Stair(20, 60, 30.0, 0.0, True)]) == (60, False)


def test_a_late_generator_says_that_the_platform_bears_at_least_so_much() -> None:
    run = breakpoint_run((20, 30), (40, 60), (60, 900), late=80.0)
    assert capacity.ceiling_of(capacity.steps(run)) == (120, False)


def test_a_run_of_which_no_step_held_says_nothing() -> None:
    with pytest.raises(Invalid, match="Not one step"):
        capacity.read(breakpoint_run((20, 900)))


def test_the_document_is_json_and_has_a_price_when_somebody_knows_one() -> None:
    measured = replace(capacity.stated(100, 0.05), writes=0.0)
    free = capacity.document(measured, Assumed(), [], None)
    assert json.loads(json.dumps(free, allow_nan=False))["cost"] is None
    priced = capacity.document(measured, Assumed(), [], lambda need: {"usd": need.instances * 2})
    assert priced["cost"] == {"usd": 2 * priced["needed"]["instances"]}
