"""Services grow under load and shrink without it, by operations, and only when nothing forbids it.

The platform is in memory: what a zone asks of a service is a number of processor cores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from control_plane import drills
from control_plane.autoscaler import EVERY_SECONDS, Autoscaler, Group
from control_plane.operations import ACTIVE, Operation, conflicts, run
from control_plane.plans import failover
from control_plane.plans.scale import service_lock
from control_plane.steps import HANDLERS
from infra.provider import Fault
from infra.topology import ScalingPolicy, load
from runtime.errors import Invalid, NotFound, OperationFailed, Refused
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import LOSS, provisioned
from tests.control_plane.toys import world_of

HERE = "us-east-1a"
ORDERS = f"orders.{HERE}"
MINUTE = 60.0


class Scaled:
    """A platform with an autoscaler; what it opens is carried out at once, as by a worker."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.scaler = Autoscaler(platform.provider, platform.store, platform.clock)
        self.handlers = dict(HANDLERS)
        self.ended: list[str] = []

    def count(self, service: str = "orders", zone: str = HERE) -> int:
        return self.platform.topology.count(service, zone)

    async def passes(self, seconds: float) -> list[int]:
        """How many instances of orders there were after each look."""
        counts = []
        for _ in range(round(seconds / EVERY_SECONDS)):
            self.platform.clock.advance(EVERY_SECONDS)
            await self.scaler.look()
            await self.work()
            counts.append(self.count())
        return counts

    async def work(self) -> None:
        store = self.platform.store
        make = world_of(store, self.platform.clock, self.platform.provider)
        for operation in await store.operations(states=ACTIVE):
            if operation.kind == "scale":
                claim = await store.claim(operation.id, "worker")
                assert claim is not None
                self.ended.append((await run(store, claim, self.handlers, make)).state)

    async def opened(self) -> list[Operation]:
        """Oldest first."""
        return list(reversed(await self.platform.store.operations(kinds=["scale"])))


@pytest.fixture
async def scaled() -> AsyncIterator[Scaled]:
    async with Platform.open() as platform:
        await provisioned(platform)
        yield Scaled(platform)


async def test_a_busy_service_gets_instances_and_loses_them_when_it_is_idle(scaled: Scaled) -> None:
    scaled.platform.provider.demand[ORDERS] = 2.0
    grown = await scaled.passes(4 * MINUTE)
    assert grown == sorted(grown)
    assert grown[-1] == 3  # of 2 cores each has 67 %
    assert scaled.count("orders", "us-east-1b") == scaled.count("auth") == 1
    scaled.platform.provider.demand[ORDERS] = 0.05
    shrunk = await scaled.passes(7 * MINUTE)
    assert shrunk == sorted(shrunk, reverse=True)
    assert shrunk[-1] == 1
    assert set(scaled.ended) == {"succeeded"}
    opened = await scaled.opened()
    assert {each.requested_by for each in opened} == {"autoscaler"}
    assert [each.plan.steps[0].args["count"] for each in opened] == [2, 3, 1]
    assert opened[0].reason == "more than 70 % of a core used for 60 s"
    assert opened[-1].reason == "less than 25 % of a core used for 300 s"
    assert set(scaled.platform.provider.servers) >= {ORDERS}
    assert not [id for id in scaled.platform.provider.servers if id.startswith("orders-")]


async def test_an_instance_that_is_limited_is_busy_by_its_limit() -> None:
    """A fifth of a core is little of a whole one and much of a quarter."""
    for limit, wanted in ((1.0, 1), (0.25, 2)):
        policy = ScalingPolicy(cpu_limits=(("orders", limit),))
        topology = replace(load("two-regions"), scaling=policy)
        async with Platform.open(topology) as platform:
            await provisioned(platform)
            scaled = Scaled(platform)
            platform.provider.demand[ORDERS] = 0.22
            await scaled.passes(2 * MINUTE)
            assert scaled.count() == wanted
            reasons = [each.reason for each in await scaled.opened()]
    assert reasons == ["more than 70 % of its 0.25 cores used for 60 s"]


async def test_what_a_limited_instance_uses_to_start_is_no_work() -> None:
    policy = ScalingPolicy(cpu_limits=(("orders", 0.25),), hold_seconds=5.0)
    topology = replace(load("two-regions"), scaling=policy)
    async with Platform.open(topology) as platform:
        await provisioned(platform)
        scaled = Scaled(platform)
        for _ in range(4):
            platform.provider.used[ORDERS] = platform.provider.used.get(ORDERS, 0.0) + 4.0
            await scaled.passes(EVERY_SECONDS)
        assert scaled.count() == 1


