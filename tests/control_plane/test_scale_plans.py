"""Which instances are planned to come or go: for a region that takes over, and beside gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.plan import Plan
from control_plane.plans.scale import as_many_as
from infra.provider import Fault, Observed
from infra.topology import Topology, load
from runtime.clock import FakeClock
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import LOSS, provisioned

HOME, OTHER = "us-east-1", "us-west-2"
TOPOLOGY = load("two-regions")
COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(TOPOLOGY.services), st.sampled_from(["us-east-1a", "us-east-1b"])),
    st.integers(1, 4),
)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with Platform.open() as platform:
        await provisioned(platform)
        yield platform


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def raised(plan: Plan) -> list[tuple[str, str, int]]:
    return [
        (step.args["service"], step.args["zone"], step.args["least"])
        for step in plan.steps
        if step.name == "ensure-instances"
    ]


async def test_a_region_that_takes_over_gets_as_many_instances_as_were_lost(
    platform: Platform,
) -> None:
    await platform.run("scale", service="orders", to=2, zone="us-east-1a")
    await platform.provider.inject(Fault("kill-region", HOME))
    plan = await platform.run("failover", **LOSS)
    assert raised(plan) == [("orders", "us-west-2a", 3)]
    observed = await platform.provider.observe()
    assert observed.running("orders-3.us-west-2a")
    assert platform.topology.count("auth", "us-west-2a") == 1
    assert names(plan).index("ensure-instances") > names(plan).index("resend-events")


async def test_a_planned_move_has_the_instances_before_anybody_waits(platform: Platform) -> None:
    await platform.run("scale", service="orders", to=2)
    away = await platform.run("switchover", to=OTHER)
    assert names(away)[:2] == ["ensure-instances", "catch-up"]
    await platform.run("scale", service="users", to=4, zone="us-west-2a")
    back = await platform.run("failback")
    assert ("users", "us-east-1a", 2) in raised(back)
    assert names(back).index("catch-up") > names(back).index("ensure-instances")
    assert platform.provider.lost() == []


async def test_who_asked_for_more_meanwhile_keeps_them(platform: Platform) -> None:
    await platform.run("scale", service="orders", to=2, zone="us-east-1a")
    await platform.provider.inject(Fault("kill-region", HOME))
    plan = await platform.plan("failover", **LOSS)
    await platform.provider.set_instances("orders", "us-west-2a", 4)
    await platform.carry_out(plan)
    assert platform.topology.count("orders", "us-west-2a") == 4


async def test_nothing_is_started_in_a_zone_that_is_held_down(platform: Platform) -> None:
    observed = replace(await platform.provider.observe(), unreachable=frozenset({"us-west-2a"}))
    scaled = platform.topology.with_instances("orders", "us-east-1a", 3)
    assert as_many_as(scaled, observed, [HOME], OTHER) == []


def test_on_aws_the_tasks_are_started_instead() -> None:
    topology = load("aws-two-regions")
    theirs = replace(topology, counts=(("orders.us-east-1a", 3),))
    assert as_many_as(theirs, nothing(), [HOME], OTHER) == []


def nothing() -> Observed:
    clock = FakeClock()
    return Observed(clock.now(), {})


@pytest.mark.parametrize(
    "told",
    [
        {"orders.us-east-1a", "orders.us-east-1b"},  # it ended before the gateways were told
        {"orders.us-east-1a"},
        {
            *("orders.us-east-1a", "orders.us-east-1b", "orders-2.us-east-1a"),
            "127.0.0.1:18252",  # and one of which nothing is on record
        },
    ],
)
async def test_a_change_that_was_interrupted_is_mended_by_asking_again(
    platform: Platform, told: set[str]
) -> None:
    asked = {"service": "orders", "zone": "us-east-1a", "to": 2}
    await platform.run("scale", **asked)
    assert not (await platform.plan("scale", **asked)).steps
    gateways = platform.provider.told
    whole = gateways["gateway.us-east-1b"]["orders"]
    gateways["gateway.us-east-1b"]["orders"] = frozenset(told)
    plan = await platform.run("scale", **asked)
    assert [(step.name, step.args["count"]) for step in plan.steps] == [("set-instances", 2)]
    assert gateways["gateway.us-east-1b"]["orders"] == whole
    assert not (await platform.plan("scale", **asked)).steps


async def test_what_gateways_are_told_of_another_service_or_region_is_no_reason(
    platform: Platform,
) -> None:
    platform.provider.told["gateway.us-west-2a"]["orders"] = frozenset()
    platform.provider.told["gateway.us-east-1a"]["users"] = frozenset()
    assert not (await platform.plan("scale", service="orders", to=1)).steps
    assert len((await platform.plan("scale", service="users", to=1)).steps) == 2


@given(theirs=COUNTS, own=COUNTS, there_and_back=st.booleans())
def test_no_region_takes_over_with_less_than_its_bounds_allow(
    theirs: dict[tuple[str, str], int],
    own: dict[tuple[str, str], int],
    there_and_back: bool,
) -> None:
    """What is planned is at least what was, unless every zone is full or the former had the least;
    and carried out, there is nothing left to plan."""
    topology = TOPOLOGY
    for (service, zone), count in theirs.items():
        topology = topology.with_instances(service, zone, count)
    for (service, _), count in own.items():
        topology = topology.with_instances(service, "us-west-2a", count)
    former, region = (OTHER, HOME) if there_and_back else (HOME, OTHER)
    after = topology
    for step in as_many_as(topology, nothing(), [former], region):
        service, zone, least = step.args["service"], step.args["zone"], step.args["least"]
        assert least > topology.count(service, zone)
        after = after.with_instances(service, zone, least)
    for service in topology.services:
        was, now = total(topology, service, former), total(after, service, region)
        counts = [topology.count(service, zone) for zone in zones(topology, former)]
        full = topology.scaling.max_instances * len(zones(topology, region))
        assert now >= min(was, full) or max(counts) == topology.scaling.min_instances
    assert as_many_as(after, nothing(), [former], region) == []


def zones(topology: Topology, region: str) -> list[str]:
    return [region + letter for letter in topology.region(region).zones]


def total(topology: Topology, service: str, region: str) -> int:
    return sum(topology.count(service, zone) for zone in zones(topology, region))
