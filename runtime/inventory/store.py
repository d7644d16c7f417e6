"""SQL of products and their stock, in the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime import outbox
from runtime.errors import Invalid, NotFound
from runtime.inventory.rules import Claim, Product, Question, Settled, settle
from runtime.pool import Connection
from runtime.shardmap import Placement

GUARD = "SELECT regionctl.guard($1, $2)"
COLUMNS = "sku, name, price_cents, currency, stock, version"
PRODUCTS = f'SELECT {COLUMNS} FROM products ORDER BY sku COLLATE "C" LIMIT 10000'  # noqa: S608
# In one order always, so that two consumers never wait for each other.
LOCK = "SELECT sku, stock FROM products WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE"
KNOWN = """
SELECT event_id, min(outcome) AS outcome, array_agg(sku ORDER BY sku) AS skus,
       array_agg(quantity ORDER BY sku) AS quantities
FROM stock_movements WHERE event_id = ANY($1::bigint[]) GROUP BY event_id
"""
RECORD = """
INSERT INTO stock_movements (event_id, order_id, user_id, sku, quantity, outcome)
SELECT id, id, user_id, sku, quantity, outcome
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::int[], $5::text[])
     AS moved(id, user_id, sku, quantity, outcome)
"""
RETURN = """
UPDATE stock_movements SET outcome = 'returned'
WHERE event_id = ANY($1::bigint[]) AND outcome = 'reserved'
"""
CHANGE = """
UPDATE products SET stock = stock + changed.by, version = version + 1
FROM unnest($1::text[], $2::bigint[]) AS changed(sku, by) WHERE products.sku = changed.sku
"""
FIND = f"SELECT {COLUMNS} FROM products WHERE sku = $1 FOR UPDATE"  # noqa: S608
ADD = """
INSERT INTO stock_movements (event_id, order_id, user_id, sku, quantity, outcome)
VALUES ($1, $1, 0, $2, $3, 'added') ON CONFLICT DO NOTHING RETURNING true
"""
EDIT = f"""
UPDATE products
SET name = $2, price_cents = $3, stock = stock + $4, initial_stock = initial_stock + $4,
    version = version + 1
WHERE sku = $1 RETURNING {COLUMNS}, pg_current_xact_id()::text AS xid
"""  # noqa: S608


@dataclass(frozen=True)
class Edit:
    """None leaves things as they are. `add` is added to the stock, once for the same `key`."""

    sku: str
    key: int
    name: str | None = None
    price_cents: int | None = None
    currency: str | None = None
    add: int = 0


async def products(connection: Connection) -> list[Product]:
    """The first 10 000 products, by SKU."""
    return [Product(*row) for row in await connection.fetch(PRODUCTS)]


async def record(connection: Connection, place: Placement, questions: Sequence[Question]) -> bool:
    """Every question is recorded, the stock changed and the answers to be sent, or nothing.

    Returns whether any stock changed. The products are locked before the known claims are read,
    so of two consumers that got events of one order the second sees what the first did.
    """
    async with connection.transaction():
        await connection.execute(GUARD, place.slot, place.epoch)
        skus = sorted({sku for question in questions for sku, _ in question.items})
        stock = {row["sku"]: row["stock"] for row in await connection.fetch(LOCK, skus)}
        orders = [question.order_id for question in questions]
        known = {row["event_id"]: _claim(row) for row in await connection.fetch(KNOWN, orders)}
        settled = settle(questions, stock, known)
        await _write(connection, settled)
    return bool(settled.changes)


async def _write(connection: Connection, settled: Settled) -> None:
    if new := settled.movements:
        await connection.execute(
            RECORD,
            [movement.order_id for movement in new],
            [movement.user_id for movement in new],
            [movement.sku for movement in new],
            [movement.quantity for movement in new],
            [movement.outcome for movement in new],
        )
    if settled.returned:
        await connection.execute(RETURN, settled.returned)
    if settled.changes:
        await connection.execute(CHANGE, list(settled.changes), list(settled.changes.values()))
    await outbox.emit(connection, settled.answers)


async def edit(connection: Connection, place: Placement, wish: Edit) -> tuple[Product, int]:
    """The product as it is then, and the transaction.

    Raises `NotFound`, and `Invalid` for another currency than the product has.
    """
    async with connection.transaction():
        await connection.execute(GUARD, place.slot, place.epoch)
        row = await connection.fetchrow(FIND, wish.sku)
        if row is None:
            raise NotFound(f"There is no product {wish.sku!r}.")
        if wish.currency not in (None, row["currency"]):
            raise Invalid(f"The price of {wish.sku} is in {row['currency']}.")
        add = wish.add
        if add and not await connection.fetchval(ADD, wish.key, wish.sku, add):
            add = 0
        name = row["name"] if wish.name is None else wish.name
        cents = row["price_cents"] if wish.price_cents is None else wish.price_cents
        changed: Any = await connection.fetchrow(EDIT, wish.sku, name, cents, add)
    return Product(*list(changed)[:-1]), int(changed["xid"])


def _claim(row: Any) -> Claim:
    return Claim(row["outcome"], tuple(zip(row["skus"], row["quantities"], strict=True)))