async def test_what_is_decided_is_told_for_each_service_and_zone(scaled: Scaled) -> None:
    scaled.platform.provider.demand[ORDERS] = 0.5
    await scaled.passes(2 * EVERY_SECONDS)
    assert scaled.scaler.decisions[Group(HERE, "orders")].because == "50 % of a core used"
    assert len(scaled.scaler.decisions) == 18


@pytest.mark.parametrize("where", ["us-east-1a", "us-east-1"])
async def test_nothing_changes_where_nothing_can_be_reached(scaled: Scaled, where: str) -> None:
    scaled.platform.provider.demand[ORDERS] = 1.0
    await scaled.passes(MINUTE)
    assert scaled.count() == 1
    fault = Fault("kill-zone" if where == HERE else "kill-region", where)
    await scaled.platform.provider.inject(fault)
    assert set(await scaled.passes(2 * MINUTE)) == {1}
    assert scaled.scaler.decisions[Group(HERE, "orders")].because == f"{HERE} cannot be reached"


async def drill(scaled: Scaled) -> None:
    await begin(scaled, drills.plan, drill="service-outage", seed=1)


async def region_failover(scaled: Scaled) -> None:
    asked = {"region": "us-east-1", "accept_data_loss": True, "assume_lost": True}
    await begin(scaled, failover.region, **asked)


async def same_service(scaled: Scaled) -> None:
    await begin(scaled, "scale", service="orders", to=4, zone=HERE)


async def begin(scaled: Scaled, verb: Any, **asked: Any) -> None:
    """An operation that nobody carries out."""
    platform = scaled.platform
    if isinstance(verb, str):
        plan = await platform.plan(verb, **asked)
    else:
        observed = await platform.provider.observe()
        plan = verb(platform.topology, observed, await platform.map(), **asked)
    await platform.store.create_operation(plan, "test", None, "pytest")


async def test_nothing_changes_while_an_operator_holds_it(scaled: Scaled) -> None:
    store, clock = scaled.platform.store, scaled.platform.clock
    make = world_of(store, clock, scaled.platform.provider)

    async def hold(seconds: float) -> None:
        plan = await scaled.platform.plan("scale-hold", seconds=seconds)
        operation = await store.create_operation(plan, "measuring", None, "ada")
        claim = await store.claim(operation.id, "worker")
        assert claim is not None
        await run(store, claim, HANDLERS, make)

    await hold(3 * MINUTE)
    scaled.platform.provider.demand[ORDERS] = 0.9
    assert set(await scaled.passes(2 * MINUTE)) == {1}
    told = scaled.scaler.decisions[Group(HERE, "orders")].because
    assert told.startswith("held until ")
    assert "measuring" in told
    assert (await scaled.passes(2 * MINUTE))[-1] == 2
    await hold(10 * MINUTE)
    scaled.platform.provider.demand[ORDERS] = 3.0
    assert set(await scaled.passes(2 * MINUTE)) == {2}
    await hold(0)
    assert (await scaled.passes(EVERY_SECONDS))[-1] > 2
    for seconds in (-1, 90_000):
        with pytest.raises(Invalid):
            await scaled.platform.plan("scale-hold", seconds=float(seconds))


@pytest.mark.parametrize("other", [drill, region_failover, same_service])
async def test_nothing_changes_beside_an_operation_that_is_in_the_way(
    scaled: Scaled, other: Any
) -> None:
    scaled.platform.provider.demand[ORDERS] = 1.0
    await scaled.passes(MINUTE)
    await other(scaled)
    scaled.work = nobody  # type: ignore[method-assign]
    assert set(await scaled.passes(2 * MINUTE)) == {1}
    assert "runs" in scaled.scaler.decisions[Group(HERE, "orders")].because
    assert all(each.requested_by == "pytest" for each in await scaled.opened())


async def nobody() -> None:
    return None


async def test_a_change_that_fails_is_tried_again_only_after_a_while(scaled: Scaled) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OperationFailed("planted")

    scaled.handlers["set-instances"] = fail
    scaled.platform.provider.demand[ORDERS] = 1.0
    assert set(await scaled.passes(5 * MINUTE)) == {1}
    assert 2 <= len(scaled.ended) <= 5
    assert set(scaled.ended) == {"failed"}


async def test_by_hand_only_nothing_is_opened_and_everything_is_told() -> None:
    topology = replace(load("two-regions"), scaling=ScalingPolicy(automatic=False))
    async with Platform.open(topology) as platform:
        await provisioned(platform)
        scaled = Scaled(platform)
        platform.provider.demand[ORDERS] = 4.0
        await scaled.passes(2 * MINUTE)
        assert await scaled.opened() == []
        assert scaled.scaler.decisions[Group(HERE, "orders")].because == (
            "scaling.automatic is false"
        )


