"""A whole platform in memory for tests: provider, store, and a hand that carries plans out."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
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


@asynccontextmanager
async def _store(database: Path, clock: FakeClock) -> AsyncIterator[Store]:
    path = f"/{database}" if database.name else ""
    store = await open_store(f"sqlite+aiosqlite://{path}", clock, durable=False)
    try:
        yield store
    finally:
        await store.database.close()


class Platform:
    def __init__(self, provider: MemoryProvider, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.provider = provider

    @property
    def topology(self) -> Topology:
        return self.provider.topology

    @staticmethod
    @asynccontextmanager
    async def open(
        topology: Topology | None = None, database: Path | None = None
    ) -> AsyncIterator[Platform]:
        """A platform with nothing in it yet; its store is in memory, or the file `database`."""
        clock = FakeClock()
        provider = MemoryProvider(topology or load("two-regions"), clock)
        async with _store(database or Path(), clock) as store:
            yield Platform(provider, store, clock)

    @staticmethod
    @asynccontextmanager
    async def copy(of: Platform, database: Path) -> AsyncIterator[Platform]:
        """Another platform that begins as `of` is; `database` is the closed store of `of`."""
        provider, clock = deepcopy((of.provider, of.clock))
        with TemporaryDirectory() as folder:
            async with _store(Path(shutil.copy(database, folder)), clock) as store:
                yield Platform(provider, store, clock)

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
