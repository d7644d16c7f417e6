"""Sends the events that orders left in the outbox to the region's stream, at least once.

Only processes in a shard's home region relay it, each taking rows that no other has locked. The
mark `relayed_at` is written without waiting for the standby: losing it means only that an event
is sent twice, and consumers know each event by its id. Rows are kept, so a lost stream can be
written again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

from redis.exceptions import RedisError

from runtime.clock import Clock
from runtime.errors import Problem
from runtime.events import STREAM, Event
from runtime.pool import Connection
from runtime.routing import Routing
from runtime.settings import Settings
from runtime.shardmap import CATALOG, Placement, ShardMap
from runtime.shards import Shards, of_slot, transient
from runtime.streams import Streams
from runtime.telemetry import RELAYED

log = logging.getLogger(__name__)

BATCH = 200
BUSY_SECONDS = 0.01
IDLE_SECONDS = 0.1
FAILED_SECONDS = 0.5

ANY = "SELECT EXISTS (SELECT FROM outbox WHERE relayed_at IS NULL)"
PENDING = """
SELECT user_id, event_id, kind, payload FROM outbox
WHERE relayed_at IS NULL ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED
"""
MARK = """
UPDATE outbox SET relayed_at = clock_timestamp()
FROM unnest($1::bigint[], $2::bigint[]) AS sent(user_id, event_id)
WHERE outbox.user_id = sent.user_id AND outbox.event_id = sent.event_id
"""


class Relay:
    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        shards: Shards,
        streams: Streams,
        clock: Clock,
        stream: str = STREAM,
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._shards = shards
        self._streams = streams
        self._clock = clock
        self._stream = stream

    async def run(self) -> None:
        """Relays every shard whose home is here, until cancelled."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for name in self._mine():
                    if name not in tasks:
                        tasks[name] = asyncio.create_task(self._follow(name))
                await self._clock.sleep(0.25)
        finally:
            for task in tasks.values():
                task.cancel()

    async def once(self, database: str) -> int:
        """Relays one batch. Returns how many events it sent."""
        slots = self._routing.map.slots_of(database)
        if not slots:
            return 0
        done = await self._shards.write(of_slot(slots[0].first), self._batch)
        return done.value

    def _mine(self) -> list[str]:
        if not self._routing.loaded:
            return []
        shard_map: ShardMap = self._routing.map
        return [
            shard.name
            for shard in shard_map.shards.values()
            if shard.name != CATALOG and shard.home == self._settings.region
        ]

    async def _follow(self, database: str) -> None:
        while True:
            pause = IDLE_SECONDS
            if database in self._mine():
                try:
                    sent = await self.once(database)
                    RELAYED.labels(database).inc(sent)
                    pause = BUSY_SECONDS if sent else IDLE_SECONDS
                except (RedisError, Problem) as error:
                    log.warning("relay", extra={"data": {"shard": database, "reason": repr(error)}})
                    pause = FAILED_SECONDS
                except Exception as error:
                    if transient(error) is None:
                        log.exception("relay", extra={"data": {"shard": database}})
                    pause = FAILED_SECONDS
            await self._clock.sleep(pause)

    async def _batch(self, connection: Connection, place: Placement) -> int:
        if not await connection.fetchval(ANY):
            return 0
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            await connection.execute("SELECT regionctl.guard($1, $2)", place.slot, place.epoch)
            rows = await connection.fetch(PENDING, BATCH)
            if not rows:
                return 0
            events: Sequence[Event] = [
                Event(row["event_id"], row["kind"], json.loads(row["payload"])) for row in rows
            ]
            await self._streams.publish(self._stream, events)
            await connection.execute(
                MARK, [row["user_id"] for row in rows], [row["event_id"] for row in rows]
            )
            return len(rows)
