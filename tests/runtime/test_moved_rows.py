"""Rows that lie on two shards while their slots move: relayed, swept, listed and judged once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from runtime import checks, directory
from runtime.app import _context
from runtime.auth.tidy import forget_sessions
from runtime.context import Context
from runtime.events import STREAM, decode
from runtime.orders.consumer import ask_again
from runtime.outbox import Relay
from runtime.payments import store as payments
from runtime.pool import Connection
from runtime.shardmap import Placement, slot_of
from runtime.shards import of_shard
from tests.runtime.conftest import Platform
from tests.runtime.customers import place as place_order
from tests.runtime.customers import register, sign_in
from tests.runtime.servers import PASSWORD
from tests.runtime.two_shards import Pair, pair, second

pytestmark = pytest.mark.process
__all__ = ["pair", "second"]

ADA, BOB = 1, 42
INSERT = (
    "INSERT INTO outbox (user_id, event_id, kind, payload, created_at) "
    "VALUES ($1, $2, 'OrderCreated', $3, now())"
)


@pytest.fixture
async def context(platform: Platform, pair: Pair) -> AsyncIterator[Context]:
    made = _context(platform.settings("orders"))
    made.routing.refresh()
    yield made
    made.shards.close()
    await made.streams.close()


def relay_of(context: Context) -> Relay:
    return Relay(context.settings, context.routing, context.shards, context.streams, context.clock)


@pytest.fixture
async def valkey(platform: Platform) -> AsyncIterator[Redis]:
    client = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    yield client
    await client.aclose()


async def sent(valkey: Redis) -> list[int]:
    entries: Any = await valkey.xrange(STREAM)
    return sorted(decode(fields).id for _, fields in entries)


async def test_an_event_is_relayed_by_the_shard_that_owns_its_slot_and_by_no_other(
    platform: Platform, pair: Pair, context: Context, valkey: Redis
) -> None:
    relay = relay_of(context)
    for user, event in ((ADA, 1), (BOB, 2)):
        await pair.one.execute(INSERT, user, event, f'{{"order_id": {event}}}')
    await pair.copy("outbox")
    # A shard without slots has nothing to relay, though copies lie there.
    assert [await relay.once("s2"), await relay.check("s2")] == [0, 0]
    await pair.fence(slot_of(BOB))
    assert await relay.once("s1") == 1
    assert await sent(valkey) == [1]
    platform.publish(await pair.hand_over(slot_of(BOB)))
    context.routing.refresh()
    assert [await relay.once("s1"), await relay.once("s2")] == [0, 1]
    assert await sent(valkey) == [1, 2]
    marked = "SELECT array_agg(event_id) FROM outbox WHERE relayed_at IS NOT NULL"
    assert [await pair.one.fetchval(marked), await pair.two.fetchval(marked)] == [[1], [2]]


async def test_what_was_handed_over_while_it_was_sent_is_marked_by_the_new_owner_only(
    platform: Platform, pair: Pair, context: Context, valkey: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = relay_of(context)
    publishing = context.streams.publish

    async def handing_over(*arguments: Any) -> None:
        await publishing(*arguments)
        monkeypatch.setattr(context.streams, "publish", publishing)
        # Nobody who drains the slot has to wait for the relay.
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7411"
        assert await pair.one.fetchval(locks) == 0
        platform.publish(await pair.hand_over(slot_of(BOB)))

    monkeypatch.setattr(context.streams, "publish", handing_over)
    await pair.one.execute(INSERT, BOB, 2, '{"order_id": 2}')
    await pair.copy("outbox")
    assert await relay.once("s1") == 1
    context.routing.refresh()
    assert [await relay.once("s1"), await relay.once("s2"), await relay.once("s2")] == [0, 1, 0]
    assert await sent(valkey) == [2, 2]


async def test_slots_that_come_just_after_the_queue_was_lost_have_their_events_sent_again(
    platform: Platform, pair: Pair, context: Context, valkey: Redis
) -> None:
    """The loss may not have been noticed where they came from."""
    relay = relay_of(context)
    platform.publish(await pair.hand_over(slot_of(ADA)))
    context.routing.refresh()
    await pair.one.execute(INSERT, BOB, 2, '{"order_id": 2}')
    assert [await relay.check("s1"), await relay.check("s2")] == [0, 0]
    assert await relay.once("s1") == 1
    await pair.copy("outbox")
    await valkey.flushall()
    assert await relay.check("s2") == 0
    platform.publish(await pair.hand_over(slot_of(BOB)))
    context.routing.refresh()
    assert [await relay.check("s1"), await relay.check("s2")] == [0, 1]
    assert [await relay.check("s2"), await relay.once("s2")] == [0, 1]
    assert await sent(valkey) == [2]


async def test_copies_of_users_and_orders_are_listed_once_and_are_no_fault(
    platform: Platform, pair: Pair, catalog_db: checks.Database
) -> None:
    users = [await register(platform, f"{name}@x.org") for name in ("ada", "bob", "eve")]
    async with platform.service("orders") as orders, platform.service("users") as people:
        await sign_in(platform, orders)
        await sign_in(platform, people, role="admin")
        made = [(await place_order(orders, user, "k")).json()["id"] for user in users]
        await pair.copy("users", "orders", "order_items", "outbox")
        for step in range(2):
            if step:
                platform.publish(await pair.hand_over(slot_of(int(users[0]))))
            listed = (await people.get("/api/v1/users")).json()["users"]
            assert sorted(item["id"] for item in listed) == sorted(users)
            found = await orders.get("/api/v1/orders/search", params={"q": "mug"})
            assert sorted(item["id"] for item in found.json()["orders"]) == sorted(made)
            ranges = platform.shard_map.ranges
            verdicts = await checks.invariants(
                pair.both, catalog_db, ranges=ranges, settled_seconds=3600
            )
            assert [verdict for verdict in verdicts if not verdict["held"]] == []
    # Rows that are not served are looked at by nobody: here, those of s2 but for one user.
    await pair.two.execute("UPDATE orders SET total_cents = 0")
    broken = await checks.invariants(pair.both, catalog_db, settled_seconds=3600)
    details = [verdict["detail"] for verdict in broken if verdict["name"] == "totals-match"]
    assert details == [f"orders {made[0]}"]
    # To exist somewhere is enough not to be taken for lost.
    assert await directory.strays(pair.both, catalog_db) == []
    assert await checks.return_orphan_stock(pair.both, catalog_db) == 0


async def test_sweepers_leave_copies_alone_and_live_with_a_shard_that_owns_nothing(
    platform: Platform, pair: Pair, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        await place_order(orders, user, "k")
    slot = slot_of(int(user))
    await pair.one.execute("UPDATE orders SET updated_at = now() - interval '1 day'")
    await pair.one.execute("UPDATE outbox SET relayed_at = now() - interval '1 day'")
    await pair.one.execute(
        "INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status, "
        "updated_at) SELECT user_id, id, 1, 'USD', 'card', 'pending', updated_at FROM orders"
    )
    await pair.one.execute(
        "INSERT INTO sessions (user_id, id, client_id, token_hash, created_at, expires_at) "
        "SELECT user_id, 1, 'x', '', updated_at, updated_at FROM orders"
    )
    await pair.copy("users", "orders", "order_items", "outbox", "payments", "sessions")

    async def seen(service: str) -> list[int]:
        """What the service's sweeper finds on s1 and on s2."""
        context = _context(platform.settings(service))
        context.routing.refresh()

        async def unfinished(connection: Connection, _: Placement) -> int:
            return len(await payments.unfinished(connection, 30, 10))

        async def on(name: str) -> int:
            if service == "orders":
                return await ask_again(context, name)
            if service == "auth":
                return await forget_sessions(context, name)
            if not context.routing.map.slots_of(name):
                return 0
            return (await context.shards.read(of_shard(name), unfinished)).value

        try:
            return [await on("s1"), await on("s2")]
        finally:
            await context.cache.close()
            context.shards.close()

    assert [await seen("orders"), await seen("payments")] == [[1, 0], [1, 0]]
    platform.publish(await pair.hand_over(slot))
    assert [await seen(name) for name in ("orders", "payments", "auth")] == [[0, 1]] * 3
    await pair.two.execute("UPDATE outbox SET relayed_at = now()")
    assert await checks.resend_events(pair.one, catalog_db) == 0
    await pair.two.execute("UPDATE regionctl.slot_owner SET state = 'fencing'")
    assert await checks.resend_events(pair.two, catalog_db) == 0
    await pair.two.execute("UPDATE regionctl.slot_owner SET state = 'owned'")
    assert await checks.resend_events(pair.two, catalog_db) > 0
