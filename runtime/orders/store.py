"""SQL of orders. Placing one is a single statement: fence, order, lines and event, or nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import Invalid, NotFound
from runtime.orders.rules import Line, Order, Price
from runtime.pool import Connection
from runtime.shardmap import Placement

PLACE = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint)),
placed AS (
    INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency,
                        total_cents, created_at)
    SELECT $3::bigint, $4::bigint, $5::text, $6::bytea, 'placed', $7::text,
           $8::bigint, $9::timestamptz
    FROM fence
    WHERE EXISTS (SELECT FROM users WHERE users.user_id = $3::bigint)
    ON CONFLICT (user_id, idempotency_key) DO NOTHING
    RETURNING user_id, id
),
lines AS (
    INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents)
    SELECT placed.user_id, placed.id, line.sku, line.quantity, line.cents
    FROM placed, unnest($10::text[], $11::int[], $12::bigint[]) AS line(sku, quantity, cents)
),
event AS (
    INSERT INTO outbox (user_id, event_id, kind, payload, created_at)
    SELECT placed.user_id, placed.id, 'OrderCreated', $13::jsonb, $9::timestamptz FROM placed
)
SELECT pg_current_xact_id()::text AS xid FROM placed
"""
COLUMNS = """
o.id, o.user_id, o.status, o.currency, o.total_cents, o.created_at,
(SELECT json_agg(json_build_array(i.sku, i.quantity, i.unit_price_cents) ORDER BY i.sku)
 FROM order_items i WHERE i.user_id = o.user_id AND i.order_id = o.id) AS lines
"""
# The empty message makes the commit wait for the standby: an order found here may be one whose
# own commit is not confirmed there.
REPLAY = f"""
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint)),
mark AS MATERIALIZED (
    SELECT pg_logical_emit_message(true, 'regionctl.replay', '') FROM fence
)
SELECT {COLUMNS}, o.request_hash, pg_current_xact_id()::text AS xid
FROM mark, orders o WHERE o.user_id = $3::bigint AND o.idempotency_key = $4::text
"""  # noqa: S608
GET = f"SELECT {COLUMNS} FROM orders o WHERE o.id = $1"  # noqa: S608
PAGE = f"""
SELECT {COLUMNS} FROM orders o WHERE o.user_id = $1 AND o.id < $2 ORDER BY o.id DESC LIMIT $3
"""  # noqa: S608
PRICES = "SELECT sku, price_cents, currency FROM products WHERE sku = ANY($1::text[])"
ALL_PRICES = "SELECT sku, price_cents, currency FROM products ORDER BY sku LIMIT 10000"


@dataclass(frozen=True)
class Placed:
    order: Order
    xid: int
    fresh: bool


async def place(
    connection: Connection, where: Placement, draft: Order, key: str, digest: bytes
) -> Placed:
    """The order of this key: `draft`, or what the key made before.

    Raises `Invalid` when the key made something else, `NotFound` when there is no such user.
    """
    xid = await connection.fetchval(
        PLACE,
        where.slot,
        where.epoch,
        draft.user_id,
        draft.id,
        key,
        digest,
        draft.currency,
        draft.total_cents,
        draft.created_at,
        [line.sku for line in draft.lines],
        [line.quantity for line in draft.lines],
        [line.unit_price_cents for line in draft.lines],
        _event(draft),
    )
    if xid is not None:
        return Placed(draft, int(xid), True)
    row = await connection.fetchrow(REPLAY, where.slot, where.epoch, draft.user_id, key)
    if row is None:
        raise NotFound(f"There is no user {draft.user_id}.")
    if row["request_hash"] != digest:
        raise Invalid(
            "This Idempotency-Key was used for another request.",
            hint="Use a new key for a new request.",
        )
    return Placed(_order(row), int(row["xid"]), row["id"] == draft.id)


async def get(connection: Connection, id: int) -> Order | None:
    row = await connection.fetchrow(GET, id)
    return _order(row) if row else None


async def page(connection: Connection, user_id: int, before: int, limit: int) -> list[Order]:
    """The user's newest orders whose id is below `before`."""
    return [_order(row) for row in await connection.fetch(PAGE, user_id, before, limit)]


async def prices(connection: Connection, skus: Sequence[str] | None) -> dict[str, Price]:
    """Prices of `skus` in the catalog; None asks for the first 10 000 products."""
    if skus is None:
        rows = await connection.fetch(ALL_PRICES)
    else:
        rows = await connection.fetch(PRICES, skus)
    return {row["sku"]: Price(row["price_cents"], row["currency"]) for row in rows}


def _event(order: Order) -> str:
    return json.dumps(
        {
            "order_id": order.id,
            "user_id": order.user_id,
            "items": [[line.sku, line.quantity] for line in order.lines],
        }
    )


def _order(row: Any) -> Order:
    return Order(
        id=row["id"],
        user_id=row["user_id"],
        status=row["status"],
        currency=row["currency"],
        total_cents=row["total_cents"],
        lines=tuple(Line(*line) for line in json.loads(row["lines"] or "[]")),
        created_at=row["created_at"],
    )
