"""SQL of orders. Placing one is a single statement: fence, order, lines and event, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtime import outbox
from runtime.errors import Invalid, NotFound
from runtime.events import Event, Kind, event_id
from runtime.orders.rules import Advance, Line, Order, Price, Saga, keywords, question
from runtime.pool import Connection
from runtime.served import owned
from runtime.shardmap import Placement

PLACE = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint)),
placed AS (
    INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency,
                        total_cents, created_at, updated_at, payment_method, keywords)
    SELECT $3::bigint, $4::bigint, $5::text, $6::bytea, 'placed', $7::text,
           $8::bigint, $9::timestamptz, $9::timestamptz, $14::text, $15::text
    FROM fence
    WHERE EXISTS (SELECT FROM users WHERE users.user_id = $3::bigint)
    ON CONFLICT (user_id, idempotency_key) DO NOTHING
    RETURNING user_id, id
),
lines AS (
    INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents, name)
    SELECT placed.user_id, placed.id, line.sku, line.quantity, line.cents, line.name
    FROM placed,
         unnest($10::text[], $11::int[], $12::bigint[], $16::text[]) AS line(sku, quantity, cents, name)
),
event AS (
    INSERT INTO outbox (user_id, event_id, kind, payload, traceparent, created_at)
    SELECT placed.user_id, placed.id, 'OrderCreated', $13::jsonb, $17::text, $9::timestamptz
    FROM placed
)
SELECT pg_current_xact_id()::text AS xid FROM placed
"""  # noqa: E501
COLUMNS = """
o.id, o.user_id, o.status, o.stock, o.payment, o.reason, o.currency, o.total_cents,
o.payment_method, o.created_at, o.updated_at, o.version,
(SELECT json_agg(json_build_array(i.sku, i.quantity, i.unit_price_cents, i.name) ORDER BY i.sku)
 FROM order_items i WHERE i.user_id = o.user_id AND i.order_id = o.id) AS lines
"""
# The empty message makes the commit wait for the standby: an order found here may be one whose
# own commit is not confirmed there.
CONFIRM = "SELECT pg_logical_emit_message(true, 'regionctl.replay', '')"
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
LOCK = """
SELECT user_id, id, status, stock, payment, reason FROM orders
WHERE (user_id, id) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))
ORDER BY user_id, id FOR UPDATE
"""
CHANGE = """
UPDATE orders SET status = new.status, stock = new.stock, payment = new.payment,
    reason = new.reason, version = version + 1, updated_at = clock_timestamp()
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
     AS new(user_id, id, status, stock, payment, reason)
WHERE orders.user_id = new.user_id AND orders.id = new.id
"""
MANY = f"""
SELECT {COLUMNS} FROM orders o
WHERE (o.user_id, o.id) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))
"""  # noqa: S608
XID = "SELECT pg_current_xact_id()::text"
# The condition is that of the index orders_unsettled.
UNSETTLED = f"""
SELECT user_id, id, status, stock, payment, reason, updated_at, clock_timestamp() AS now
FROM orders
WHERE (status = 'placed' OR status = 'cancelled' AND NOT (stock IN ('refused', 'returned')
                                         AND payment IN ('declined', 'void', 'refunded')))
  AND updated_at < clock_timestamp() - make_interval(secs => $1::float8)
  AND (updated_at, id) > ($2, $3) AND {owned()}
ORDER BY updated_at, id LIMIT $4
"""  # noqa: S608
ASKED = """
SELECT e.event_id, e.relayed_at
FROM unnest($1::bigint[], $2::bigint[]) AS asked(user_id, event_id)
JOIN outbox e ON e.user_id = asked.user_id AND e.event_id = asked.event_id
"""
PRICES = "SELECT sku, price_cents, currency, name FROM products WHERE sku = ANY($1::text[])"
ALL_PRICES = "SELECT sku, price_cents, currency, name FROM products ORDER BY sku LIMIT 10000"

# (user id, order id)
Key = tuple[int, int]
Decide = Callable[[Saga], Advance]


@dataclass(frozen=True)
class Placed:
    order: Order
    xid: int
    fresh: bool


@dataclass(frozen=True)
class Waiting:
    """An order that is not settled. `asked`: when its question was sent last; None: never."""

    key: Key
    saga: Saga
    changed: datetime
    asked: datetime | None
    now: datetime


