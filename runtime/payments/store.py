"""SQL of payments. What comes from the gateway and what is said about it are one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtime.payments.rules import Payment, Turn, advance, answer, birth
from runtime.pool import Connection
from runtime.served import owned
from runtime.shardmap import slot_of_order

COLUMNS = """
p.user_id, p.order_id, p.amount_cents, p.currency, p.method, p.status, p.cancel_requested,
p.transaction_id, p.refund_id, p.reason, p.version, p.updated_at
"""
# Always in one order, so that two transactions never wait for each other. Only for orders that
# this database has: the queue of a region that was lost may come back with events of orders that
# were lost with it, and those are not to be charged. A cancellation's row has the order's amount.
BEAR = """
INSERT INTO payments
    (user_id, order_id, amount_cents, currency, method, status, cancel_requested)
SELECT b.user_id, b.order_id,
       CASE b.method WHEN '' THEN o.total_cents ELSE b.amount_cents END,
       CASE b.method WHEN '' THEN o.currency ELSE b.currency END,
       CASE b.method WHEN '' THEN o.payment_method ELSE b.method END, b.status, b.cancel_requested
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
            $7::boolean[])
     AS b(user_id, order_id, amount_cents, currency, method, status, cancel_requested)
JOIN orders o ON o.user_id = b.user_id AND o.id = b.order_id
ORDER BY b.user_id, b.order_id
ON CONFLICT DO NOTHING
"""
# The lock is written, so the commit waits for the standby even when nothing is news.
LOCK = f"""
SELECT {COLUMNS} FROM payments p
JOIN unnest($1::bigint[], $2::bigint[]) AS wanted(user_id, order_id) USING (user_id, order_id)
ORDER BY p.user_id, p.order_id FOR UPDATE OF p
"""  # noqa: S608
SAVE = """
UPDATE payments p
SET amount_cents = n.amount_cents, currency = n.currency, method = n.method, status = n.status,
    cancel_requested = n.cancel_requested, transaction_id = n.transaction_id,
    refund_id = n.refund_id, reason = n.reason, version = p.version + 1,
    updated_at = clock_timestamp()
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
            $7::boolean[], $8::text[], $9::text[], $10::text[])
     AS n(user_id, order_id, amount_cents, currency, method, status, cancel_requested,
          transaction_id, refund_id, reason)
WHERE p.user_id = n.user_id AND p.order_id = n.order_id
"""
EMIT = """
INSERT INTO outbox (user_id, event_id, kind, payload, traceparent, created_at)
SELECT user_id, event_id, kind, payload, traceparent, clock_timestamp()
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::jsonb[], $5::text[])
     AS said(user_id, event_id, kind, payload, traceparent)
ORDER BY user_id, event_id
ON CONFLICT (user_id, event_id) DO UPDATE SET relayed_at = NULL
"""
UNFINISHED = f"""
SELECT {COLUMNS} FROM payments p
WHERE (p.status = 'pending' OR p.status = 'captured' AND p.cancel_requested)
  AND p.updated_at < clock_timestamp() - make_interval(secs => $1) AND {owned("p.user_id")}
ORDER BY p.updated_at LIMIT $2
"""  # noqa: S608
OF_ORDERS = f"""
SELECT o.id, o.user_id AS owner, o.total_cents, o.currency AS order_currency, o.payment_method,
       o.created_at AS ordered_at, {COLUMNS}
FROM orders o LEFT JOIN payments p ON p.user_id = o.user_id AND p.order_id = o.id
WHERE o.id = ANY($1::bigint[])
"""  # noqa: S608
SERVED = "SELECT count(*) FROM regionctl.served WHERE slot = ANY($1::bigint[])"
LINES = """
SELECT sku, name, quantity, unit_price_cents FROM order_items
WHERE user_id = $1 AND order_id = $2 ORDER BY sku
"""


@dataclass(frozen=True)
class Known:
    """An order and its payment: as stored, or as it will be when the order's event has come."""

    payment: Payment
    stored: bool
    ordered_at: datetime


@dataclass(frozen=True)
class Line:
    sku: str
    name: str
    quantity: int
    unit_price_cents: int


