"""What every provider does to rows: fence epochs, checks and mendings over all databases."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from infra.provider import JSON
from runtime import checks, directory, owners
from runtime.shardmap import CATALOG, ShardMap, SlotRange


class Sessions(Protocol):
    def session(self, instance: str) -> AbstractAsyncContextManager[Any]:
        """An asyncpg connection of the administrator. Raises `Unavailable`."""
        ...


async def set_epoch(sessions: Sessions, instance: str, shard_map: ShardMap, database: str) -> None:
    shard = shard_map.shards[database]
    ranges: Sequence[SlotRange] = shard_map.slots_of(database)
    if database == CATALOG:
        ranges = [SlotRange(0, 0, CATALOG, shard.epoch)]
    async with sessions.session(instance) as connection:
        # Not waiting for a standby, which may not run yet: the rows say again what the newest map
        # says, and whoever takes over from here gets a higher epoch anyway.
        await connection.execute("SET synchronous_commit = local")
        await owners.set_epochs(connection, ranges, () if database == CATALOG else shard_map.moves)


@contextlib.asynccontextmanager
async def _each(sessions: Sessions, primaries: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    """A connection to each database's primary."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(sessions.session(instance))
            for name, instance in primaries.items()
        }


async def resend_events(sessions: Sessions, primaries: Mapping[str, str], database: str) -> int:
    if database == CATALOG:
        return 0
    async with (
        sessions.session(primaries[database]) as shard,
        sessions.session(primaries[CATALOG]) as catalog,
    ):
        return await checks.resend_events(shard, catalog)


async def return_orphan_stock(sessions: Sessions, primaries: Mapping[str, str]) -> int:
    async with _each(sessions, primaries) as shards:
        catalog = shards.pop(CATALOG)
        return await checks.return_orphan_stock(shards, catalog)


async def restore_directory(sessions: Sessions, primaries: Mapping[str, str]) -> int:
    async with _each(sessions, primaries) as shards:
        catalog = shards.pop(CATALOG)
        return await directory.restore(shards, catalog)


async def invariants(sessions: Sessions, shard_map: ShardMap) -> Sequence[JSON]:
    primaries = {name: shard.primary.instance for name, shard in shard_map.shards.items()}
    async with _each(sessions, primaries) as shards:
        catalog = shards.pop(CATALOG)
        return await checks.invariants(
            shards, catalog, ranges=shard_map.ranges, moves=shard_map.moves
        )


async def seed(sessions: Sessions, catalog: str, clients: Mapping[str, tuple[str, bytes]]) -> None:
    async with sessions.session(catalog) as connection:
        await checks.seed(connection, clients)
