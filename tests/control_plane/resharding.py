"""A reshard on a platform in memory: what happens during it, and what must hold after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from control_plane.operations import Handler, Operation, run
from control_plane.plan import Plan
from control_plane.steps import HANDLERS
from control_plane.world import World
from infra.provider import Fault
from runtime.shardmap import SLOTS
from tests.control_plane.platform import Platform
from tests.control_plane.toys import world_of

FOUR: dict[str, Any] = {"to": 4, "batch": 128}


async def whole(platform: Platform) -> None:
    """Nothing acknowledged is lost, and each slot has the one owner that the map names."""
    assert platform.provider.lost() == []
    shard_map = await platform.map()
    for slot in range(0, SLOTS, 17):
        owner = shard_map.place(slot).shard.primary.instance
        assert platform.provider.owners(slot) == [owner], slot


def write_everywhere(platform: Platform, name: str) -> None:
    """Customers write; who meets a fence or a failover would wait, and here gives up."""
    for slot in range(0, SLOTS, 31):
        platform.provider.write_slot(slot, f"{name}-{slot}")


async def start(platform: Platform, plan: Plan) -> Operation:
    return await platform.store.create_operation(plan, "test", None, "pytest")


async def go_on(
    platform: Platform, operation: Operation, handlers: dict[str, Handler] | None = None
) -> Operation:
    """One worker's life: to the end of the operation, or to its own."""
    claim = await platform.store.claim(operation.id, "worker")
    assert claim is not None
    make = world_of(platform.store, platform.clock, platform.provider)
    return await run(platform.store, claim, handlers or dict(HANDLERS), make)


async def lose_primary(platform: Platform, database: str) -> None:
    """Its standby takes over, and then the old one comes back as a standby."""
    primary = (await platform.map()).shards[database].primary.instance
    await platform.provider.inject(Fault("kill", primary))
    for verb, asked in (("failover", {"target": database}), ("rejoin", {"database": database})):
        plan = await platform.plan(verb, **asked)
        await platform.store.create_operation(plan, verb, None, "sentinel")
        ended = await go_on(platform, (await platform.store.operations(limit=1))[0])
        assert ended.state == "succeeded", ended.problem


def before_step(number: int, do: Callable[[], Awaitable[None]]) -> dict[str, Handler]:
    """The real handlers; `do` happens once, before step `number`."""
    armed = [True]

    def wrapped(handler: Handler) -> Handler:
        async def call(world: World, **args: Any) -> Any:
            if armed and len(world.results) == number and world.plan.kind.startswith("reshard"):
                armed.clear()
                await do()
            return await handler(world, **args)

        return call

    return {name: wrapped(handler) for name, handler in HANDLERS.items()}
