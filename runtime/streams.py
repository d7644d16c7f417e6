"""Events on the region's queue: written in batches, read by groups, handled at least once.

A group is made at id 0, so nothing sent before its first reader is missed. Entries that a dead
reader took are claimed after `CLAIM_SECONDS`. Handlers must be idempotent. What a handler raises
decides about its events:

    Problem, OSError, RedisError   somebody else is away: they wait, however long that lasts
    Poison                         no repetition helps: to the dead letters at once
    anything else                  a defect: to the dead letters after `DELIVERIES` deliveries

A batch that fails by the fault of one event is done again event by event, so no other suffers.

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
import json
import logging
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from runtime import tracing
from runtime.clock import Clock
from runtime.deadletters import ONLY, bury
from runtime.errors import Problem
from runtime.events import OF_CATALOG, Event, Poison, subject_of
from runtime.routing import Routing
from runtime.settings import Settings
from runtime.shardmap import CATALOG, Endpoint
from runtime.telemetry import CONSUMED, STREAM_LAG, STREAM_PENDING

log = logging.getLogger(__name__)

BATCH = 100
BLOCK_SECONDS = 0.5
# After a batch that was not full, so that the next is larger: a batch costs about as much as an
# event.
LINGER_SECONDS = 0.25
CLAIM_SECONDS = 3.0
DELIVERIES = 5
TIMEOUT_SECONDS = 2.0
KEEP = 1_000_000
PAUSES = (0.25, 0.5, 1.0, 2.0)
AWAY = (RedisError, OSError, TimeoutError, Problem)

MESSAGING = {"messaging.system": "valkey", "messaging.destination.name": "events"}

Handler = Callable[[Sequence[Event]], Awaitable[None]]
Entry = tuple[bytes, dict[bytes, bytes]]


@dataclass(frozen=True)
class Group:
    """`lag`: entries not yet read by the group; `pending`: read, and not acknowledged."""

    name: str
    lag: int
    pending: int
    readers: int


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


def _within(event: Event, traceparent: str | None) -> Event:
    """The event as part of the span `traceparent`."""
    return event if traceparent == event.traceparent else replace(event, traceparent=traceparent)


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
                    fields = encode(_within(event, parent))
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
        reader = _Reader(
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
                retry=Retry(NoBackoff(), 0),
            )
            if old:
                await old.aclose()
            return client
        return self._client


class _Reader:
    def __init__(
        self,
        stream: str,
        group: str,
        name: str,
        handle: Handler,
        clock: Clock,
        *,
        kinds: Container[str] | None = None,
        batch: int = BATCH,
        elsewhere: Callable[[Event], bool] = lambda _: False,
    ) -> None:
        self._stream = stream
        self._group = group
        self._name = name
        self._handle = handle
        self._clock = clock
        self._kinds = kinds
        self._batch = batch
        self._elsewhere = elsewhere
        self._failed: dict[bytes, str] = {}
        # Where the next look for what was left begins.
        self._left_from = b"0-0"
        self._traced = {**MESSAGING, "messaging.consumer.group.name": group}

    async def ensure_group(self, client: Redis) -> None:
        try:
            await client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, client: Redis) -> int:
        """Handles a batch of what is new. Returns how many entries that was."""
        answer: Any = await client.xreadgroup(
            self._group,
            self._name,
            {self._stream: ">"},
            count=self._batch,
            block=int(BLOCK_SECONDS * 1000),
        )
        count = 0
        for _, entries in answer or []:
            await self._process(client, entries)
            count += len(entries)
        return count

    async def claim(self, client: Redis) -> None:
        """Takes over what was handed out and never acknowledged, batch by batch.

        After a batch that must wait, the next call goes on behind it: who waits for one thing
        does not keep what waits for another.
        """
        idle = int(CLAIM_SECONDS * 1000)
        last = False
        while not last:
            answer: Any = await client.xautoclaim(
                self._stream,
                self._group,
                self._name,
                min_idle_time=idle,
                start_id=self._left_from,
                count=self._batch,
            )
            self._left_from = bytes(answer[0])
            last = self._left_from == b"0-0"
            entries: list[Entry] = [entry for entry in answer[1] if entry[1]]
            if not entries:
                continue
            pending: Any = await client.xpending_range(
                self._stream,
                self._group,
                min=entries[0][0],
                max=entries[-1][0],
                count=10 * self._batch,
                consumername=self._name,
            )
            worn = {row["message_id"] for row in pending if row["times_delivered"] > DELIVERIES}
            await self._process(client, entries, worn)

    async def _process(
        self, client: Redis, entries: Sequence[Entry], worn: Container[bytes] = frozenset()
    ) -> None:
        good: list[tuple[Entry, Event]] = []
        others: list[bytes] = []
        for entry in entries:
            if entry[1].get(ONLY, self._group.encode()) != self._group.encode():
                others.append(entry[0])
                continue
            try:
                event = decode(entry[1])
            except Poison as error:
                await self._bury(client, entry, str(error))
                continue
            if self._kinds is not None and event.kind not in self._kinds:
                others.append(entry[0])
            elif self._elsewhere(event):
                others.append(entry[0])
                CONSUMED.labels("elsewhere").inc()
            else:
                good.append((entry, event))
        if others:
            await client.xack(self._stream, self._group, *others)
        if good:
            await self._deliver(client, good, worn)

    async def _deliver(
        self, client: Redis, good: Sequence[tuple[Entry, Event]], worn: Container[bytes]
    ) -> None:
        parents = [event.traceparent for _, event in good]
        try:
            name = f"process {self._group}"
            with tracing.spans(name, "consumer", parents, self._traced) as here:
                await self._handle(
                    [_within(each[1], own) for each, own in zip(good, here, strict=True)]
                )
        except AWAY:
            raise
        except Exception as error:
            if len(good) > 1:
                await self._one_by_one(client, good, worn)
                return
            entry = good[0][0]
            if isinstance(error, Poison):
                await self._bury(client, entry, str(error))
            elif entry[0] in worn:
                await self._bury(client, entry, f"delivered too often: {error!r}")
            else:
                self._failed.setdefault(entry[0], self._clock.now().isoformat())
                CONSUMED.labels("failed").inc()
                log.exception("event failed", extra={"data": {"entry": entry[0].decode()}})
            return
        await client.xack(self._stream, self._group, *[entry[0] for entry, _ in good])
        CONSUMED.labels("handled").inc(len(good))
        for entry, _ in good:
            self._failed.pop(entry[0], None)

    async def _one_by_one(
        self, client: Redis, good: Sequence[tuple[Entry, Event]], worn: Container[bytes]
    ) -> None:
        """Each alone. Who must wait for somebody else does not make the others wait too."""
        away: BaseException | None = None
        for each in good:
            try:
                await self._deliver(client, [each], worn)
            except Problem as error:
                away = error
        if away:
            raise away

    async def _bury(self, client: Redis, entry: Entry, reason: str) -> None:
        failed_at = self._failed.pop(entry[0], None) or self._clock.now().isoformat()
        await bury(client, self._stream, self._group, entry, reason, failed_at, keep=KEEP)
        CONSUMED.labels("dead").inc()
        data = {"entry": entry[0].decode(), "group": self._group, "reason": reason}
        log.error("event set aside", extra={"data": data})


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