async def place(
    connection: Connection,
    where: Placement,
    draft: Order,
    key: str,
    digest: bytes,
    traceparent: str | None,
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
        json.dumps(_payload(draft, "OrderCreated")),
        draft.payment_method,
        keywords(draft),
        [line.name for line in draft.lines],
        traceparent,
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
    return Placed(order_of(row), int(row["xid"]), row["id"] == draft.id)


async def get(connection: Connection, id: int) -> Order | None:
    row = await connection.fetchrow(GET, id)
    return order_of(row) if row else None


async def page(connection: Connection, user_id: int, before: int, limit: int) -> list[Order]:
    """The user's newest orders whose id is below `before`."""
    return [order_of(row) for row in await connection.fetch(PAGE, user_id, before, limit)]


async def change(
    connection: Connection,
    decisions: Mapping[Key, Decide],
    traceparents: Mapping[Key, str | None],
) -> list[Order]:
    """Every order is as its decision says and the events that ask for it are in the outbox.

    Inside a guarded transaction. Returns the orders that changed or asked; an order that does
    not exist, because a failover between regions lost it, is left out.
    """
    rows = await connection.fetch(LOCK, *zip(*sorted(decisions), strict=True))
    found = {(row["user_id"], row["id"]): saga_of(row) for row in rows}
    advances = {key: decisions[key](saga) for key, saga in found.items()}
    changed = {key: after.saga for key, after in advances.items() if after.saga != found[key]}
    if changed:
        await connection.execute(
            CHANGE,
            [user for user, _ in changed],
            [id for _, id in changed],
            [saga.status for saga in changed.values()],
            [saga.stock for saga in changed.values()],
            [saga.payment for saga in changed.values()],
            [saga.reason for saga in changed.values()],
        )
    emits = {key: after.emit for key, after in advances.items() if after.emit}
    if not changed and not emits:
        return []
    keys = sorted({*changed, *emits})
    orders = [order_of(row) for row in await connection.fetch(MANY, *zip(*keys, strict=True))]
    events = [
        Event(
            event_id(order.id, kind),
            kind,
            _payload(order, kind),
            traceparents.get((order.user_id, order.id)),
        )
        for order in orders
        if (kind := emits.get((order.user_id, order.id)))
    ]
    await outbox.emit(connection, events)
    return orders


async def confirm(connection: Connection) -> int:
    """The transaction's commit waits for the standby, even if it changed nothing. Its id."""
    await connection.execute(CONFIRM)
    return int(await connection.fetchval(XID))


async def unsettled(
    connection: Connection, seconds: float, after: tuple[datetime, int], limit: int
) -> list[Waiting]:
    """Orders that have not changed for `seconds` and wait for an answer, oldest change first."""
    rows = await connection.fetch(UNSETTLED, seconds, *after, limit)
    asks = [event_id(row["id"], question(saga_of(row)) or "OrderCreated") for row in rows]
    found = await connection.fetch(ASKED, [row["user_id"] for row in rows], asks)
    # A question that is yet to be sent counts as asked now.
    asked = {row["event_id"]: row["relayed_at"] for row in found}
    return [
        Waiting(
            (row["user_id"], row["id"]),
            saga_of(row),
            row["updated_at"],
            (asked[ask] or row["now"]) if ask in asked else None,
            row["now"],
        )
        for row, ask in zip(rows, asks, strict=True)
    ]


async def prices(connection: Connection, skus: Sequence[str] | None) -> dict[str, Price]:
    """Prices of `skus` in the catalog; None asks for the first 10 000 products."""
    if skus is None:
        rows = await connection.fetch(ALL_PRICES)
    else:
        rows = await connection.fetch(PRICES, skus)
    return {row["sku"]: Price(row["price_cents"], row["currency"], row["name"]) for row in rows}


def saga_of(row: Any) -> Saga:
    return Saga(row["status"], row["stock"], row["payment"], row["reason"])


def order_of(row: Any) -> Order:
    return Order(
        id=row["id"],
        user_id=row["user_id"],
        saga=saga_of(row),
        currency=row["currency"],
        total_cents=row["total_cents"],
        payment_method=row["payment_method"],
        lines=tuple(Line(*line) for line in json.loads(row["lines"] or "[]")),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        version=row["version"],
    )


def _payload(order: Order, kind: Kind) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "order_id": order.id,
        "user_id": order.user_id,
        "items": [[line.sku, line.quantity] for line in order.lines],
    }
    if kind == "OrderCancelled":
        return payload | {"reason": order.saga.reason}
    return payload | {
        "total_cents": order.total_cents,
        "currency": order.currency,
        "payment_method": order.payment_method,
    }
