"""The native copy of a move beside plain COPY of the same rows: a section of RESULTS.md.

    python benchmarks/copy_rows.py [--users N] [--orders N] [--rounds N]

Two servers, one run; rounds alternate between the two ways, and the fastest of each counts. Plain:
`COPY (SELECT ...) TO STDOUT (FORMAT binary)` piped into `COPY ... FROM STDIN (FORMAT binary)`, one
table after the other. Native: `LocalMoves.start` until every table follows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import results

sys.path.insert(0, str(Path(__file__).parent.parent))

from infra.local.moves.sides import TABLES, within
from runtime.clock import SystemClock, wait_until
from tests.infra import moving
from tests.infra.moving import S1, S2, Pair

TITLE = "The copy of a move beside plain COPY"
FIRST, LAST = 0, 511
RANGES = ((FIRST, LAST),)
COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
FILL = (
    """
    INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at)
    SELECT n, n || '@example.org', 'User ' || n, 'key', '\\x00', now()
    FROM generate_series(1, {users}) AS n
    """,
    """
    INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency, total_cents,
                        created_at, keywords)
    SELECT user_id, user_id * 1000 + n, 'order ' || n, sha256(n::text::bytea), 'confirmed', 'USD',
           n * 100, now(), 'tea pot blue ' || n
    FROM users, generate_series(1, {orders}) AS n
    """,
    """
    INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents, name)
    SELECT user_id, id, 'sku-' || n, n, 100, 'A thing ' || n
    FROM orders, generate_series(1, 2) AS n
    """,
    """
    INSERT INTO outbox (user_id, event_id, kind, payload, created_at, relayed_at)
    SELECT user_id, id, 'OrderCreated', jsonb_build_object('order_id', id), now(), now() FROM orders
    """,
)


async def plain(pair: Pair) -> tuple[float, int]:
    """(seconds, rows) of a COPY through this process; what it copied is removed again."""
    source, target = await pair.connect(S1), await pair.connect(S2)
    await target.execute("SET session_replication_role = replica")
    began, rows = time.monotonic(), 0
    for table in TABLES:
        columns = await source.fetchval(COLUMNS, f"public.{table}")
        rows += await _pipe(source, target, table, columns)
    took = time.monotonic() - began
    await empty(target)
    source.terminate()
    target.terminate()
    return took, rows


async def _pipe(source: Any, target: Any, table: str, columns: str) -> int:
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(64)

    async def received() -> Any:
        while (piece := await pieces.get()) is not None:
            yield piece

    async def send() -> None:
        query = f"SELECT {columns} FROM public.{table} WHERE {within(RANGES)}"
        await source.copy_from_query(query, output=pieces.put, format="binary")
        await pieces.put(None)

    names = [each.strip() for each in columns.split(",")]
    _, status = await asyncio.gather(
        send(),
        target.copy_to_table(table, source=received(), columns=names, format="binary"),
    )
    return int(status.split()[-1])


async def native(pair: Pair) -> tuple[float, int]:
    """(seconds, rows) until the target follows; the move is taken down again."""
    move = pair.begin(FIRST, LAST)
    began = time.monotonic()
    await pair.moves.start(move, pair.map)
    await wait_until(
        SystemClock(), lambda: _follows(pair, move.id), what="copy", seconds=300, every=0.01
    )
    took = time.monotonic() - began
    target = await pair.connect(S2)
    counts = [await target.fetchval(f"SELECT count(*) FROM public.{name}") for name in TABLES]
    await pair.moves.finish(move, pair.map)
    pair.map = pair.map.without_move(move.id)
    await empty(target)
    target.terminate()
    return took, sum(counts)


async def _follows(pair: Pair, move: int) -> bool:
    query = (
        "SELECT count(*) FILTER (WHERE srsubstate <> 'r') = 0 AND count(*) > 0 "
        f"FROM pg_subscription_rel JOIN pg_subscription s ON s.oid = srsubid "
        f"WHERE s.subname = 'move_{move}_fwd'"
    )
    return bool(await pair.moves._monitor.row(S2, query, seconds=5) == (True,))


async def empty(target: Any) -> None:
    """The target's tables are as good as new."""
    await target.execute(f"TRUNCATE {', '.join(TABLES)}")
    await target.execute("CHECKPOINT")


async def measure(pair: Pair, users: int, orders: int, rounds: int) -> str:
    source = await pair.connect(S1)
    for statement in FILL:
        await source.execute(statement.format(users=users, orders=orders))
    await source.execute("VACUUM ANALYZE")
    source.terminate()
    best: dict[str, float] = {}
    rows: dict[str, int] = {}
    for number in range(rounds):
        for name, way in (("plain", plain), ("native", native)):
            took, rows[name] = await way(pair)
            best[name] = min(took, best.get(name, took))
            print(f"round {number + 1} {name}: {rows[name]} rows, {took:.2f} s", file=sys.stderr)
    assert rows["plain"] == rows["native"], rows
    lines = [
        f"{rows['plain']} rows of half of the slots, in {len(TABLES)} tables with their indexes; "
        f"both servers have a standby in sync. Best of {rounds} rounds.",
        "",
        "| way | seconds | rows a second |",
        "|---|---|---|",
        *(f"| {name} | {took:.2f} | {rows[name] / took:,.0f} |" for name, took in best.items()),
        "",
        f"Native copy: {best['plain'] / best['native']:.2f} x plain COPY (bar: 0.8).",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=36000)
    parser.add_argument("--orders", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with moving.pair() as run:
        text = run(lambda pair: measure(pair, options.users, options.orders, options.rounds))
    results.replace(TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
