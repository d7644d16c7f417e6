"""Events that services left in the outbox of a database go to the region's stream, at least once.

Only processes in a database's home region relay it, each taking rows that no other has locked. The
mark `relayed_at` is written without waiting for the standby: losing it means only that an event
is sent twice, and consumers know each event by its id. Rows are kept, so a lost stream can be
written again: a relay leaves a mark of its own in the queue, and when that is gone, or is of
another reign of the server (it was started again, or followed another one meanwhile), the queue
may lack what it once had.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from redis.asyncio import Redis
from redis.exceptions import RedisError

from runtime.batches import guard_owned
from runtime.clock import Clock
from runtime.errors import Problem
from runtime.events import STREAM, TOLD, Event, subject_of
from runtime.pool import Connection
from runtime.routing import Routing
from runtime.served import owned
from runtime.settings import Settings
from runtime.shardmap import CATALOG, Placement, ShardMap, SlotRange, slot_of
from runtime.shards import Locate, Shards, catalog, of_shard
from runtime.streams import Streams
from runtime.telemetry import RELAYED
from runtime.transient import transient

log = logging.getLogger(__name__)

BATCH = 200
PAGE = 2000
# Also after a batch that was not full, so that the next is larger: each is a transaction.
PAUSE_SECONDS = 0.1
FAILED_SECONDS = 0.5
CHECK_SECONDS = 1.0
# How far back events are sent again, from the last that the queue took: it is empty, or may lack
# what it had not yet written to its file or to its follower (once a second).
LOST_SECONDS = 600.0
RESTARTED_SECONDS = 10.0
# Each database notices a loss by itself; so far apart at most.
MOVED_SECONDS = 5.0
MARKER = "relayed:{database}:{queue}"

GUARD = "SELECT regionctl.guard($1, $2)"
EMIT = """
INSERT INTO outbox (user_id, event_id, kind, payload, traceparent, created_at)
SELECT user_id, event_id, kind, payload::jsonb, traceparent, clock_timestamp()
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[])
     AS emitted(user_id, event_id, kind, payload, traceparent)
ON CONFLICT (user_id, event_id) DO UPDATE SET relayed_at = NULL
"""
# {mine}: on a shard, the rows of slots that it owns; of the catalog, all.
ANY = "SELECT EXISTS (SELECT FROM outbox WHERE relayed_at IS NULL AND {mine})"
PENDING = """
SELECT user_id, event_id, kind, payload, traceparent FROM outbox
WHERE relayed_at IS NULL AND {mine} ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED
"""
MARK = """
UPDATE outbox SET relayed_at = clock_timestamp()
FROM unnest($1::bigint[], $2::bigint[]) AS sent(user_id, event_id)
WHERE outbox.user_id = sent.user_id AND outbox.event_id = sent.event_id
"""
AGAIN = """
UPDATE outbox SET relayed_at = NULL FROM unnest($1::bigint[], $2::bigint[]) AS again(user_id, event_id)
WHERE outbox.user_id = again.user_id AND outbox.event_id = again.event_id
  AND outbox.relayed_at IS NOT NULL
"""  # noqa: E501
RECENT = """
SELECT user_id, event_id FROM outbox
WHERE relayed_at > (SELECT max(relayed_at) FROM outbox) - make_interval(secs => $1::float8)
  AND {mine}
"""
# The last question of every order that is not settled (the condition of the index
# orders_unsettled), and what nobody was told of.
UNANSWERED = f"""
SELECT e.user_id, e.event_id FROM orders o JOIN outbox e
  ON e.user_id = o.user_id AND (e.payload->>'order_id')::bigint = o.id
 AND e.kind = CASE o.status WHEN 'placed' THEN 'OrderCreated' ELSE 'OrderCancelled' END
WHERE e.relayed_at IS NOT NULL AND {owned("o.user_id")}
  AND (o.status = 'placed'
       OR o.status = 'cancelled' AND NOT (o.stock IN ('refused', 'returned')
                                          AND o.payment IN ('declined', 'void', 'refunded')))
"""  # noqa: S608
UNTOLD = f"""
SELECT e.user_id, e.event_id FROM outbox e
WHERE e.relayed_at IS NOT NULL AND e.kind = ANY($1::text[]) AND {owned("e.user_id")}
  AND NOT EXISTS (SELECT FROM notifications n
                  WHERE n.user_id = e.user_id AND n.event_id = e.event_id)
