"""Events on the region's queue: written in batches, read by groups, handled at least once.

A group is made at id 0, so nothing sent before its first reader is missed. Entries that a dead
reader took are claimed after `CLAIM_SECONDS`. Handlers must be
idempotent; `runtime.reader` says what becomes of an event whose handler fails.

An event whose database has its home in another region is acknowledged and passed over: the queue
of a lost region may come back with events of orders that were lost with it. Nothing that exists
stays unsettled: who passes over has read the map that moved the home, so the old home marks
nothing as relayed any more. What is not marked at the new home is relayed there; what is, the
operation that moved the home (`resend-events`) sends again after that map, if it is a question of
an unsettled order or nobody was told of it; and the sweeper of orders asks for each answer again.
The new home passes over nothing of its own: its relay has read the file that `elsewhere` reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from runtime import tracing
from runtime.clock import Clock
from runtime.events import OF_CATALOG, Event, Poison, encode, subject_of
from runtime.reader import (
    AWAY,
    BATCH,
    CLAIM_SECONDS,
    KEEP,
    MESSAGING,
    Handler,
    Reader,
    within,
)
from runtime.routing import Routing
from runtime.settings import Settings
from runtime.shardmap import CATALOG, Endpoint
from runtime.telemetry import STREAM_LAG, STREAM_PENDING

log = logging.getLogger(__name__)

# After a batch that was not full, so that the next is larger: a batch costs about as much as an
# event.
LINGER_SECONDS = 0.25
TIMEOUT_SECONDS = 2.0
PAUSES = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Group:
    """`lag`: entries not yet read by the group; `pending`: read, and not acknowledged."""

    name: str
    lag: int
    pending: int
    readers: int


class Streams:
    """The queue of this process's region, wherever the map says that it is."""

    def __init__(self, settings: Settings, routing: Routing, clock: Clock) -> None:
        self._settings = settings
        self._routing = routing
        self._clock = clock
        self._client: Redis | None = None
        self._endpoint: Endpoint | None = None

    async def publish(self, stream: str, events: Sequence[Event]) -> None:
        """All of `events` are in the stream. Raises `RedisError` or `OSError`: any may be."""
        client = await self._connected()
        parents = [event.traceparent for event in events]
        with tracing.spans(f"publish {stream}", "producer", parents, MESSAGING) as sent:
            async with client.pipeline(transaction=False) as pipe:
                for event, parent in zip(events, sent, strict=True):
                    fields = encode(within(event, parent))
                    pipe.xadd(stream, fields, maxlen=KEEP, approximate=True)  # type: ignore[arg-type]
                await pipe.execute()

    async def consume(
        self,
        stream: str,
        group: str,
        handle: Handler,
        *,
        kinds: Container[str] | None = None,
        batch: int = BATCH,
    ) -> None:
        """Hands batches of events of `kinds` (None: of every kind) to `handle`, until cancelled.

        Entries of other kinds, and of other regions, are acknowledged at once. Of a batch that
        failed because somebody is away nothing is; the reader pauses, longer each time, up to 2 s.
        """
        reader = Reader(
            stream,
            group,
            self._settings.instance,
            handle,
            self._clock,
            kinds=kinds,
            batch=batch,
            elsewhere=self.elsewhere,
        )
        claimed = -CLAIM_SECONDS
        failures = 0
        while True:
            try:
                client = await self._connected()
                await reader.ensure_group(client)
                while await self._connected() is client:
                    now = self._clock.monotonic()
                    if now - claimed >= CLAIM_SECONDS:
                        claimed = now
                        await reader.claim(client)
                        await self._report(stream, group)
                    if count := await reader.read(client):
                        failures = 0
                        if count < batch:
                            await self._clock.sleep(LINGER_SECONDS)
            except AWAY as error:
                log.warning("queue", extra={"data": {"group": group, "reason": repr(error)}})
                await self._clock.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    async def _report(self, stream: str, group: str) -> None:
        for each in await self.groups(stream):
            if each.name == group:
                STREAM_LAG.labels(group).set(each.lag)
                STREAM_PENDING.labels(group).set(each.pending)

    def elsewhere(self, event: Event) -> bool:
        """Whether the database of `event` has its home in another region, by the newest map."""
        try:
            _, user_id = subject_of(event)
        except Poison:
            return False
        if not 0 < user_id < 2**63:
            return False
        if self._foreign(event.kind, user_id):
            self._routing.refresh()
        return self._foreign(event.kind, user_id)

    def _foreign(self, kind: str, user_id: int) -> bool:
        known = self._routing.map
        shard = known.shards[CATALOG] if kind in OF_CATALOG else known.locate(user_id).shard
        return shard.home != self._settings.region

    async def groups(self, stream: str) -> list[Group]:
        """How far every group of `stream` is. Raises `RedisError` or `OSError`."""
        client = await self._connected()
        try:
            rows: Any = await client.xinfo_groups(stream)
        except ResponseError:
            return []
        return [
            Group(row["name"].decode(), row["lag"] or 0, row["pending"], row["consumers"])
            for row in rows
        ]

    async def queue(self) -> tuple[Redis, str]:
        """A client of the region's queue, and which instance that is. Raises `OSError`."""
        client = await self._connected()
        assert self._endpoint is not None
        return client, self._endpoint.instance

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    async def _connected(self) -> Redis:
        endpoint = self._routing.map.queues.get(self._settings.region)
        if endpoint is None:
            raise ConnectionError(f"no queue in {self._settings.region}")
        if self._client is None or endpoint != self._endpoint:
            # Nothing is awaited before the new client stands: others may ask at the same time.
            old = self._client
            self._endpoint = endpoint
            self._client = client = Redis(
                host=endpoint.host,
                port=endpoint.port,
                password=self._settings.valkey_password or None,
                protocol=2,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=1.0,
                ssl=bool(self._settings.tls_ca),
                ssl_ca_certs=self._settings.tls_ca or None,
                retry=Retry(NoBackoff(), 0),
            )
            if old:
                await old.aclose()
            return client
        return self._client


async def forever(name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Runs `work` again whenever it fails, a second later, until cancelled."""
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("background work failed", extra={"data": {"work": name}})
        await clock.sleep(1.0)
