"""A corruption of rows on purpose: one bad UPDATE and one bad DELETE, in one transaction.

Only settled orders are hit. What a service would still do by a wrong total (charge it) is money
outside, which no restore brings back. The shard remembers in `regionctl.corruption` that it was
done, in the same transaction, so that it is done once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg

from infra.local.monitor import Monitor
from infra.provider import Fault, Injected
from runtime.errors import Refused
from runtime.served import owned

ATTEMPTS = 5
SHARE, LEAST, MOST = 20, 9, 300  # one in 20 of the settled orders

RECORD = """
CREATE TABLE IF NOT EXISTS regionctl.corruption (seed bigint PRIMARY KEY, document jsonb NOT NULL)
"""
KNOWN = "SELECT document FROM regionctl.corruption WHERE seed = $1"
# Everything that this transaction sees was committed, and so written, before it asked.
POSITION = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
SETTLED = f"""
SELECT user_id, id, count(*) OVER () AS settled FROM orders
WHERE status = 'confirmed' AND updated_at < clock_timestamp() - interval '2 seconds'
  AND {owned()}
ORDER BY md5(concat($1::bigint, '/', id)) LIMIT {MOST}
"""  # noqa: S608
BAD_PRICES = """
UPDATE order_items i SET unit_price_cents = unit_price_cents * 10 + 1
FROM unnest($1::bigint[], $2::bigint[]) AS hit(user_id, id)
WHERE i.user_id = hit.user_id AND i.order_id = hit.id
"""
BAD_TOTALS = """
UPDATE orders o SET total_cents = (SELECT sum(i.quantity * i.unit_price_cents) FROM order_items i
                                   WHERE i.user_id = o.user_id AND i.order_id = o.id)
FROM unnest($1::bigint[], $2::bigint[]) AS hit(user_id, id)
WHERE o.user_id = hit.user_id AND o.id = hit.id
"""
BAD_DELETE = """
DELETE FROM {table} t USING unnest($1::bigint[], $2::bigint[]) AS hit(user_id, id)
WHERE t.user_id = hit.user_id AND t.order_id = hit.id
"""


async def corrupt(monitor: Monitor, primary: str, fault: Fault) -> Injected:
    """Raises `Refused` when there are too few settled orders."""
    async with monitor.session(primary) as connection:
        document = await once(connection, fault.seed)
    return Injected(
        document["began"],
        time.monotonic(),  # after the commit
        datetime.fromisoformat(document["at"]),
        detail=document["detail"],
    )


async def forget(monitor: Monitor, primary: str) -> None:
    """The shard no longer remembers what was done to it. What was done stays."""
    async with monitor.session(primary) as connection:
        await connection.execute("DROP TABLE IF EXISTS regionctl.corruption")


async def once(connection: Any, seed: int) -> Any:
    """What was done, and the position in the WAL before it, now or by an earlier call."""
    await connection.execute(RECORD)
    for attempt in range(ATTEMPTS):
        try:
            async with connection.transaction(isolation="repeatable_read"):
                known = await connection.fetchval(KNOWN, seed)
                return json.loads(known) if known else await _spoil(connection, seed)
        except asyncpg.SerializationError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


async def _spoil(connection: Any, seed: int) -> dict[str, Any]:
    began, at = time.monotonic(), datetime.now(UTC)
    lsn = await connection.fetchval(POSITION)
    settled = await connection.fetch(SETTLED, seed)
    if len(settled) < LEAST:
        raise Refused(
            f"Only {len(settled)} orders of the shard are settled: too few to corrupt some.",
            hint="wait until more orders were made",
        )
    hit = settled[: max(LEAST, min(MOST, settled[0]["settled"] // SHARE))]
    priced, unlisted, unpaid = (_columns(hit[third::3]) for third in range(3))
    lines = await connection.execute(BAD_PRICES, *priced)
    orders = await connection.execute(BAD_TOTALS, *priced)
    items = await connection.execute(BAD_DELETE.format(table="order_items"), *unlisted)
    payments = await connection.execute(BAD_DELETE.format(table="payments"), *unpaid)
    document = {
        "began": began,
        "at": at.isoformat(),
        "detail": {
            "lsn": lsn,
            "changed": {"order_items": _count(lines), "orders": _count(orders)},
            "deleted": {"order_items": _count(items), "payments": _count(payments)},
        },
    }
    await connection.execute(
        "INSERT INTO regionctl.corruption VALUES ($1, $2)", seed, json.dumps(document)
    )
    return document


def _columns(rows: Sequence[Any]) -> tuple[list[int], list[int]]:
    return [row["user_id"] for row in rows], [row["id"] for row in rows]


def _count(status: str) -> int:
    return int(status.split()[-1])