"""  # noqa: S608


async def emit(connection: Connection, events: Sequence[Event]) -> None:
    """`events` will be sent, again if they were before; with the transaction that this is in.

    Each payload names `order_id` and `user_id`. An event that exists keeps its first payload.
    """
    once = {(subject_of(event)[1], event.id): event for event in events}
    if not once:
        return
    # In one order always, so that two transactions never wait for each other.
    rows = sorted(once.items())
    await connection.execute(
        EMIT,
        [user for (user, _), _ in rows],
        [event.id for _, event in rows],
        [event.kind for _, event in rows],
        [json.dumps(dict(event.payload)) for _, event in rows],
        [event.traceparent for _, event in rows],
    )


@dataclass(frozen=True)
class _Loss:
    """When a loss was noticed, the slots that the database had then, whether all was `gone`.

    Slots that come just after it may have left where they were before it was noticed there.
    """

    at: float
    slots: tuple[SlotRange, ...]
    gone: bool


class Relay:
    """`databases` None: every shard, but not the catalog."""

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        shards: Shards,
        streams: Streams,
        clock: Clock,
        stream: str = STREAM,
        *,
        databases: Collection[str] | None = None,
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._shards = shards
        self._streams = streams
        self._clock = clock
        self._stream = stream
        self._databases = databases
        self._losses: dict[str, _Loss] = {}

    async def run(self) -> None:
        """Relays every database whose home is here, until cancelled."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for name in self._mine():
                    if name not in tasks or tasks[name].done():
                        tasks[name] = asyncio.create_task(self._follow(name))
                await self._clock.sleep(0.25)
        finally:
            for task in tasks.values():
                task.cancel()

    async def once(self, database: str) -> int:
        """Relays one batch. Returns how many events it sent."""
        locate = self._locate(database)
        return (await self._shards.write(locate, self._batch)).value if locate else 0

    async def check(self, database: str) -> int:
        """Events that the queue may have lost are to be sent again. Returns how many."""
        locate = self._locate(database)
        if locate is None:
            return 0
        client, queue = await self._streams.queue()
        reign = await _reign(client)
        marker = MARKER.format(database=database, queue=queue)
        seen = await client.get(marker)
        slots = self._routing.map.slots_of(database)
        now = self._clock.monotonic()
        loss = self._losses.get(database)
        if seen != reign:
            loss = _Loss(now, slots, gone=seen is None)
        elif loss is None or loss.slots == slots or now - loss.at > MOVED_SECONDS:
            return 0
        self._losses[database] = replace(loss, slots=slots)
        sent = await self._again(locate, database, lost=loss.gone)
        await client.set(marker, reign)
        if sent:
            data = {"database": database, "queue": queue, "events": sent, "lost": seen is None}
            log.warning("events sent again", extra={"data": data})
        return sent

    def _locate(self, database: str) -> Locate | None:
        if database == CATALOG:
            return catalog
        return of_shard(database) if self._routing.map.slots_of(database) else None

    def _mine(self) -> list[str]:
        if not self._routing.loaded:
            return []
        shard_map: ShardMap = self._routing.map
        return [
            shard.name
            for shard in shard_map.shards.values()
            if shard.home == self._settings.region
            and (
                shard.name != CATALOG if self._databases is None else shard.name in self._databases
            )
        ]

    async def _follow(self, database: str) -> None:
        """Until the map has that database no more."""
        checked = -CHECK_SECONDS
        while database in self._routing.map.shards:
            pause = PAUSE_SECONDS
            if database in self._mine():
                try:
                    if self._clock.monotonic() - checked >= CHECK_SECONDS:
                        await self.check(database)
                        checked = self._clock.monotonic()
                    sent = await self.once(database)
                    RELAYED.labels(database).inc(sent)
                    pause = 0.0 if sent == BATCH else PAUSE_SECONDS
                except (RedisError, Problem) as error:
                    data = {"database": database, "reason": repr(error)}
                    log.warning("relay", extra={"data": data})
                    pause = FAILED_SECONDS
                except Exception as error:
                    if transient(error) is None:
                        log.exception("relay", extra={"data": {"database": database}})
                    pause = FAILED_SECONDS
            await self._clock.sleep(pause)

    async def _batch(self, connection: Connection, place: Placement) -> int:
        """Sends, then marks under the guard of each slot, so that no fence waits for the queue.

        What is handed over to another shard meanwhile is not marked, and is sent again from there.
        """
        mine = _mine_of(place)
        if not await connection.fetchval(ANY.format(mine=mine)):
            return 0
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            rows = await connection.fetch(PENDING.format(mine=mine), BATCH)
            if not rows:
                return 0
            events: Sequence[Event] = [
                Event(row["event_id"], row["kind"], json.loads(row["payload"]), row["traceparent"])
                for row in rows
            ]
            await self._streams.publish(self._stream, events)
            await self._mark(connection, place, MARK, [(row[0], row[1]) for row in rows])
            return len(rows)

    async def _mark(
        self,
        connection: Connection,
        place: Placement,
        statement: str,
        keys: Sequence[tuple[int, int]],
    ) -> None:
        """Runs `statement` on those of the rows `keys` that belong here, inside a transaction."""
        if place.shard.name == CATALOG:
            await connection.execute(GUARD, place.slot, place.epoch)
        else:
            slots = [slot_of(user) for user, _ in keys]
            shard = place.shard.name
            mine = await guard_owned(connection, self._routing.map, shard, slots)
            keys = [key for key, slot in zip(keys, slots, strict=True) if slot in mine]
        await connection.execute(statement, [key[0] for key in keys], [key[1] for key in keys])

    async def _again(self, locate: Locate, database: str, *, lost: bool) -> int:
        seconds = LOST_SECONDS if lost else RESTARTED_SECONDS

        async def find(connection: Connection, place: Placement) -> set[tuple[int, int]]:
            found = await connection.fetch(RECENT.format(mine=_mine_of(place)), seconds)
            if lost and database != CATALOG:
                found += await connection.fetch(UNANSWERED)
                found += await connection.fetch(UNTOLD, list(TOLD))
            return {(row[0], row[1]) for row in found}

        # Slot by slot, so that a page guards few.
        keys = sorted(
            (await self._shards.read(locate, find)).value, key=lambda key: (slot_of(key[0]), key)
        )
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]

            async def mark(
                connection: Connection,
                place: Placement,
                page: Sequence[tuple[int, int]] = page,
            ) -> None:
                async with connection.transaction():
                    await self._mark(connection, place, AGAIN, page)

            await self._shards.write(locate, mark)
        return len(keys)


def _mine_of(place: Placement) -> str:
    return "true" if place.shard.name == CATALOG else owned()


async def _reign(client: Redis) -> bytes:
    """Another one after every start of the server and after every promotion of it.

    A queue that is demoted and promoted again without a restart is of the same run, and finds the
    mark that it had, but under another name of its history.
    """
    about = await client.info("server", "replication")
    return f"{about['run_id']}:{about['master_replid']}".encode()
