"""A toy plan for tests of the engine: each step sets one key of a dict, and may be interrupted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control_plane.operations import Handler, Operation
from control_plane.plan import Plan, Step
from control_plane.settings import Settings
from control_plane.store import Store, open_store
from control_plane.world import World
from infra.memory import MemoryProvider
from infra.provider import Provider
from infra.topology import Topology, load
from runtime.clock import Clock, FakeClock

TOPOLOGY = load("two-regions")


class Crash(BaseException):
    """The process is gone: nothing after this runs, nothing is recorded."""


def toy(*names: str, locks: tuple[str, ...] = (), kind: str = "toy") -> Plan:
    steps = tuple(Step(f"set-{name}", {"value": name}) for name in names)
    return Plan(kind, "world", steps, locks)


def toy_handlers(world: dict[str, str], *names: str) -> dict[str, Handler]:
    def handler(name: str) -> Handler:
        async def set_key(_: World, *, value: str) -> dict[str, str]:
            world[name] = value
            return {"set": name}

        return set_key

    return {f"set-{name}": handler(name) for name in names}


def world_of(
    store: Store,
    clock: Clock,
    provider: Provider | None = None,
    topology: Topology = TOPOLOGY,
    state_dir: Path = Path("/nonexistent"),
) -> Any:
    provider = provider or MemoryProvider(topology, clock)
    settings = Settings(state_dir, "", 18000)

    def make(operation: Operation, results: Mapping[int, Any]) -> World:
        return World(
            provider=provider,
            clock=clock,
            store=store,
            settings=settings,
            operation_id=operation.id,
            plan=operation.plan,
            results=results,
        )

    return make


@asynccontextmanager
async def new_store(folder: Path, clock: Clock | None = None) -> AsyncIterator[Store]:
    url = f"sqlite+aiosqlite:///{folder / 'control.db'}"
    store = await open_store(url, clock or FakeClock(), durable=False)
    try:
        yield store
    finally:
        await store.database.close()
