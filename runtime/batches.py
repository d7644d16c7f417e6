"""Work on rows of many users at once: one transaction, or one read, a shard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from runtime.errors import NotFound, Problem, Unavailable
from runtime.pool import Connection, Driver
from runtime.position import Position
from runtime.routing import Routing
from runtime.shardmap import Placement, ShardMap
from runtime.shards import Shards, of_shard, of_slot

T = TypeVar("T")
R = TypeVar("R")

# How often a read of all shards is begun anew because slots changed hands meanwhile.
TRIES = 5
GUARD = "SELECT regionctl.guard(slot, epoch) FROM unnest($1::int[], $2::bigint[]) AS g(slot, epoch)"
TRY_GUARD = """
SELECT slot FROM unnest($1::int[], $2::bigint[]) AS g(slot, epoch)
WHERE regionctl.try_guard(slot, epoch)
"""


class _Moved(Exception):
    """A slot of the group lies on another shard by now."""


async def guard_owned(
    connection: Driver, shard_map: ShardMap, shard: str, slots: Iterable[int]
) -> set[int]:
    """Those of `slots` that the map gives to `shard` and its database too; they are guarded now.

    Inside a transaction. In one order always, so that two never wait for each other.
    """
    places = [shard_map.place(slot) for slot in sorted(set(slots))]
    mine = [place for place in places if place.shard.name == shard]
    rows = await connection.fetch(
        TRY_GUARD, [place.slot for place in mine], [place.epoch for place in mine]
    )
    return {row[0] for row in rows}


async def write_by_shard(
    shards: Shards,
    routing: Routing,
    items: Sequence[T],
    slot_of: Callable[[T], int],
    work: Callable[[Connection, Sequence[T]], Awaitable[R]],
) -> list[R]:
    """Does `work` once a shard, inside a transaction whose slots are all guarded.

    On all shards at the same time, and on each whatever becomes of the others. At least once for
    every item, so it must be idempotent. Raises what `Shards.write` raises.
    """

    async def on_one(group: Sequence[T]) -> R:
        async def guarded(connection: Connection, place: Placement) -> R:
            places = {slot: routing.map.place(slot) for slot in sorted(set(map(slot_of, group)))}
            if any(found.shard.name != place.shard.name for found in places.values()):
                raise _Moved
            async with connection.transaction():
                epochs = [found.epoch for found in places.values()]
                await connection.execute(GUARD, list(places), epochs)
                return await work(connection, group)

        return (await shards.write(of_slot(slot_of(group[0])), guarded)).value

    results: list[R] = []
    failures: list[BaseException] = []
    left = list(items)
    while left:
        groups: dict[str, list[T]] = {}
        for item in left:
            groups.setdefault(routing.map.place(slot_of(item)).shard.name, []).append(item)
        outcomes = await asyncio.gather(*map(on_one, groups.values()), return_exceptions=True)
        left = []
        for group, outcome in zip(groups.values(), outcomes, strict=True):
            if isinstance(outcome, _Moved):
                left += group
            elif isinstance(outcome, BaseException):
                failures.append(outcome)
            else:
                results.append(outcome)
    if failures:
        # A fault of an event says more than that somebody is away.
        raise min(failures, key=lambda failure: isinstance(failure, Problem))
    return results


async def read_by_shard(
    shards: Shards,
    routing: Routing,
    work: Callable[[Connection, Sequence[int]], Awaitable[R]],
    *,
    position: Position | None = None,
) -> list[R]:
    """What `work` finds on every shard, in the slots that are its own by one and the same map.

    So a row that is on two shards while its slot moves is found once. Raises what `Shards.read`
    raises.
    """
    for _ in range(TRIES):
        ranges = routing.map.ranges
        slots: dict[str, list[int]] = {}
        for owned in ranges:
            slots.setdefault(owned.shard, []).extend(range(owned.first, owned.last + 1))

        async def on_one(name: str, mine: Sequence[int]) -> R:
            done = await shards.read(
                of_shard(name), lambda connection, _: work(connection, mine), position=position
            )
            return done.value

        try:
            found = await asyncio.gather(*(on_one(name, mine) for name, mine in slots.items()))
        except NotFound:
            # The last slot of a shard left it.
            continue
        if routing.map.ranges == ranges:
            break
    else:
        raise Unavailable(
            "Slots changed hands all the time while shards were read.", hint="Try again."
        )
    return found
