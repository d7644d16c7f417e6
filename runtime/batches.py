"""One transaction a shard for a batch of rows that belong to many users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from runtime.errors import Problem
from runtime.pool import Connection
from runtime.routing import Routing
from runtime.shardmap import Placement
from runtime.shards import Shards, of_slot

T = TypeVar("T")
R = TypeVar("R")

GUARD = "SELECT regionctl.guard(slot, epoch) FROM unnest($1::int[], $2::bigint[]) AS g(slot, epoch)"


class _Moved(Exception):
    """A slot of the group lies on another shard by now."""


async def write_by_shard(
    shards: Shards,
    routing: Routing,
    items: Sequence[T],
    slot_of: Callable[[T], int],
    work: Callable[[Connection, Sequence[T]], Awaitable[R]],
) -> list[R]:
    """Does `work` once a shard, inside a transaction whose slots are all guarded.

    At least once for every item, so it must be idempotent. Raises what `Shards.write` raises; a
    `Problem` only when the other shards are done.
    """
    results: list[R] = []
    problems: list[Problem] = []
    left = list(items)
    while left:
        first = slot_of(left[0])
        name = routing.map.place(first).shard.name
        group: list[T] = []
        rest: list[T] = []
        for item in left:
            same = routing.map.place(slot_of(item)).shard.name == name
            (group if same else rest).append(item)

        async def guarded(
            connection: Connection, place: Placement, group: Sequence[T] = group
        ) -> R:
            places = {slot: routing.map.place(slot) for slot in sorted(set(map(slot_of, group)))}
            if any(found.shard.name != place.shard.name for found in places.values()):
                raise _Moved
            async with connection.transaction():
                epochs = [found.epoch for found in places.values()]
                await connection.execute(GUARD, list(places), epochs)
                return await work(connection, group)

        try:
            results.append((await shards.write(of_slot(first), guarded)).value)
        except _Moved:
            continue
        except Problem as problem:
            problems.append(problem)
        left = rest
    if problems:
        raise problems[0]
    return results
