"""A whole platform in memory for tests: provider, store, and a hand that carries plans out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control_plane.plan import Plan
from control_plane.plans import PLANNERS
from control_plane.settings import Settings
from control_plane.steps import HANDLERS
from control_plane.store import Store, open_store
from control_plane.world import World
from infra.memory import MemoryProvider
from infra.topology import Topology, load
from runtime.clock import FakeClock
from runtime.shardmap import ShardMap

SETTINGS = Settings(Path("/nonexistent"), "sqlite+aiosqlite://", 1)


class Platform:
    def __init__(self, topology: Topology, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.provider = MemoryProvider(topology, clock)

    @property
    def topology(self) -> Topology:
        return self.provider.topology

    @staticmethod
    @asynccontextmanager
    async def open(topology: Topology | None = None) -> AsyncIterator[Platform]:
        """A platform with nothing in it yet."""
        clock = FakeClock()
        store = await open_store("sqlite+aiosqlite://", clock, durable=False)
        try:
            yield Platform(topology or load("two-regions"), store, clock)
        finally:
            await store.database.close()

    async def map(self) -> ShardMap:
        shard_map = await self.store.shard_map()
        assert shard_map is not None
        return shard_map

    async def plan(self, verb: str, **asked: Any) -> Plan:
        observed = await self.provider.observe()
        return PLANNERS[verb](self.topology, observed, await self.store.shard_map(), **asked)

    async def run(self, verb: str, **asked: Any) -> Plan:
        plan = await self.plan(verb, **asked)
        await self.carry_out(plan)
        return plan

    async def carry_out(self, plan: Plan) -> None:
        results: dict[int, Any] = {}
        for number, step in enumerate(plan.steps):
            world = World(
                self.provider,
                self.clock,
                self.store,
                SETTINGS,
                "op-test",
                plan,
                results,
            )
            results[number] = await HANDLERS[step.name](world, **step.args)
