"""What a consumer of a stream does with its entries: read, claim, hand on, acknowledge, set aside.

What a handler raises decides about its events:

    Problem, OSError, RedisError   somebody else is away: they wait, however long that lasts
    Poison                         no repetition helps: to the dead letters at once
    anything else                  a defect: to the dead letters after `DELIVERIES` deliveries

A batch that fails by the fault of one event is done again event by event, so no other suffers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from runtime import tracing
from runtime.clock import Clock
from runtime.deadletters import ONLY, bury
from runtime.errors import Problem
from runtime.events import Event, Poison, decode
from runtime.telemetry import CONSUMED

log = logging.getLogger(__name__)

BATCH = 100
BLOCK_SECONDS = 0.5
CLAIM_SECONDS = 3.0
DELIVERIES = 5
KEEP = 1_000_000
AWAY = (RedisError, OSError, TimeoutError, Problem)
MESSAGING = {"messaging.system": "valkey", "messaging.destination.name": "events"}

Handler = Callable[[Sequence[Event]], Awaitable[None]]
Entry = tuple[bytes, dict[bytes, bytes]]


def within(event: Event, traceparent: str | None) -> Event:
    """The event as part of the span `traceparent`."""
    return event if traceparent == event.traceparent else replace(event, traceparent=traceparent)


class Reader:
    """One consumer of one group: `name` is its own, and the same after a restart."""

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
                    [within(each[1], own) for each, own in zip(good, here, strict=True)]
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
