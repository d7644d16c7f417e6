"""Orders, inventory, payments and a payment gateway, over a real queue, until all is at rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from runtime import checks
from runtime.app import _context
from runtime.clock import SystemClock, wait_until
from runtime.orders import consumer
from tests.runtime.conftest import Platform
from tests.runtime.customers import place, sign_in
from tests.runtime.payment_peer import SECRETS, PaymentPeer, payment_peer
from tests.runtime.servers import PASSWORD
from tests.runtime.test_orders import ADA, ADD_USER

pytestmark = pytest.mark.process


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[PaymentPeer]:
    async with payment_peer(tmp_path) as running:
        yield running


@pytest.fixture
async def orders(
    platform: Platform, peer: PaymentPeer, shard_db: checks.Database
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of orders, signed in as a service; inventory and payments run beside it."""
    await shard_db.execute(ADD_USER, int(ADA), "ada@example.org")
    made = platform.settings("payments")
    secrets = {**made.secrets, **SECRETS, "objectsKey": "k", "objectsSecret": "s"}
    payments = replace(made, payment_gateway=peer.url, secrets=secrets)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(platform.service("inventory"))
        await stack.enter_async_context(platform.service("payments", settings=payments))
        client = await stack.enter_async_context(platform.service("orders"))
        await sign_in(platform, client)
        yield client


async def until(client: httpx.AsyncClient, order: str, **expected: Any) -> dict[str, Any]:
    """The order, once it has these members. Every look is answered from the cache, if it can be."""
    seen: dict[str, Any] = {}

    async def reached() -> bool:
        seen.update((await client.get(f"/api/v1/orders/{order}")).json())
        return {**seen, **expected} == seen

    try:
        await wait_until(SystemClock(), reached, what="the order", seconds=30)
    except Exception as error:
        raise AssertionError(f"{seen} has not {expected}") from error
    return seen


async def stock_of(catalog_db: checks.Database, sku: str) -> int:
    return int(await catalog_db.fetchval("SELECT stock FROM products WHERE sku = $1", sku))


async def test_orders_are_confirmed_or_leave_no_trace_in_stock_and_money(
    orders: httpx.AsyncClient,
    peer: PaymentPeer,
    shard_db: checks.Database,
    catalog_db: checks.Database,
) -> None:
    await catalog_db.execute("UPDATE products SET stock = 1 WHERE sku = 'SSD-2TB'")
    good = (await place(orders, ADA, "good", quantity=2)).json()["id"]
    scarce = (await place(orders, ADA, "scarce", sku="SSD-2TB", quantity=2)).json()["id"]
    poor = (await place(orders, ADA, "poor", sku="DESK-OAK", method="card-declined")).json()["id"]
    await until(orders, good, status="confirmed", stock="reserved", payment="captured")
    await until(
        orders, poor, status="cancelled", reason="payment-declined", stock="returned",
        payment="declined",
    )  # fmt: skip
    refused = await until(orders, scarce, status="cancelled", stock="refused")
    assert refused["reason"] == "out-of-stock"
    assert await stock_of(catalog_db, "MUG-ONCALL") == checks.INITIAL_STOCK - 2
    assert await stock_of(catalog_db, "DESK-OAK") == checks.INITIAL_STOCK
    cancelled = await orders.post(f"/api/v1/orders/{good}/cancel")
    assert cancelled.json()["reason"] == "requested"
    await until(orders, good, status="cancelled", stock="returned", payment="refunded")
    assert await stock_of(catalog_db, "MUG-ONCALL") == checks.INITIAL_STOCK
    assert [charge["status"] for charge in await peer.charges(good)] == ["refunded"]

    async def at_rest() -> bool:
        found = await checks.invariants({"s1": shard_db}, catalog_db, settled_seconds=0)
        broken = [row["name"] for row in found if not row["held"]]
        # The test took stock away by hand.
        return set(broken) <= {"stock-conserved", "directory-complete"}

    await wait_until(SystemClock(), at_rest, what="all to settle", seconds=30)


async def test_a_queue_lost_half_way_costs_no_order(
    platform: Platform, orders: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    made = [(await place(orders, ADA, f"k{n}")).json()["id"] for n in range(5)]
    await queue.flushall()
    made += [(await place(orders, ADA, f"l{n}")).json()["id"] for n in range(5)]
    for order in made:
        await until(orders, order, status="confirmed")
    await queue.aclose()


async def test_an_order_whose_answer_was_lost_asks_again(
    platform: Platform, orders: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    order = (await place(orders, ADA, "k")).json()["id"]
    await until(orders, order, status="confirmed")
    await shard_db.execute(
        "UPDATE orders SET status = 'placed', stock = 'pending', version = version + 1, "
        "updated_at = now() - interval '1 hour' WHERE id = $1",
        int(order),
    )
    await shard_db.execute("UPDATE outbox SET relayed_at = now() - interval '1 hour'")
    context = _context(platform.settings("orders", "b"))
    context.routing.refresh()
    assert await consumer.ask_again(context, "s1", timedelta(seconds=1)) == 1
    again = {"Cache-Control": "no-cache"}

    async def confirmed() -> bool:
        answer = await orders.get(f"/api/v1/orders/{order}", headers=again)
        return bool(answer.json()["status"] == "confirmed")

    await wait_until(SystemClock(), confirmed, what="the answer", seconds=30)
    assert await consumer.ask_again(context, "s1", timedelta(seconds=1)) == 0
    context.shards.close()
    await context.cache.close()
    await context.streams.close()
