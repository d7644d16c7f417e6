"""The platform's own plans, carried out on AWS as emulators play it: made, failed over, back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from control_plane.plan import Plan
from control_plane.plans import PLANNERS, failover
from control_plane.settings import Settings
from control_plane.steps import HANDLERS
from control_plane.store import Store, open_store
from control_plane.world import World
from infra.aws import compute
from infra.aws.clients import Cloud
from infra.aws.provider import AwsProvider
from infra.aws.sessions import DATABASE, LOST
from infra.provider import Fault
from infra.topology import load
from runtime.clock import SystemClock
from runtime.errors import Refused
from runtime.shardmap import ShardMap
from tests.infra.aws import emulators, volume

EAST, WEST = "us-east-1", "us-west-2"
# Emulators serve no requests, so nobody can be asked whether the platform is ready.
NOT_EMULATED = {"await-ready"}


@pytest.fixture(scope="module")
def provider(cloud: Cloud) -> Iterator[AwsProvider]:
    site = emulators.site(cloud, "plans")
    emulators.build(site)
    with volume.running(site.topology.databases) as servers:
        yield AwsProvider(site.topology, cloud, volume.attach(site, servers))


class Hand:
    """Plans and carries out, as the control plane does."""

    def __init__(self, provider: AwsProvider, store: Store) -> None:
        self.provider, self.store = provider, store

    async def map(self) -> ShardMap:
        known = await self.store.shard_map()
        assert known is not None
        return known

    async def run(self, verb: str, **asked: Any) -> Plan:
        observed = await self.provider.observe()
        known = await self.store.shard_map()
        plan = PLANNERS[verb](self.provider.topology, observed, known, **asked)
        return await self.carry_out(plan)

    async def carry_out(self, plan: Plan) -> Plan:
        results: dict[int, Any] = {}
        settings = Settings(Path("/nonexistent"), "sqlite+aiosqlite://", 1)
        for number, step in enumerate(plan.steps):
            if step.name in NOT_EMULATED:
                continue
            world = World(self.provider, SystemClock(), self.store, settings, "op-1", plan, results)
            results[number] = await HANDLERS[step.name](world, **step.args)
        return plan


@pytest.mark.process
@pytest.mark.shows("secretsmanager.get_secret_value")
def test_the_plans_of_the_platform_make_fail_over_and_hand_back_a_platform_on_aws(
    provider: AwsProvider,
) -> None:
    async def whole() -> None:
        store = await open_store("sqlite+aiosqlite://", SystemClock(), durable=False)
        try:
            await _story(Hand(provider, store))
        finally:
            await store.database.close()

    asyncio.run(whole())


async def _story(hand: Hand) -> None:
    provider = hand.provider
    await hand.run("provision")
    await _settled(hand, EAST)
    with pytest.raises(Refused, match="still answers"):
        await hand.run("failover", target=EAST, accept_data_loss=True, reason="a rehearsal")

    # Its services and the way into its databases are gone, as when the region is lost; AWS answers.
    # What a service of another region still had open there is ended with them.
    late = await _service_of_another_region(provider)
    await provider.inject(Fault("kill-region", EAST))
    with pytest.raises(LOST):
        await late.execute("SELECT 1")
    late.terminate()
    before = await hand.map()
    plan = await _fail_over(hand)
    assert [step.name for step in plan.steps][:5] == [
        *("close-route", "fence-region", "record-unsynced", "promote", "advance-map"),
    ]
    await _settled(hand, WEST)
    after = await hand.map()
    assert all(after.shards[name].epoch > shard.epoch for name, shard in before.shards.items())
    running = len(await compute.tasks(provider.site, WEST, "orders"))
    assert provider.topology.aws is not None
    assert running == provider.topology.aws.services.minimum

    await provider.ensure_region(EAST)
    await provider.ensure_running(["orders.us-east-1a", "payments.us-east-1a"])
    plan = await hand.run("switchover", to=EAST)
    assert "stop-databases" not in {step.name for step in plan.steps}
    await _settled(hand, EAST)


async def _service_of_another_region(provider: AwsProvider) -> asyncpg.Connection:
    host, port = provider.sessions.dial["s1"]
    return await asyncpg.connect(
        host=host, port=port, user="orders", password="only-here", database=DATABASE
    )


async def _fail_over(hand: Hand) -> Plan:
    """By the plan of an operator, and of a drill, for a region that does not let anybody in."""
    topology = hand.provider.topology
    for database, milliseconds in (("s1", 120.0), ("catalog", 340.0)):
        emulators.fall_behind(hand.provider.site, database, WEST, milliseconds)
    observed = await hand.provider.observe()
    asked = {"target": EAST, "accept_data_loss": True, "reason": "a rehearsal"}
    plan = failover.plan(topology, observed, await hand.map(), **asked)
    # What CloudWatch says of the one that is furthest behind is the loss to expect.
    assert plan.expected == {"home": WEST, "lossSeconds": 0.34}
    return await hand.carry_out(plan)


async def _settled(hand: Hand, home: str) -> None:
    """Everything is written in `home`, by the map, by Aurora, by the fence rows; clients go there,
    and each writer's neighbour is recorded as in sync."""
    known, observed = await hand.map(), await hand.provider.observe()
    assert {shard.home for shard in known.shards.values()} == {home}
    assert observed.route == home
    assert observed.map_versions == dict.fromkeys((EAST, WEST), known.version)
    for shard in known.shards.values():
        view = observed.postgres(shard.primary.instance)
        assert view is not None
        assert (view.role, view.epoch) == ("primary", shard.epoch)


def test_a_topology_on_aws_is_loaded_with_everything_that_the_planners_ask_for() -> None:
    topology = load("aws-two-regions")
    assert topology.aws is not None
    assert AwsProvider(topology, Cloud()).entry_url() == "https://api.shop.example.com"
