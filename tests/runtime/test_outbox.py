"""The relay: what services left in an outbox is in the stream, also after the stream was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from runtime import checks, outbox
from runtime.app import _context
from runtime.context import Context
from runtime.events import STREAM, Event, Kind, decode, event_id
from runtime.outbox import GUARD, Relay
from runtime.pool import Connection
from runtime.shardmap import CATALOG, Placement, slot_of
from runtime.shards import Locate, catalog, of_user
from tests.runtime.conftest import Platform
from tests.runtime.servers import PASSWORD

pytestmark = pytest.mark.process

USER = 7


def order_id(number: int) -> int:
    return (number << 22) | (slot_of(USER) << 12)


def event(number: int, kind: Kind = "OrderCreated", **payload: Any) -> Event:
    order = order_id(number)
    trace = f"00-{number:032x}-{number:016x}-01"
    return Event(
        event_id(order, kind), kind, {"order_id": order, "user_id": USER, **payload}, trace
    )


@asynccontextmanager
async def of_service(platform: Platform, name: str) -> AsyncIterator[Context]:
    made = _context(platform.settings(name))
    made.routing.refresh()
    yield made
    made.shards.close()
    await made.cache.close()
    await made.streams.close()


@pytest.fixture
async def context(platform: Platform) -> AsyncIterator[Context]:
    async with of_service(platform, "orders") as made:
        yield made


@pytest.fixture
async def valkey(platform: Platform) -> AsyncIterator[Redis]:
    client = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    yield client
    await client.aclose()


def relay_of(context: Context, *databases: str) -> Relay:
    return Relay(
        context.settings, context.routing, context.shards, context.streams, context.clock,
        databases=databases or None,
    )  # fmt: skip


async def emit(context: Context, locate: Locate, events: Sequence[Event]) -> None:
    async def work(connection: Connection, place: Placement) -> None:
        async with connection.transaction():
            await connection.execute(GUARD, place.slot, place.epoch)
            await outbox.emit(connection, events)

    await context.shards.write(locate, work)


async def sent(valkey: Redis) -> list[Event]:
    entries: Any = await valkey.xrange(STREAM)
    return [decode(fields) for _, fields in entries]


async def test_an_event_goes_out_as_it_was_first_made_each_time_it_is_emitted(
    context: Context, valkey: Redis
) -> None:
    relay = relay_of(context)
    first = event(1, note="first")
    await emit(context, of_user(USER), [first, event(2), first])
    assert await relay.once("s1") == 2
    assert await relay.once("s1") == 0
    await emit(context, of_user(USER), [event(1, note="second")])
    assert await relay.once("s1") == 1
    assert await sent(valkey) == [first, event(2), first]


async def test_the_catalogs_events_are_relayed_by_who_asks_for_them(
    platform: Platform, valkey: Redis
) -> None:
    async with of_service(platform, "inventory") as context:
        await emit(context, catalog, [event(1, "StockReserved")])
        assert relay_of(context)._mine() == ["s1"]
        relay = relay_of(context, CATALOG)
        assert relay._mine() == [CATALOG]
        assert await relay.once(CATALOG) == 1
    assert [each.kind for each in await sent(valkey)] == ["StockReserved"]


async def test_a_queue_without_the_relays_mark_gets_the_newest_events_again(
    context: Context, valkey: Redis, shard_db: checks.Database
) -> None:
    relay = relay_of(context)
    assert await relay.check("s1") == 0
    await emit(context, of_user(USER), [event(1), event(2, "PaymentProcessed"), event(3)])
    await relay.once("s1")
    assert await relay.check("s1") == 0
    await age(shard_db, 3600)
    await emit(context, of_user(USER), [event(4)])
    await relay.once("s1")
    # Somebody was told of 1; the payment and 3 were told to nobody; 4 is young.
    await tell(shard_db, event(1))
    await valkey.flushall()
    assert await relay.check("s1") == 3
    assert await relay.check("s1") == 0
    await relay.once("s1")
    found = {each.id for each in await sent(valkey)}
    assert found == {event(2, "PaymentProcessed").id, order_id(3), order_id(4)}


async def test_an_order_that_waits_asks_again_after_the_queue_was_lost(
    context: Context, valkey: Redis, shard_db: checks.Database
) -> None:
    relay = relay_of(context)
    await relay.check("s1")
    waiting, settled = event(1), event(2)
    await emit(context, of_user(USER), [waiting, settled, event(1, "OrderCancelled")])
    await relay.once("s1")
    await age(shard_db, 3600)
    for each, status in ((waiting, "placed"), (settled, "confirmed")):
        await shard_db.execute(
            "INSERT INTO orders (id, user_id, status, idempotency_key, request_hash, currency, "
            "total_cents, created_at) VALUES ($1, $2, $3, $4, '', 'USD', 1, now())",
            *(each.id, USER, status, str(each.id)),
        )
    for each in (waiting, settled, event(1, "OrderCancelled")):
        await tell(shard_db, each)
    await emit(context, of_user(USER), [event(3)])
    await relay.once("s1")
    await valkey.flushall()
    assert await relay.check("s1") == 2
    await relay.once("s1")
    assert {each.id for each in await sent(valkey)} == {waiting.id, order_id(3)}


async def test_a_queue_that_was_started_again_gets_what_it_may_not_have_written(
    context: Context, valkey: Redis, shard_db: checks.Database
) -> None:
    relay = relay_of(context)
    await relay.check("s1")
    await emit(context, of_user(USER), [event(1)])
    await relay.once("s1")
    await age(shard_db, 60)
    await emit(context, of_user(USER), [event(2)])
    await relay.once("s1")
    [marker] = await valkey.keys("relayed:s1:*")
    await valkey.set(marker, "another run")
    assert await relay.check("s1") == 1
    await relay.once("s1")
    assert [each.id for each in await sent(valkey)] == [order_id(1), order_id(2), order_id(2)]


async def test_what_the_queue_took_last_is_sent_again_however_long_it_was_away(
    context: Context, valkey: Redis, shard_db: checks.Database
) -> None:
    relay = relay_of(context)
    await relay.check("s1")
    for number in (1, 2):
        await emit(context, of_user(USER), [event(number)])
        await relay.once("s1")
        await age(shard_db, 60)
    [marker] = await valkey.keys("relayed:s1:*")
    await valkey.set(marker, "another run")
    assert await relay.check("s1") == 1
    await relay.once("s1")
    assert [each.id for each in await sent(valkey)] == [order_id(1), order_id(2), order_id(2)]


async def test_a_queue_that_followed_another_meanwhile_gets_the_newest_events_again(
    context: Context, valkey: Redis
) -> None:
    relay = relay_of(context)
    await relay.check("s1")
    await emit(context, of_user(USER), [event(1)])
    await relay.once("s1")
    assert await relay.check("s1") == 0
    await valkey.replicaof("127.0.0.1", "1")
    await valkey.replicaof("NO", "ONE")
    assert await relay.check("s1") == 1
    assert await relay.check("s1") == 0


async def age(shard_db: checks.Database, seconds: float) -> None:
    await shard_db.execute(
        "UPDATE outbox SET relayed_at = relayed_at - make_interval(secs => $1::float8)", seconds
    )


async def tell(shard_db: checks.Database, each: Event) -> None:
    await shard_db.execute(
        "INSERT INTO notifications (user_id, event_id, kind, recipient, status) "
        "VALUES ($1, $2, $3, 'ada@example.org', 'sent')",
        *(USER, each.id, each.kind),
    )
