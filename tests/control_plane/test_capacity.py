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
    for count, bears, load in (
        (need.instances, one, need.requests),
        (need.shards, shard, need.writes),
        (need.pool, capacity.POOL_SHARE, need.connections),
        (need.connections, 1.0, need.in_flight),
    ):
        assert count * bears >= load * (1 - 1e-6)
        assert count == 1 or (count - 1) * bears < load * (1 + 1e-6)
    assert need.pool_of_instance * need.instances >= need.pool


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
    assert (need.instances, need.shards) == (22, 3)
    assert (need.connections, need.pool, need.pool_of_instance) == (300, 375, 18)


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
    ],
)
def test_what_cannot_be_assumed_is_refused(assumed: Assumed) -> None:
    with pytest.raises(Invalid):
        needed(capacity.stated(100, 0.05), assumed)


def breakpoint_run(*rates_and_p99: tuple[float, float], late: float = 1.0) -> dict[str, Any]:
    """Steps of four seconds, in the last of which the generator was `late` milliseconds.

    Each arrival makes three requests, one of which is a write.
    """
    timeline = [
        {"t": 4 * number + second, "ok": 3 * rate, "errors": 0, "p99Ms": p99}
        | {"lateMs": late if number == len(rates_and_p99) - 1 else 1.0}
        for number, (rate, p99) in enumerate(rates_and_p99)
        for second in range(4)
    ]
    arrivals = int(4 * sum(rate for rate, _ in rates_and_p99))
    segments = [
        {"kind": "step", "fromRate": rate, "toRate": rate, "seconds": 4.0}
        for rate, _ in rates_and_p99
    ]
    figures = {"intendedMs": {"mean": 40.0}, "serviceMs": {"mean": 20.0}}
    row = {"phase": "steady", "errors": 0, **figures}
    return {
        "plan": {"segments": segments, "limits": {"p99Ms": 500.0, "errors": 0.01}},
        "offered": {"started": arrivals},
        "generator": {"lagLimitMs": 50.0},
        "timeline": timeline,
        "endpoints": [
            {**row, "name": "GET /products", "ok": 2 * arrivals},
            {**row, "name": "POST /orders", "ok": arrivals},
        ],
        "journeys": [{**row, "name": "(whole)", "ok": arrivals}],
    }


def test_the_ceiling_is_the_last_step_that_held() -> None:
    run = breakpoint_run((20, 30), (40, 60), (60, 900), (80, 50))
    assert [step.held for step in capacity.steps(run)] == [True, True, False, True]
    measured = capacity.read(run)
    assert (measured.ceiling, measured.broke) == (120, True)
    assert (measured.each, measured.writes) == (3, 1)
    assert (measured.journey, measured.request) == (0.04, 0.02)


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