async def apply(connection: Connection, turns: Sequence[Turn]) -> list[Payment]:
    """The payments of `turns` after them; inside a guarded transaction.

    Says what is news, and answers again whoever asks. A turn of an order that this database does
    not have is passed over.
    """
    await _bear(connection, turns)
    keys = sorted({(turn.user_id, turn.order_id) for turn in turns})
    rows = await connection.fetch(LOCK, *_columns(keys, 2))
    payments: list[Payment] = []
    changed: list[Payment] = []
    said: list[tuple[Payment, str | None]] = []
    for row in rows:
        before = payment_of(row)
        mine = [t for t in turns if (t.user_id, t.order_id) == (before.user_id, before.order_id)]
        after = before
        for turn in mine:
            after = advance(after, turn.change)
        payments.append(after)
        if after != before:
            changed.append(after)
        if after != before or any(turn.asks for turn in mine):
            said.append((after, next((t.traceparent for t in mine if t.traceparent), None)))
    if changed:
        await connection.execute(
            SAVE, *_columns([[*_values(p), p.transaction_id, p.refund_id, p.reason]
                             for p in changed], 10)
        )  # fmt: skip
    await _emit(connection, said)
    return payments


async def _bear(connection: Connection, turns: Iterable[Turn]) -> None:
    """Rows for the orders that have none: as the first of an order's turns wants them.

    Where an order is made and cancelled in one batch, whichever comes first, the making counts:
    the row then has its amount.
    """
    born: dict[int, Payment] = {}
    for turn in turns:
        made = birth(turn)
        if made and (turn.order_id not in born or not made.cancel_requested):
            born[turn.order_id] = made
    if born:
        await connection.execute(BEAR, *_columns([_values(p) for p in born.values()], 7))


async def _emit(connection: Connection, said: Iterable[tuple[Payment, str | None]]) -> None:
    rows = [
        (payment.user_id, found[0], found[1], json.dumps(found[2]), trace)
        for payment, trace in said
        if (found := answer(payment))
    ]
    if rows:
        await connection.execute(EMIT, *_columns(rows, 5))


async def unfinished(connection: Connection, seconds: float, limit: int) -> list[Payment]:
    """Payments that still ask something of the gateway and have not moved for `seconds`."""
    return [payment_of(row) for row in await connection.fetch(UNFINISHED, seconds, limit)]


async def of_orders(connection: Connection, order_ids: Sequence[int]) -> dict[int, Known]:
    """By order id; an order that does not exist has none."""
    return {row["id"]: _known(row) for row in await connection.fetch(OF_ORDERS, order_ids)}


async def all_served(connection: Connection, order_ids: Iterable[int]) -> bool:
    """Whether an order that is not found here does not exist; asked before it is looked for.

    Rows of a slot that leaves in between stay for a while.
    """
    slots = {slot_of_order(id) for id in order_ids}
    found: int = await connection.fetchval(SERVED, list(slots))
    return found == len(slots)


async def lines(connection: Connection, payment: Payment) -> list[Line]:
    rows = await connection.fetch(LINES, payment.user_id, payment.order_id)
    return [Line(*row) for row in rows]


def payment_of(row: Any) -> Payment:
    return Payment(
        user_id=row["user_id"],
        order_id=row["order_id"],
        amount_cents=row["amount_cents"],
        currency=row["currency"],
        method=row["method"],
        status=row["status"],
        cancel_requested=row["cancel_requested"],
        transaction_id=row["transaction_id"],
        refund_id=row["refund_id"],
        reason=row["reason"],
        version=row["version"],
        updated_at=row["updated_at"],
    )


def _known(row: Any) -> Known:
    if row["order_id"] is not None:
        return Known(payment_of(row), True, row["ordered_at"])
    expected = Payment(
        user_id=row["owner"],
        order_id=row["id"],
        amount_cents=row["total_cents"],
        currency=row["order_currency"],
        method=row["payment_method"],
        version=0,
        updated_at=row["ordered_at"],
    )
    return Known(expected, False, row["ordered_at"])


def _values(p: Payment) -> list[Any]:
    return [
        p.user_id, p.order_id, p.amount_cents, p.currency, p.method, p.status, p.cancel_requested
    ]  # fmt: skip


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[index] for row in rows] for index in range(width)]
