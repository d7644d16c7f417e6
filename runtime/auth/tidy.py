"""What is of no use any more, deleted: revocations, and sessions that are over."""

from __future__ import annotations

import logging

from runtime.auth import store
from runtime.batches import write_by_shard
from runtime.context import Context
from runtime.errors import Problem
from runtime.pool import Connection
from runtime.shardmap import CATALOG, slot_of
from runtime.shards import catalog, of_shard

log = logging.getLogger(__name__)

REVOCATIONS_SECONDS = 300.0
SESSIONS_FIRST_SECONDS = 300.0
SESSIONS_SECONDS = 3600.0
BATCH = 200


async def revocations(context: Context) -> None:
    """Until cancelled."""
    while True:
        await context.clock.sleep(REVOCATIONS_SECONDS)
        await context.shards.write(catalog, store.forget_revocations)


async def sessions(context: Context) -> None:
    """Those of the shards that have their home in this region, once an hour, until cancelled."""
    await context.clock.sleep(SESSIONS_FIRST_SECONDS)
    while True:
        for name, shard in context.routing.map.shards.items():
            if name != CATALOG and shard.home == context.settings.region:
                try:
                    await forget_sessions(context, name)
                except Problem as error:
                    data = {"shard": name, "reason": repr(error)}
                    log.warning("sessions not tidied", extra={"data": data})
        await context.clock.sleep(SESSIONS_SECONDS)


async def forget_sessions(context: Context, shard: str) -> int:
    """Deletes the sessions of `shard` that are over, batch by batch. Returns how many it found."""
    after: store.Key = (0, 0)
    found = 0
    while context.routing.map.slots_of(shard):

        async def page(
            connection: Connection, _: object, after: store.Key = after
        ) -> list[store.Key]:
            return await store.sessions_over(connection, after, BATCH)

        over = (await context.shards.read(of_shard(shard), page)).value
        await write_by_shard(
            context.shards,
            context.routing,
            over,
            lambda key: slot_of(key[0]),
            store.forget_sessions,
        )
        found += len(over)
        if len(over) < BATCH:
            break
        after = over[-1]
    return found
