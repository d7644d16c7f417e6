"""Slots that change hands under writers, readers, relays and sweepers: never two, never none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from runtime import checks, directory
from runtime.app import _context
from runtime.auth.tidy import forget_sessions
from runtime.batches import read_by_shard
from runtime.clock import SystemClock
from runtime.events import STREAM, decode
from runtime.orders.consumer import ask_again
from runtime.outbox import Relay
from runtime.payments import store as payments
from runtime.pool import Connection
from runtime.position import Position
from runtime.routing import Routing
from runtime.shardmap import Placement, ShardMap, slot_of
from runtime.shards import Done, Shards, of_shard, of_slot, of_user
from tests.runtime.conftest import Platform, endpoint
from tests.runtime.customers import place as place_order
from tests.runtime.customers import register, sign_in
from tests.runtime.servers import PASSWORD
from tests.runtime.two_shards import Pair, pair, second

pytestmark = pytest.mark.process
__all__ = ["pair", "second"]

ADA, BOB = 1, 42
GUARD = "SELECT regionctl.guard($1, $2)"
INSERT = (
    "INSERT INTO outbox (user_id, event_id, kind, payload, created_at) "
    "VALUES ($1, $2, 'OrderCreated', $3, now())"
)


@contextmanager
def router(platform: Platform, name: str = "shardmap.json", **options: Any) -> Iterator[Shards]:
    """Reads the map from a file of its own name."""
    routing = Routing(platform.root / name, SystemClock())
    routing.refresh()
    shards = Shards(platform.settings("orders"), routing, SystemClock(), **options)
    try:
        yield shards
    finally:
        shards.close()


def publish(platform: Platform, shard_map: ShardMap, name: str) -> None:
    late = replace(platform, root=platform.root)
    late.map_file = platform.root / name
    late.publish(shard_map)


def writing(event: int, user: int = BOB) -> Callable[[Connection, Placement], Any]:
    async def work(connection: Connection, place: Placement) -> str:
        async with connection.transaction():
            await connection.execute(GUARD, place.slot, place.epoch)
            await connection.execute(INSERT, user, event, f'{{"order_id": {event}}}')
        return place.shard.name

    return work


async def counting(connection: Connection, place: Placement) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM outbox"))


async def write(shards: Shards, event: int, user: int = BOB) -> str:
    done: Done[str] = await shards.write(of_user(user), writing(event, user))
    return done.value


async def waits(task: asyncio.Task[Any], seconds: float = 0.15) -> bool:
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return not done


async def test_a_writer_of_a_fenced_slot_waits_and_finds_the_new_owner_while_others_go_on(
    platform: Platform, pair: Pair
) -> None:
    with router(platform) as shards:
        assert await write(shards, 1) == "s1"
        await pair.fence(slot_of(BOB))
        asked = asyncio.create_task(write(shards, 2))
        assert await waits(asked)
        assert await write(shards, 3, ADA) == "s1"
        # What is read meanwhile is what will be handed over.
        assert (await shards.read(of_user(BOB), counting)).value == 2
        moved = await pair.hand_over(slot_of(BOB))
        assert await waits(asked)
        platform.publish(moved)
        assert await asyncio.wait_for(asked, 5) == "s2"
    assert await pair.one.fetchval("SELECT count(*) FROM outbox WHERE user_id = $1", BOB) == 1
    assert await pair.two.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_writer_goes_on_when_the_fence_is_lifted_without_a_new_map(
    platform: Platform, pair: Pair
) -> None:
    with router(platform) as shards:
        await pair.fence(slot_of(BOB))
        asked = asyncio.create_task(write(shards, 1))
        assert await waits(asked)
        await pair.fence(slot_of(BOB), "owned")
        assert await asyncio.wait_for(asked, 5) == "s1"


async def test_a_router_whose_map_comes_late_is_refused_and_goes_on_inside_the_request(
    platform: Platform, pair: Pair
) -> None:
    publish(platform, platform.shard_map, "late.json")
    with router(platform) as prompt, router(platform, "late.json") as stale:
        assert [await write(prompt, 1), await write(stale, 2)] == ["s1", "s1"]
        moved = await pair.hand_over(slot_of(BOB))
        platform.publish(moved)
        assert await asyncio.wait_for(write(prompt, 3), 5) == "s2"
        asked = asyncio.create_task(write(stale, 4))
        read = asyncio.create_task(
            stale.read(of_user(BOB), counting, position=Position("s2", moved.next_epoch() - 1, 1))
        )
        assert await waits(asked, 0.8)
        assert await waits(read, 0.0)
        publish(platform, moved, "late.json")
        assert await asyncio.wait_for(asked, 5) == "s2"
        assert (await asyncio.wait_for(read, 5)).value == 2
    assert await pair.one.fetchval("SELECT count(*) FROM outbox") == 2


async def test_a_reader_with_an_old_map_is_refused_by_the_old_owner(
    platform: Platform, pair: Pair
) -> None:
    publish(platform, platform.shard_map, "late.json")
    with router(platform, "late.json") as stale:
        assert (await stale.read(of_user(BOB), counting)).value == 0
        moved = await pair.hand_over(slot_of(BOB))

        async def refused() -> asyncio.Task[Done[int]]:
            while True:
                asked = asyncio.create_task(stale.read(of_user(BOB), counting))
                if await waits(asked, 0.1):
                    return asked

        asked = await asyncio.wait_for(refused(), 5)
        publish(platform, moved, "late.json")
        assert (await asyncio.wait_for(asked, 5)).place.shard.name == "s2"


async def test_a_position_of_one_user_holds_up_no_read_of_another_on_that_shard(
    platform: Platform, pair: Pair
) -> None:
    """Ranges of one shard have epochs of their own."""
    platform.publish(await pair.hand_over(slot_of(BOB)))
    platform.publish(await pair.hand_over(slot_of(ADA)))
    with router(platform, budget=3.0) as shards:
        done = await shards.write(of_user(ADA), writing(1, ADA))
        position = Position("s2", done.place.epoch, 1)
        assert done.place.epoch > platform.shard_map.locate(BOB).epoch
        assert (await shards.read(of_user(BOB), counting, position=position)).value == 1


async def test_a_new_map_cuts_connections_to_servers_of_another_role_only(
    platform: Platform, pair: Pair
) -> None:
    shard_map = platform.shard_map
    replica = replace(endpoint(platform.s1), instance="s1.us-east-1b")
    s1 = replace(shard_map.shards["s1"], replicas=(replica,))
    shard_map = replace(shard_map, version=10, shards={**shard_map.shards, "s1": s1})
    with router(platform) as shards:
        platform.publish(shard_map)
        assert shards._routing.refresh()
        kept = (
            shards.pool(s1.primary),
            shards.pool(replica),
            shards.pool(shard_map.shards["s2"].primary),
        )
        platform.publish(shard_map.with_slots(5, 5, "s2", shard_map.next_epoch()))
        assert shards._routing.refresh()
        assert not any(pool.closed for pool in kept)
        platform.publish(platform.shard_map.with_primary("s1", replica, home="us-east-1"))
        assert shards._routing.refresh()
        assert [pool.closed for pool in kept] == [True, True, False]
        empty = platform.shard_map.with_slots(5, 5, "s1", platform.shard_map.next_epoch())
        platform.publish(empty.without_shard("s2"))
        assert shards._routing.refresh()
        assert kept[2].closed


@pytest.fixture
async def valkey(platform: Platform) -> AsyncIterator[Redis]:
    client = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    yield client
    await client.aclose()


async def sent(valkey: Redis) -> list[int]:
    entries: Any = await valkey.xrange(STREAM)
    return sorted(decode(fields).id for _, fields in entries)


async def test_an_event_is_relayed_by_the_shard_that_owns_its_slot_and_by_no_other(
    platform: Platform, pair: Pair, valkey: Redis
) -> None:
    context = _context(platform.settings("orders"))
    context.routing.refresh()
    relay = Relay(context.settings, context.routing, context.shards, context.streams, context.clock)
    try:
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
    finally:
        context.shards.close()
        await context.streams.close()


async def test_what_was_handed_over_while_it_was_sent_is_marked_by_the_new_owner_only(
    platform: Platform, pair: Pair, valkey: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(platform.settings("orders"))
    context.routing.refresh()
    relay = Relay(context.settings, context.routing, context.shards, context.streams, context.clock)
    publishing = context.streams.publish

    async def handing_over(*arguments: Any) -> None:
        await publishing(*arguments)
        monkeypatch.setattr(context.streams, "publish", publishing)
        # Nobody who drains the slot has to wait for the relay.
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7411"
        assert await pair.one.fetchval(locks) == 0
        platform.publish(await pair.hand_over(slot_of(BOB)))

    monkeypatch.setattr(context.streams, "publish", handing_over)
    try:
        await pair.one.execute(INSERT, BOB, 2, '{"order_id": 2}')
        await pair.copy("outbox")
        assert await relay.once("s1") == 1
        context.routing.refresh()
        assert [await relay.once("s1"), await relay.once("s2"), await relay.once("s2")] == [0, 1, 0]
        assert await sent(valkey) == [2, 2]
    finally:
        context.shards.close()
        await context.streams.close()


async def test_slots_that_come_just_after_the_queue_was_lost_have_their_events_sent_again(
    platform: Platform, pair: Pair, valkey: Redis
) -> None:
    """The loss may not have been noticed where they came from."""
    context = _context(platform.settings("orders"))
    context.routing.refresh()
    relay = Relay(context.settings, context.routing, context.shards, context.streams, context.clock)
    try:
        platform.publish(await pair.hand_over(slot_of(ADA)))
        context.routing.refresh()
        await pair.one.execute(INSERT, BOB, 2, '{"order_id": 2}')
        assert [await relay.check("s1"), await relay.check("s2"), await relay.once("s1")] == [
            0,
            0,
            1,
        ]
        await pair.copy("outbox")
        await valkey.flushall()
        assert await relay.check("s2") == 0
        platform.publish(await pair.hand_over(slot_of(BOB)))
        context.routing.refresh()
        assert [await relay.check("s1"), await relay.check("s2")] == [0, 1]
        assert [await relay.check("s2"), await relay.once("s2")] == [0, 1]
        assert await sent(valkey) == [2]
    finally:
        context.shards.close()
        await context.streams.close()


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


async def test_a_batch_of_orders_is_known_to_be_lost_only_where_all_its_slots_are_served(
    platform: Platform, pair: Pair
) -> None:
    orders = [(9 << 22) | (slot << 12) for slot in (3, 4)]

    async def served(connection: Connection, _: Placement) -> bool:
        return await payments.all_served(connection, orders)

    with router(platform) as shards:
        assert (await shards.read(of_slot(3), served)).value
        platform.publish(await pair.hand_over(4))
        assert not (await shards.read(of_slot(3), served)).value


async def test_all_shards_are_read_again_when_slots_changed_hands_meanwhile(
    platform: Platform, pair: Pair
) -> None:
    asked: list[int] = []

    async def work(connection: Connection, slots: Any) -> list[int]:
        asked.append(len(slots))
        if len(asked) == 1:
            platform.publish(await pair.hand_over(5))
            shards._routing.refresh()
        return list(slots)

    with router(platform) as shards:
        pages = await read_by_shard(shards, shards._routing, work)
    assert asked[0] == 1024
    assert sorted(asked[1:]) == [1, 1023]
    assert sorted(slot for page in pages for slot in page) == list(range(1024))
