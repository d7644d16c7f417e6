"""The peer of the order path: the least FastAPI program that makes the same rows.

    uvicorn minimal:create --factory        (BENCH_SHARDS: JSON list of asyncpg's arguments)

One asyncpg statement inserts order, lines and event into copies of the shards' tables. It checks
no token, no fence, no idempotency digest, no rate limit, and keeps no cache.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel

INSERT = """
WITH placed AS (
    INSERT INTO bench.orders (user_id, id, idempotency_key, request_hash, status, currency,
                              total_cents, created_at, keywords)
    VALUES ($1, $2, $3, '', 'placed', 'USD', $4, now(), $5)
    RETURNING user_id, id),
lines AS (
    INSERT INTO bench.order_items (user_id, order_id, sku, quantity, unit_price_cents, name)
    SELECT placed.user_id, placed.id, line.sku, line.quantity, 1450, line.sku
    FROM placed, unnest($6::text[], $7::int[]) AS line(sku, quantity))
INSERT INTO bench.outbox (user_id, event_id, kind, payload, created_at)
SELECT user_id, id, 'OrderCreated', $8::jsonb, now() FROM placed
"""


class Item(BaseModel):
    sku: str
    quantity: int


class NewOrder(BaseModel):
    user_id: str
    items: list[Item]


class Order(BaseModel):
    id: str
    user_id: str
    status: str
    items: list[Item]


def create() -> FastAPI:
    pools: list[asyncpg.Pool[asyncpg.Record]] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for shard in json.loads(os.environ["BENCH_SHARDS"]):
            pools.append(await asyncpg.create_pool(**shard, min_size=8, max_size=8))
        yield
        for pool in pools:
            await pool.close()

    # Not slowed down by what this project has installed beside it.
    quiet: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPI(lifespan=lifespan, telemetry=quiet)

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/api/v1/orders", status_code=201)
    async def place(body: NewOrder) -> Order:
        order_id = time.time_ns() // 1000 << 10 | secrets.randbits(10)
        pool = pools[zlib.crc32(body.user_id.encode()) % len(pools)]
        await pool.execute(
            INSERT,
            int(body.user_id),
            order_id,
            secrets.token_hex(8),
            sum(item.quantity * 1450 for item in body.items),
            " ".join(item.sku for item in body.items),
            [item.sku for item in body.items],
            [item.quantity for item in body.items],
            body.model_dump_json(),
        )
        return Order(id=str(order_id), user_id=body.user_id, status="placed", items=body.items)

    @app.get("/api/v1/orders/{order_id}")
    async def get(order_id: str) -> dict[str, Any]:
        return {
            "id": order_id,
            "user_id": "4611686018427387904",
            "status": "confirmed",
            "total": {"amount": "14.50", "currency": "USD"},
            "items": [
                {
                    "sku": "MUG-ONCALL",
                    "name": "Mug, on call",
                    "quantity": 1,
                    "unit_price": {"amount": "14.50", "currency": "USD"},
                }
            ],
            "payment": "captured",
            "stock": "reserved",
            "created_at": "2026-01-01T00:00:00+00:00",
        }

    return app
