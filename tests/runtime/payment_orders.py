"""Orders to be paid, and what tests of payments ask about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from redis.asyncio import Redis
from starlette.types import ASGIApp

from runtime import checks
from runtime.clock import SystemClock, wait_until
from runtime.events import STREAM, Event, Kind, encode, event_id
from runtime.settings import Settings
from runtime.shardmap import slot_of
from tests.runtime.conftest import Platform
from tests.runtime.payment_peer import SECRETS
from tests.runtime.servers import PASSWORD

USER = 41
ORDER = """
INSERT INTO orders (id, user_id, status, idempotency_key, request_hash, currency, total_cents,
                    created_at) VALUES ($1, $2, 'placed', $3, '', 'EUR', 2410, now())
"""
LINE = """
INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents, name)
VALUES ($1, $2, 'MUG-ONCALL', 2, 1205, 'Mug <b>')
"""
HOOK = "/api/v1/payments/webhook"


def order_id(number: int, user: int = USER) -> int:
    return (number << 22) | (slot_of(user) << 12)


def settings(platform: Platform, url: str, **options: Any) -> Settings:
    made = platform.settings("payments")
    secrets = {**made.secrets, **SECRETS, "objectsKey": "k", "objectsSecret": "s"}
    return replace(made, payment_gateway=url, secrets=secrets, **options)


async def place(shard_db: checks.Database, numbers: Sequence[int]) -> list[int]:
    """Orders in the database, of which nobody has been told."""
    orders = [order_id(number) for number in numbers]
    for order in orders:
        await shard_db.execute(ORDER, order, USER, str(order))
        await shard_db.execute(LINE, USER, order)
    return orders


def event(order: int, kind: Kind = "OrderCreated", method: str = "card") -> Event:
    payload = {"order_id": order, "user_id": USER, "items": [["MUG-ONCALL", 2]],
               "total_cents": 2410, "currency": "EUR", "payment_method": method}  # fmt: skip
    return Event(event_id(order, kind), kind, payload)


async def tell(platform: Platform, *events: Event) -> None:
    queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    for each in events:
        await queue.xadd(STREAM, encode(each))  # type: ignore[arg-type]
    await queue.aclose()


async def statuses(shard_db: checks.Database) -> list[str]:
    rows = await shard_db.fetch("SELECT status FROM payments ORDER BY order_id")
    return [row[0] for row in rows]


async def until(shard_db: checks.Database, *expected: str, seconds: float = 15) -> None:
    found: list[str] = []

    async def reached() -> bool:
        found[:] = await statuses(shard_db)
        return found == list(expected)

    try:
        await wait_until(SystemClock(), reached, what=f"payments {expected}", seconds=seconds)
    except Exception as error:
        raise AssertionError(f"payments are {found}, not {expected}") from error


async def said(shard_db: checks.Database, order: int) -> list[tuple[str, str | None]]:
    rows = await shard_db.fetch(
        "SELECT kind, payload FROM outbox WHERE event_id = ANY($1) ORDER BY kind",
        [event_id(order, "PaymentProcessed"), event_id(order, "PaymentRefunded")],
    )
    return [(row["kind"], json.loads(row["payload"]).get("status")) for row in rows]


@asynccontextmanager
async def listening(app: ASGIApp, port: int) -> AsyncIterator[None]:
    """The application on a real port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())

    async def started() -> bool:
        return server.started

    await wait_until(SystemClock(), started, what="uvicorn", seconds=30)
    try:
        yield
    finally:
        server.should_exit = True
        await task
