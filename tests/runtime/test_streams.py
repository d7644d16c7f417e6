"""An event that was delivered often is set aside for its own fault only, never for an outage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest
from redis.asyncio import Redis

from runtime import deadletters
from runtime import reader as readers
from runtime.app import _context
from runtime.batches import write_by_shard
from runtime.clock import FakeClock
from runtime.errors import Unavailable
from runtime.events import STREAM, Event, Poison, encode
from runtime.reader import DELIVERIES, Reader
from runtime.streams import Group
from runtime.transient import transient
from tests.runtime.conftest import Platform
from tests.runtime.servers import PASSWORD


class WornQueue:
    """A queue with one entry that was delivered too often; remembers what was done with it."""

    def __init__(self) -> None:
        fields = encode(Event(1, "OrderCreated", {})).items()
        self.entry = (b"1-0", {key.encode(): value.encode() for key, value in fields})
        self.done: list[str] = []

    async def xautoclaim(self, *_: Any, **__: Any) -> Any:
        return [b"0-0", [self.entry], []]

    async def xpending_range(self, *_: Any, **__: Any) -> Any:
        return [{"message_id": self.entry[0], "times_delivered": DELIVERIES + 1}]

    def pipeline(self, **_: Any) -> WornPipeline:
        return WornPipeline(self)

    async def xack(self, *_: Any) -> None:
        self.done.append("acknowledged")


class WornPipeline:
    def __init__(self, queue: WornQueue) -> None:
        self.done = queue.done

    async def __aenter__(self) -> WornPipeline:
        return self

    async def __aexit__(self, *_: Any) -> None: ...

    def xadd(self, stream: str, *_: Any, **__: Any) -> None:
        self.done.append(f"added to {stream}")

    def xack(self, *_: Any) -> None:
        self.done.append("acknowledged")

    async def execute(self) -> None: ...


def reader(error: Exception | None) -> Any:
    async def handle(_: Sequence[Event]) -> None:
        if error:
            raise error

    return Reader("events", "group", "me", handle, FakeClock())


async def test_during_an_outage_it_stays_in_the_queue() -> None:
    queue = WornQueue()
    with pytest.raises(Unavailable):
        await reader(Unavailable("the catalog does not answer")).claim(queue)
    assert queue.done == []


async def test_after_the_outage_it_is_handled() -> None:
    queue = WornQueue()
    await reader(None).claim(queue)
    assert queue.done == ["acknowledged"]


async def test_a_defect_that_it_causes_every_time_sets_it_aside() -> None:
    queue = WornQueue()
    await reader(KeyError("sku")).claim(queue)
    assert queue.done == ["added to events.dead", "acknowledged"]


def picky(fail: Callable[[Event], Exception | None], seen: list[int]) -> Any:
    async def handle(events: Sequence[Event]) -> None:
        for event in events:
            if error := fail(event):
                raise error
        seen.extend(event.id for event in events)

    return handle


@pytest.mark.process
async def test_one_bad_event_does_not_hold_up_the_others_of_its_batch(platform: Platform) -> None:
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    faults = {2: Poison("nonsense"), 3: KeyError("defect"), 4: Unavailable("away")}
    seen: list[int] = []
    one = Reader(STREAM, "g", "me", picky(lambda e: faults.get(e.id), seen), FakeClock())
    await one.ensure_group(queue)
    for id in range(1, 6):
        fields: Any = encode(Event(id, "OrderCreated", {}))
        await queue.xadd(STREAM, fields)
    with pytest.raises(Unavailable):
        await one.read(queue)
    assert seen == [1, 5]
    pending: Any = await queue.xpending(STREAM, "g")
    assert pending["pending"] == 2
    [letter] = await deadletters.letters(queue, STREAM)
    assert (letter.group, letter.fields["id"], letter.reason) == ("g", "2", "nonsense")
    assert letter.failed_at.startswith("2026-01-01")
    await queue.aclose()


@pytest.mark.process
async def test_what_must_wait_does_not_keep_what_a_dead_reader_left(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CLAIM_SECONDS", 0.0)
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    dead = Reader(STREAM, "g", "dead", picky(lambda _: Unavailable("away"), []), FakeClock())
    await dead.ensure_group(queue)
    for id in range(1, 4):
        fields: Any = encode(Event(id, "OrderCreated", {}))
        await queue.xadd(STREAM, fields)
    with pytest.raises(Unavailable):
        await dead.read(queue)
    seen: list[int] = []
    waits = picky(lambda event: Unavailable("away") if event.id == 1 else None, seen)
    one = Reader(STREAM, "g", "me", waits, FakeClock(), batch=1)
    with pytest.raises(Unavailable):
        await one.claim(queue)
    await one.claim(queue)
    assert seen == [2, 3]
    with pytest.raises(Unavailable):
        await one.claim(queue)
    await queue.aclose()


async def test_a_shard_that_is_away_does_not_keep_the_others() -> None:
    def place(slot: int) -> Any:
        return SimpleNamespace(shard=SimpleNamespace(name=f"s{slot}"))

    async def write(locate: Any, _: Any) -> Any:
        slot = locate(SimpleNamespace(place=lambda slot: slot))
        if slot == 1:
            raise Unavailable("s1 is away")
        done.append(slot)
        return SimpleNamespace(value=slot)

    done: list[int] = []
    routing: Any = SimpleNamespace(map=SimpleNamespace(place=place))
    shards: Any = SimpleNamespace(write=write)
    with pytest.raises(Unavailable):
        await write_by_shard(shards, routing, [1, 2, 1, 3], lambda slot: slot, AsyncMock())
    assert done == [2, 3]


@pytest.mark.process
async def test_a_replayed_letter_is_for_its_group_only_and_a_dropped_one_is_gone(
    platform: Platform,
) -> None:
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    broken = {1, 2}
    seen: dict[str, list[int]] = {"a": [], "b": []}
    fail = {
        "a": lambda event: Poison("not yet") if event.id in broken else None,
        "b": lambda event: None,
    }
    readers = {
        name: Reader(STREAM, name, "me", picky(fail[name], seen[name]), FakeClock())
        for name in seen
    }
    for id in (1, 2):
        fields: Any = encode(Event(id, "OrderCreated", {}, "00-trace"))
        await queue.xadd(STREAM, fields)
    for one in readers.values():
        await one.ensure_group(queue)
        await one.read(queue)
    assert seen == {"a": [], "b": [1, 2]}
    first, second = await deadletters.letters(queue, STREAM)
    assert await deadletters.letters(queue, STREAM, after=first.id) == [second]
    broken.clear()
    assert await deadletters.replay(queue, STREAM, [first.id]) == 1
    assert await deadletters.drop(queue, STREAM, [second.id]) == 1
    assert await deadletters.find(queue, STREAM, first.id) is None
    for one in readers.values():
        await one.read(queue)
    assert seen == {"a": [1], "b": [1, 2]}
    assert await deadletters.count(queue, STREAM) == 0
    await queue.aclose()


@pytest.mark.process
async def test_an_event_of_no_interest_is_acknowledged_at_once(platform: Platform) -> None:
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    seen: list[int] = []
    one = Reader(
        *(STREAM, "g", "me", picky(lambda event: None, seen), FakeClock()), kinds={"OrderCreated"}
    )
    await one.ensure_group(queue)
    for id, kind in ((1, "OrderCreated"), (2, "StockReserved")):
        fields: Any = encode(Event(id, kind, {}))
        await queue.xadd(STREAM, fields)
    assert await one.read(queue) == 2
    pending: Any = await queue.xpending(STREAM, "g")
    assert (seen, pending["pending"]) == ([1], 0)
    await queue.aclose()


@pytest.mark.process
async def test_how_far_behind_each_group_is_can_be_seen(platform: Platform) -> None:
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    context = _context(platform.settings("orders"))
    context.routing.refresh()
    assert await context.streams.groups(STREAM) == []
    one = Reader(STREAM, "g", "me", picky(lambda _: Unavailable("away"), []), FakeClock(), batch=2)
    await one.ensure_group(queue)
    await context.streams.publish(STREAM, [Event(id, "OrderCreated", {}) for id in range(1, 6)])
    with pytest.raises(Unavailable):
        await one.read(queue)
    assert await context.streams.groups(STREAM) == [Group("g", lag=3, pending=2, readers=1)]
    await context.streams.close()
    await context.cache.close()
    await queue.aclose()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.DiskFullError("no space left"), "lost"),
        (asyncpg.OutOfMemoryError("out of memory"), "lost"),
        (asyncpg.TooManyConnectionsError("sorry"), "lost"),
        (asyncpg.PostgresIOError("could not read"), "lost"),
        (asyncpg.PostgresConnectionError("gone"), "lost"),
        (asyncpg.DataError("out of range"), None),
        (asyncpg.UniqueViolationError("twice"), None),
    ],
)
def test_a_server_in_trouble_is_an_outage_and_a_bad_value_is_none(
    error: Exception, reason: str | None
) -> None:
    assert transient(error) == reason


async def test_an_event_is_elsewhere_when_the_database_it_is_from_is(platform: Platform) -> None:
    """The catalog and a shard may have their homes in different regions."""
    context = _context(platform.settings("orders"))
    context.routing.refresh()
    of_shard = Event(1, "OrderCreated", {"order_id": 1, "user_id": 7})
    of_catalog = Event(2, "StockReserved", {"order_id": 1, "user_id": 7})
    poison = Event(3, "OrderCreated", {})

    def elsewhere() -> list[bool]:
        return [context.streams.elsewhere(each) for each in (of_shard, of_catalog, poison)]

    assert elsewhere() == [False, False, False]
    moved = platform.first_map(version=2)
    shards = {**moved.shards, "s1": replace(moved.shards["s1"], home="eu-west-1")}
    platform.publish(replace(moved, shards=shards))
    context.routing.refresh()
    assert elsewhere() == [True, False, False]
    # Home again by a map that nobody has read yet.
    platform.publish(platform.first_map(version=3))
    assert elsewhere() == [False, False, False]
    context.shards.close()
    await context.cache.close()
