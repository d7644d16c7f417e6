"""Events on the region's queue: written in batches, read by groups, handled at least once.

A group is made at id 0, so nothing sent before its first reader is missed. Entries that a dead
reader took are claimed after `CLAIM_SECONDS`. An entry that cannot be read, or that failed
`DELIVERIES` times, goes to the dead-letter stream `<stream>.dead`. Handlers must be idempotent.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from runtime.clock import Clock
from runtime.errors import Problem
from runtime.events import Event, Poison
from runtime.routing import Routing
from runtime.settings import Settings
from runtime.shardmap import Endpoint
from runtime.telemetry import CONSUMED

log = logging.getLogger(__name__)

BATCH = 100
BLOCK_SECONDS = 0.5
CLAIM_SECONDS = 3.0
DELIVERIES = 5
TIMEOUT_SECONDS = 2.0
KEEP = 1_000_000


Handler = Callable[[Sequence[Event]], Awaitable[None]]
Entry = tuple[bytes, dict[bytes, bytes]]


def encode(event: Event) -> dict[str, str]:
    fields = {"id": str(event.id), "kind": event.kind, "payload": json.dumps(dict(event.payload))}
    return fields | ({"traceparent": event.traceparent} if event.traceparent else {})


def decode(fields: Mapping[bytes, bytes]) -> Event:
    """Raises `Poison`."""
    try:
        payload = json.loads(fields[b"payload"])
        if not isinstance(payload, dict):
            raise ValueError("payload is not an object")
        traceparent = fields.get(b"traceparent", b"").decode() or None
        return Event(int(fields[b"id"]), fields[b"kind"].decode(), payload, traceparent)
    except (KeyError, ValueError) as error:
        raise Poison(repr(error)) from error


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
        async with client.pipeline(transaction=False) as pipe:
            for event in events:
                pipe.xadd(stream, encode(event), maxlen=KEEP, approximate=True)  # type: ignore[arg-type]
            await pipe.execute()

    async def consume(self, stream: str, group: str, handle: Handler) -> None:
        """Hands batches to `handle` until cancelled."""
        reader = _Reader(stream, group, self._settings.instance, handle)
        claimed = 0.0
        while True:
            try:
                client = await self._connected()
                await reader.ensure_group(client)
                while await self._connected() is client:
                    now = self._clock.monotonic()
                    if now - claimed >= CLAIM_SECONDS:
                        claimed = now
                        await reader.claim(client)
                    await reader.read(client)
            except (RedisError, OSError, TimeoutError, Problem) as error:
                log.warning("queue", extra={"data": {"reason": repr(error)}})
                await self._clock.sleep(0.25)

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    async def _connected(self) -> Redis:
        endpoint = self._routing.map.queues.get(self._settings.region)
        if endpoint is None:
            raise ConnectionError(f"no queue in {self._settings.region}")
        if self._client is None or endpoint != self._endpoint:
            await self.close()
            self._endpoint = endpoint
            self._client = Redis(
                host=endpoint.host,
                port=endpoint.port,
                password=self._settings.valkey_password or None,
                protocol=2,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=1.0,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client


class _Reader:
    def __init__(self, stream: str, group: str, name: str, handle: Handler) -> None:
        self._stream = stream
        self._group = group
        self._name = name
        self._handle = handle

    async def ensure_group(self, client: Redis) -> None:
        try:
            await client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, client: Redis) -> None:
        answer: Any = await client.xreadgroup(
            self._group,
            self._name,
            {self._stream: ">"},
            count=BATCH,
            block=int(BLOCK_SECONDS * 1000),
        )
        for _, entries in answer or []:
            await self._process(client, entries)

    async def claim(self, client: Redis) -> None:
        """Takes over what was handed out and never acknowledged."""
        idle = int(CLAIM_SECONDS * 1000)
        answer: Any = await client.xautoclaim(
            self._stream, self._group, self._name, min_idle_time=idle, count=BATCH
        )
        entries: list[Entry] = [entry for entry in answer[1] if entry[1]]
        if not entries:
            return
        pending: Any = await client.xpending_range(
            self._stream, self._group, min="-", max="+", count=BATCH, consumername=self._name
        )
        worn = {row["message_id"] for row in pending if row["times_delivered"] > DELIVERIES}
        for entry in entries:
            if entry[0] in worn:
                await self._last_try(client, entry)
        await self._process(client, [entry for entry in entries if entry[0] not in worn])

    async def _last_try(self, client: Redis, entry: Entry) -> None:
        """Alone, so that no other event suffers. An outage is no fault of the event: it waits."""
        try:
            await self._process(client, [entry])
        except (RedisError, OSError, TimeoutError, Problem):
            raise
        except Exception as error:
            await self._bury(client, entry, f"delivered too often: {error!r}")

    async def _process(self, client: Redis, entries: Sequence[Entry]) -> None:
        good: list[tuple[Entry, Event]] = []
        for entry in entries:
            try:
                good.append((entry, decode(entry[1])))
            except Poison as error:
                await self._bury(client, entry, str(error))
        if not good:
            return
        try:
            await self._handle([event for _, event in good])
            await client.xack(self._stream, self._group, *[entry[0] for entry, _ in good])
            CONSUMED.labels("handled").inc(len(good))
        except Poison as error:
            if len(good) == 1:
                await self._bury(client, good[0][0], str(error))
                return
            for entry, _ in good:
                await self._process(client, [entry])

    async def _bury(self, client: Redis, entry: Entry, reason: str) -> None:
        fields: Any = {**entry[1], b"reason": reason.encode(), b"entry": entry[0]}
        await client.xadd(f"{self._stream}.dead", fields, maxlen=KEEP, approximate=True)
        await client.xack(self._stream, self._group, entry[0])
        CONSUMED.labels("dead").inc()
        log.error("event set aside", extra={"data": {"entry": entry[0], "reason": reason}})


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
