"""Whatever breaks and whenever: no acknowledged write is lost, and nobody else acknowledges one.

Hypothesis breaks nodes, zones and links, thaws and restarts them by hand, lets the sentinel act,
and puts client writes between the steps of every operation. Nobody consents to data loss here, so
none is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import decisions
from control_plane.decisions import Health, Intent
from control_plane.plan import Plan
from control_plane.plans import PLANNERS
from control_plane.steps import HANDLERS
from control_plane.world import World
from infra.provider import Fault, Observed
from runtime.errors import Problem, Refused
from tests.control_plane.platform import SETTINGS, Platform

DATABASE = "s1"
NODES = ("s1.us-east-1a", "s1.us-east-1b", "s1.us-west-2a")


class Storm:
    """One platform in bad weather."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.written = 0
        self.past: set[tuple[str, int]] = set()

    def write(self) -> None:
        self.written += 1
        self.platform.provider.write(DATABASE, f"w{self.written}")

    async def check(self) -> None:
        """Nothing is lost, and a client with any map of the past gets no answer from its primary.

        An epoch belongs to one primary only, so a client of epoch e writes to no other node.
        """
        provider = self.platform.provider
        assert provider.lost() == []
        shard = (await self.platform.map()).shards[DATABASE]
        self.past.add((shard.primary.instance, shard.epoch))
        for instance, epoch in self.past - {(shard.primary.instance, shard.epoch)}:
            self.written += 1
            assert not provider.write_to(instance, f"x{self.written}", epoch=epoch), instance

    async def act(self, intents: list[Intent], observed: Observed) -> None:
        shard_map = await self.platform.map()
        for intent in intents:
            try:
                plan = PLANNERS[intent.verb](
                    self.platform.topology, observed, shard_map, **intent.asked
                )
                await self.carry_out(plan)
            except Problem:
                continue

    async def carry_out(self, plan: Plan) -> None:
        """Every step is begun twice, as after a crash, with writes before and after."""
        results: dict[int, object] = {}
        platform = self.platform
        for number, step in enumerate(plan.steps):
            world = World(
                platform.provider,
                platform.clock,
                platform.store,
                SETTINGS,
                "op-storm",
                plan,
                results,
            )
            for _ in range(2):
                results[number] = await HANDLERS[step.name](world, **step.args)
                self.write()
                await self.check()

    async def sentinel(self) -> None:
        provider, topology = self.platform.provider, self.platform.topology
        verdicts: dict[str, Health] = {}
        for spec in topology.instances(kind="postgres"):
            signals = await provider.probe(spec.id, 1.0)
            verdicts[spec.id] = (
                "healthy" if signals.sql == "ok" else "frozen" if signals.tcp == "ok" else "lost"
            )
        shard_map, now = await self.platform.map(), self.platform.clock.now()
        await self.act(
            decisions.urgent(topology, shard_map, verdicts, [], now),
            decisions.observed_from(topology, shard_map, verdicts, now),
        )

    async def repair(self) -> None:
        observed = await self.platform.provider.observe()
        intents = decisions.repairs(self.platform.topology, observed, await self.platform.map())
        await self.act(intents, observed)

    async def fault(self, fault: Fault) -> None:
        await self.platform.provider.inject(fault)

    async def heal(self, fault: Fault) -> None:
        await self.platform.provider.heal(fault)

    async def restart_by_hand(self, node: str) -> None:
        try:
            await self.platform.provider.start_database(node)
        except Problem:
            return

    async def apply(self, action: tuple[str, str]) -> None:
        kind, target = action
        verbs: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": lambda: self.fault(Fault("kill", target)),
            "freeze": lambda: self.fault(Fault("freeze", target)),
            "thaw": lambda: self.heal(Fault("freeze", target)),
            "kill-zone": lambda: self.fault(Fault("kill-zone", target)),
            "heal-zone": lambda: self.heal(Fault("kill-zone", target)),
            "cut": lambda: self.fault(Fault("cut-link", "us-east-1/us-west-2")),
            "mend": lambda: self.heal(Fault("cut-link", "us-east-1/us-west-2")),
            "restart": lambda: self.restart_by_hand(target),
            "sentinel": self.sentinel,
            "repair": self.repair,
        }
        self.write()
        await verbs[kind]()
        self.write()
        await self.check()


def on(kind: str, targets: tuple[str, ...]) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.just(kind), st.sampled_from(targets))


ZONES = ("us-east-1a", "us-east-1b")
ACTIONS = st.one_of(
    on("kill", NODES),
    on("freeze", NODES),
    on("thaw", NODES),
    on("kill-zone", ZONES),
    on("heal-zone", ZONES),
    on("restart", NODES),
    st.sampled_from(
        [("cut", ""), ("mend", ""), ("sentinel", ""), ("sentinel", ""), ("repair", "")]
    ),
)


@settings(max_examples=60)
@given(st.lists(ACTIONS, min_size=3, max_size=14))
def test_no_storm_loses_an_acknowledged_write_or_makes_a_second_writer(
    actions: list[tuple[str, str]],
) -> None:
    async def scenario() -> None:
        async with Platform.open() as platform:
            await platform.run("provision")
            storm = Storm(platform)
            for action in actions:
                await storm.apply(action)

    asyncio.run(scenario())


async def test_the_storm_would_notice_a_lost_write(platform: Platform) -> None:
    """The meter's own check: a promotion that the rules forbid is seen as a loss."""
    storm = Storm(platform)
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))
    await platform.run("relax-sync", database=DATABASE)
    await platform.provider.inject(Fault("cut-link", "us-east-1/us-west-2"))
    assert platform.provider.write(DATABASE, "only here")
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    await platform.run("failover", target=DATABASE, accept_data_loss=True, reason="test")
    with pytest.raises(AssertionError):
        await storm.check()


async def test_a_standby_that_is_no_fence_is_not_promoted_beside_an_old_primary_at_large(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))
    await platform.run("relax-sync", database=DATABASE)
    await platform.provider.inject(Fault("freeze", "s1.us-east-1a"))
    platform.provider.unreachable.add("us-east-1")
    consent = {"target": DATABASE, "accept_data_loss": True, "reason": "test"}
    with pytest.raises(Refused, match="could not be fenced"):
        await platform.run("failover", **consent)
    assert (await platform.map()).shards[DATABASE].primary.instance == "s1.us-east-1a"
    await platform.run("failover", unfenced=True, **consent)


async def test_nothing_is_promoted_beside_a_lost_primary_that_answers_again(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    plan = await platform.plan("failover", target=DATABASE)
    await platform.provider.start_database("s1.us-east-1a")
    late = Plan(plan.kind, plan.target, plan.steps[3:], premises=plan.premises)
    assert late.steps[0].name == "promote"
    with pytest.raises(Refused, match="answers again"):
        await platform.carry_out(late)
