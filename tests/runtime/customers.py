"""What a customer does, for tests: register, log in, and place orders."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from runtime import checks
from runtime.clock import SystemClock, wait_until
from tests.runtime.conftest import Platform
from tests.runtime.tokens import bearer

PASSWORD = "correct horse battery"


def with_key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def new_user(email: str = "ada@example.org") -> dict[str, str]:
    return {"email": email, "name": "Ada", "password": PASSWORD}


async def register(platform: Platform, email: str = "ada@example.org") -> str:
    """The id of a new user, whose password is `PASSWORD`."""
    async with platform.service("users") as users:
        answer = await users.post(
            "/api/v1/users", json=new_user(email), headers=with_key(f"user-{email}")
        )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def log_in(
    auth: httpx.AsyncClient, email: str = "ada@example.org", password: str = PASSWORD
) -> httpx.Response:
    form = {"grant_type": "password", "username": email, "password": password}
    return await auth.post("/oauth/token", data=form)


async def sign_in(
    platform: Platform, client: httpx.AsyncClient, user: str | None = None, role: str = "service"
) -> None:
    """All that `client` sends from now on is sent by `user`, or by a client of this role."""
    as_role = "user" if user else role
    client.headers.update(await bearer(platform, user_id=user, role=as_role))


async def place(
    client: httpx.AsyncClient,
    user: str,
    key: str,
    sku: str = "MUG-ONCALL",
    quantity: int = 1,
    *,
    method: str = "card",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """`headers`: the token, unless the client sends one by itself (`client.headers.update`)."""
    items = [{"sku": sku, "quantity": quantity}]
    body = {"user_id": user, "items": items, "payment_method": method}
    return await client.post(
        "/api/v1/orders", json=body, headers={**with_key(key), **(headers or {})}
    )


async def until_recorded(catalog_db: checks.Database, events: int) -> None:
    async def recorded() -> bool:
        found = await catalog_db.fetchval("SELECT count(DISTINCT event_id) FROM stock_movements")
        return bool(found >= events)

    await wait_until(SystemClock(), recorded, what="the stock movements", seconds=30)
