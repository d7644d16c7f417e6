"""What a customer does, for tests: register, and place orders."""

from __future__ import annotations

import httpx

from runtime import checks
from runtime.clock import SystemClock, wait_until
from tests.runtime.conftest import Platform


def with_key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def register(platform: Platform, email: str = "ada@example.org") -> str:
    async with platform.service("users") as users:
        body = {"email": email, "name": "Ada"}
        answer = await users.post("/api/v1/users", json=body, headers=with_key(f"user-{email}"))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def place(
    client: httpx.AsyncClient, user: str, key: str, sku: str = "MUG-ONCALL", quantity: int = 1
) -> httpx.Response:
    body = {"user_id": user, "items": [{"sku": sku, "quantity": quantity}]}
    return await client.post("/api/v1/orders", json=body, headers=with_key(key))


async def until_recorded(catalog_db: checks.Database, events: int) -> None:
    async def recorded() -> bool:
        found = await catalog_db.fetchval("SELECT count(DISTINCT event_id) FROM stock_movements")
        return bool(found >= events)

    await wait_until(SystemClock(), recorded, what="the stock movements", seconds=10)
