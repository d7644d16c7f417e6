"""SQL of the catalog: products, and the stock that orders take."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.inventory.rules import Demand, Product, settle
from runtime.pool import Connection
from runtime.shardmap import Placement

PRODUCTS = "SELECT sku, name, price_cents, currency, stock FROM products ORDER BY sku LIMIT 500"
# In one order always, so that two consumers never wait for each other.
LOCK = "SELECT sku, stock FROM products WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE"
KNOWN = "SELECT DISTINCT event_id FROM stock_movements WHERE event_id = ANY($1::bigint[])"
RECORD = """
INSERT INTO stock_movements (event_id, order_id, user_id, sku, quantity, outcome)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::int[], $6::text[])
"""
TAKE = """
UPDATE products SET stock = stock - taken.quantity
FROM unnest($1::text[], $2::bigint[]) AS taken(sku, quantity) WHERE products.sku = taken.sku
"""


async def products(connection: Connection) -> list[Product]:
    """The first 500 products, by SKU."""
    return [Product(*row) for row in await connection.fetch(PRODUCTS)]


async def record(connection: Connection, place: Placement, demands: Sequence[Demand]) -> int:
    """Every demand has its movements and the stock is less by them, both or neither.

    Returns how many movements are new. The products are locked before the known events are read,
    so of two consumers that got the same event the second sees what the first did.
    """
    async with connection.transaction():
        await connection.execute("SELECT regionctl.guard($1, $2)", place.slot, place.epoch)
        skus = sorted({sku for demand in demands for sku, _ in demand.items})
        stock = {row["sku"]: row["stock"] for row in await connection.fetch(LOCK, skus)}
        events = [demand.event_id for demand in demands]
        known = frozenset(row[0] for row in await connection.fetch(KNOWN, events))
        movements, taken = settle(demands, stock, known)
        if movements:
            await connection.execute(
                RECORD,
                [m.event_id for m in movements],
                [m.order_id for m in movements],
                [m.user_id for m in movements],
                [m.sku for m in movements],
                [m.quantity for m in movements],
                [m.outcome for m in movements],
            )
        if taken:
            await connection.execute(TAKE, list(taken), list(taken.values()))
    return len(movements)
