"""Orders become events, and events take stock: once each, over a real queue."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from runtime import checks, deadletters
from runtime.clock import SystemClock, wait_until
from runtime.events import STREAM, Event, encode
from tests.runtime.conftest import Platform
from tests.runtime.customers import place, register, sign_in, until_recorded
from tests.runtime.servers import PASSWORD

pytestmark = pytest.mark.process


async def test_a_redelivered_event_takes_stock_once_and_poison_is_set_aside(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    payload = {"order_id": 77, "user_id": 1, "items": [["PAGER-RETRO", 3]]}
    good: Any = encode(Event(77, "OrderCreated", payload))
    await queue.xadd(STREAM, {"id": "1", "kind": "OrderCreated", "payload": "{}"})
    for _ in range(3):
        await queue.xadd(STREAM, good)
    await queue.xadd(STREAM, {"nonsense": "1"})
    async with platform.service("inventory"), platform.service("inventory", "b"):
        await until_recorded(catalog_db, 1)
        async with platform.service("orders") as orders:
            await sign_in(platform, orders)
            assert (await place(orders, user, "k")).status_code == 201
            await until_recorded(catalog_db, 2)
            await shard_db.execute("UPDATE outbox SET relayed_at = NULL")

            async def relayed() -> bool:
                return not await shard_db.fetchval(
                    "SELECT count(*) FROM outbox WHERE relayed_at IS NULL"
                )

            await wait_until(SystemClock(), relayed, what="the relay", seconds=30)

        async def buried() -> bool:
            letters = await deadletters.letters(queue, STREAM)
            return [letter.group for letter in letters].count("inventory") == 2

        await wait_until(SystemClock(), buried, what="the dead letters", seconds=30)
    await queue.aclose()
    stock = await catalog_db.fetchval("SELECT stock FROM products WHERE sku = 'PAGER-RETRO'")
    assert stock == checks.INITIAL_STOCK - 3
    assert await checks.return_orphan_stock({"s1": shard_db}, catalog_db) == 1
    assert await checks.return_orphan_stock({"s1": shard_db}, catalog_db) == 0
    stock = await catalog_db.fetchval("SELECT stock FROM products WHERE sku = 'PAGER-RETRO'")
    assert stock == checks.INITIAL_STOCK


async def test_events_that_the_queue_lost_are_sent_again(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        assert (await place(orders, user, "k")).status_code == 201

        async def relayed() -> bool:
            return bool(await queue.xlen(STREAM))

        await wait_until(SystemClock(), relayed, what="the relay", seconds=30)
        await queue.flushall()
        lost = await checks.invariants({"s1": shard_db}, catalog_db, settled_seconds=0)
        assert [row["name"] for row in lost if not row["held"]] == [
            "no-event-lost",
            "orders-settled",
        ]
        assert await checks.resend_events(shard_db, catalog_db) == 1
        async with platform.service("inventory"):
            await until_recorded(catalog_db, 1)
    await queue.aclose()
    found = await checks.invariants({"s1": shard_db}, catalog_db, settled_seconds=0)
    assert [row["name"] for row in found if not row["held"]] == ["orders-settled"]


async def test_too_little_stock_refuses_the_order_whole(
    platform: Platform, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    await catalog_db.execute("UPDATE products SET stock = 1 WHERE sku = 'SSD-2TB'")
    body = {
        "user_id": user,
        "items": [{"sku": "SSD-2TB", "quantity": 2}, {"sku": "MUG-ONCALL", "quantity": 1}],
    }
    async with platform.service("orders") as orders, platform.service("inventory"):
        await sign_in(platform, orders)
        assert (await orders.post("/api/v1/orders", json=body)).status_code == 201
        await until_recorded(catalog_db, 1)
    rows = await catalog_db.fetch("SELECT DISTINCT outcome FROM stock_movements")
    assert [row[0] for row in rows] == ["refused"]
    assert await catalog_db.fetchval("SELECT stock FROM products WHERE sku = 'SSD-2TB'") == 1
