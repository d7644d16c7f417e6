"""Users, orders and inventory over real databases and a real queue."""

from __future__ import annotations

import pytest

from runtime import checks
from runtime.clock import SystemClock, wait_until
from runtime.shardmap import CATALOG
from tests.runtime.conftest import Platform

pytestmark = pytest.mark.process


async def register(platform: Platform, email: str = "ada@example.org") -> str:
    async with platform.service("users") as users:
        answer = await users.post(
            "/api/v1/users",
            json={"email": email, "name": "Ada"},
            headers={"Idempotency-Key": f"user-{email}"},
        )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_an_order_is_placed_read_listed_and_takes_stock(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    body = {"user_id": user, "items": [{"sku": "MUG-ONCALL", "quantity": 2}]}
    async with platform.service("orders") as orders, platform.service("inventory") as inventory:
        placed = await orders.post("/api/v1/orders", json=body, headers={"Idempotency-Key": "k"})
        assert placed.status_code == 201, placed.text
        order = placed.json()
        assert order["total"] == {"amount": "29.00", "currency": "USD"}
        again = await orders.post("/api/v1/orders", json=body, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()) == (201, order)
        assert again.headers["idempotent-replay"] == "true"
        got = await orders.get(f"/api/v1/orders/{order['id']}")
        assert got.json() == order
        page = await orders.get("/api/v1/orders", params={"user_id": user})
        assert page.json() == {"orders": [order], "next": None}

        async def recorded() -> bool:
            return bool(await catalog_db.fetchval("SELECT count(*) FROM stock_movements"))

        await wait_until(SystemClock(), recorded, what="the stock movement", seconds=10)
        products = await inventory.get("/api/v1/products")
        assert products.status_code == 200
        found = await checks.invariants(
            {"s1": shard_db}, catalog_db, ranges=platform.shard_map.ranges, settled_seconds=0
        )
        assert [row for row in found if not row["held"]] == []
    stock = await catalog_db.fetchval("SELECT stock FROM products WHERE sku = 'MUG-ONCALL'")
    assert stock == checks.INITIAL_STOCK - 2
    assert platform.shard_map.shards[CATALOG].epoch == 1