async def test_a_process_that_was_started_again_is_no_reason_to_shrink(scaled: Scaled) -> None:
    """Its processor time begins anew, which must not count as idleness."""
    await scaled.platform.run("scale", service="orders", to=2, zone=HERE)
    scaled.platform.provider.demand[ORDERS] = 0.3
    for _ in range(7):
        await scaled.passes(MINUTE)
        await scaled.platform.provider.inject(Fault("kill", f"orders-2.{HERE}"))
    assert scaled.count() == 2


async def test_several_instances_survive_a_reboot_a_region_failover_and_the_way_back(
    scaled: Scaled,
) -> None:
    platform = scaled.platform
    await platform.run("scale", service="orders", to=3)
    extra = [f"orders-{n}.us-east-1{zone}" for n in (2, 3) for zone in "ab"]

    async def all_run() -> bool:
        observed = await platform.provider.observe()
        return all(observed.running(id) for id in extra)

    assert await all_run()
    for region in platform.topology.regions:
        await platform.provider.inject(Fault("kill-region", region.name))
    platform.provider.servers.clear()
    platform.provider.route = None
    await platform.run("provision")
    assert await all_run()
    assert not (await platform.plan("provision")).steps
    await platform.provider.inject(Fault("kill-region", "us-east-1"))
    await platform.run("failover", **LOSS)
    with pytest.raises(Refused, match="us-east-1a cannot be reached"):
        await platform.plan("scale", service="orders", to=1, zone=HERE)
    plan = await platform.plan("scale", service="orders", to=2)
    assert [step.args["zone"] for step in plan.steps] == ["us-west-2a"]
    await platform.run("failback")
    assert await all_run()
    assert platform.provider.lost() == []


async def test_a_zone_that_comes_back_has_all_its_instances(scaled: Scaled) -> None:
    platform = scaled.platform
    await platform.run("scale", service="orders", to=2, zone=HERE)
    fault = Fault("kill-zone", HERE)
    await platform.provider.inject(fault)
    assert not (await platform.provider.observe()).running(f"orders-2.{HERE}")
    await platform.provider.heal(fault)
    assert (await platform.provider.observe()).running(f"orders-2.{HERE}")


async def test_a_drill_breaks_each_instance_in_turn_and_a_killed_one_is_back(
    scaled: Scaled,
) -> None:
    platform = scaled.platform
    await platform.run("scale", service="orders", to=2)
    observed, known = await platform.provider.observe(), await platform.map()
    asked = {"drill": "service-outage", "repeat": 4, "seed": 1}
    plan = drills.plan(platform.topology, observed, known, **asked)
    faults = [step.args["fault"] for step in plan.steps if step.name == "inject-fault"]
    targets = [spec.id for spec in platform.topology.instances(component="orders")][:4]
    assert sorted(fault["target"] for fault in faults) == sorted(targets)
    assert f"orders-2.{HERE}" in targets
    await platform.provider.inject(Fault("kill", f"orders-2.{HERE}"))
    assert (await platform.provider.observe()).running(f"orders-2.{HERE}")


async def test_scaling_is_planned_only_where_something_changes(scaled: Scaled) -> None:
    platform = scaled.platform
    assert not (await platform.plan("scale", service="orders", to=1)).steps
    await platform.run("scale", service="orders", to=2, zone=HERE)
    plan = await platform.plan("scale", service="orders", to=2)
    assert [step.args["zone"] for step in plan.steps] == ["us-east-1b"]
    assert plan.locks == (service_lock("orders", "us-east-1b"),)
    assert plan.expected == {"us-east-1b": "1 to 2"}
    platform.provider.servers[f"orders-2.{HERE}"] = False
    assert len((await platform.plan("scale", service="orders", to=2)).steps) == 2
    for problem, asked in (
        (Invalid, {"service": "orders", "to": 5}),
        (Invalid, {"service": "orders", "to": 0}),
        (NotFound, {"service": "order", "to": 2}),
        (NotFound, {"service": "orders", "to": 2, "zone": "us-east-1c"}),
        (NotFound, {"service": "orders", "to": 2, "zone": ""}),
    ):
        with pytest.raises(problem):
            await platform.plan("scale", **asked)


def test_scaling_waits_for_what_names_instances_and_delays_no_failover() -> None:
    lock = (service_lock("orders", HERE),)
    assert conflicts(lock, ("drill",))
    assert conflicts(lock, ("platform",))
    assert not conflicts(lock, ("platform", "region-failover"))
    assert not conflicts(lock, ("database:s1",))
    assert not conflicts(lock, (service_lock("orders", "us-east-1b"),))
    assert conflicts(lock, lock)
