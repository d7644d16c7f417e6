"""Checks and mendings over all databases together, for the provider.

Everything here takes raw asyncpg connections of the superuser, one a database, and is idempotent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from runtime import directory, outbox, owners, settlement
from runtime.events import TOLD
from runtime.served import served
from runtime.shardmap import Move, SlotRange, slot_of

Database = directory.Database
JSON = dict[str, Any]
PAGE = 5000

PRODUCTS = (
    ("BOOK-DDIA", "Designing data systems, paperback", 4999),
    ("BOOK-SRE", "Running reliable sites, hardback", 5450),
    ("CABLE-USB-C", "USB-C cable, 2 m", 1290),
    ("CHAIR-MESH", "Mesh office chair", 18900),
    ("COFFEE-1KG", "Coffee beans, 1 kg", 2250),
    ("DESK-OAK", "Oak desk, 160 cm", 42000),
    ("DOCK-USB4", "USB4 dock", 21900),
    ("HEADSET-BT", "Wireless headset", 12950),
    ("KEYBOARD-TKL", "Mechanical keyboard, compact", 11900),
    ("LAMP-LED", "LED desk lamp", 3995),
    ("LAPTOP-14", "Laptop, 14 inch", 149900),
    ("MONITOR-27", "Monitor, 27 inch", 32900),
    ("MOUSE-ERGO", "Ergonomic mouse", 6490),
    ("MUG-ONCALL", "Mug, on call", 1450),
    ("NOTEBOOK-A5", "Notebook, A5, dotted", 1195),
    ("PAGER-RETRO", "Pager, refurbished", 2900),
    ("SSD-2TB", "Solid-state disk, 2 TB", 15900),
    ("STICKER-PACK", "Stickers, 20 pieces", 595),
    ("TSHIRT-FAILOVER", "T-shirt, failover", 2495),
    ("WEBCAM-HD", "Webcam, 1080p", 5990),
)
INITIAL_STOCK = 1_000_000
# Table, key, time of creation: of shards, then of the catalog.
SALVAGED = (
    ("users", "user_id", "created_at"),
    ("orders", "id", "created_at"),
    ("outbox", "event_id", "created_at"),
    ("payments", "order_id", "created_at"),
    ("sessions", "id", "created_at"),
    ("notifications", "event_id", "created_at"),
    ("emails", "user_id", "reserved_at"),
    ("stock_movements", "event_id", "recorded_at"),
)
# What no file may hold: whoever reads an export could try passwords, or go on with a session.
SECRETS = ["password_hash", "token_hash", "previous_hash", "rotation_key", "request_hash"]

STOCK = """
SELECT p.sku, p.initial_stock, p.stock, coalesce(sum(m.quantity), 0) AS reserved
FROM products p LEFT JOIN stock_movements m ON m.sku = p.sku AND m.outcome = 'reserved'
GROUP BY p.sku HAVING p.initial_stock <> p.stock + coalesce(sum(m.quantity), 0)
"""
TOTALS = f"""
SELECT o.id FROM orders o LEFT JOIN order_items i ON i.user_id = o.user_id AND i.order_id = o.id
WHERE {served("o.user_id")}
GROUP BY o.user_id, o.id HAVING o.total_cents IS DISTINCT FROM sum(i.quantity * i.unit_price_cents)
LIMIT 20
"""  # noqa: S608
DUPLICATES = f"""
SELECT user_id, idempotency_key FROM orders WHERE {served()}
GROUP BY user_id, idempotency_key HAVING count(*) > 1 LIMIT 20
"""  # noqa: S608
UNSENT = f"""
SELECT o.id FROM orders o
WHERE NOT EXISTS (SELECT FROM outbox e WHERE e.user_id = o.user_id AND e.event_id = o.id)
  AND {served("o.user_id")} LIMIT 20
"""  # noqa: S608
# OrderCreated is answered by any movement of the order, OrderCancelled by one that is not held.
ASKED = f"""
SELECT user_id, event_id, (payload->>'order_id')::bigint AS order_id,
       kind = 'OrderCancelled' AS cancels
FROM outbox
WHERE kind IN ('OrderCreated', 'OrderCancelled')
  AND created_at < clock_timestamp() - make_interval(secs => $1::float8)
  AND (user_id, event_id) > ($2, $3) AND {served()} ORDER BY user_id, event_id LIMIT $4
"""  # noqa: S608
UNRECORDED = """
SELECT asked.event_id
FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS asked(event_id, order_id, cancels)
WHERE NOT EXISTS (SELECT FROM stock_movements m WHERE m.event_id = asked.order_id
                  AND NOT (asked.cancels AND m.outcome = 'reserved'))
"""
# Orders that believe to have their stock, or may come to.
EXPECTING = f"""
SELECT user_id, id FROM orders
WHERE status IN ('placed', 'confirmed') AND (user_id, id) > ($1, $2) AND {served()}
ORDER BY user_id, id LIMIT $3
"""  # noqa: S608
LET_GO = """
SELECT DISTINCT event_id FROM stock_movements
WHERE event_id = ANY($1::bigint[]) AND outcome <> 'reserved'
"""
GUARD = """
SELECT slot FROM regionctl.slot_owner
WHERE slot = ANY($1::int[]) AND state = 'owned' AND regionctl.try_guard(slot, epoch)
"""


async def invariants(
    shards: Mapping[str, Database],
    catalog: Database,
    *,
    ranges: Sequence[SlotRange] | None = None,
    moves: Sequence[Move] = (),
    settled_seconds: float = 5.0,
) -> list[JSON]:
    """What must hold at any time, each as {"name", "held", "detail"}.

    Events younger than `settled_seconds` may still be on their way, and orders that changed in
    that time too (`runtime/settlement.py` says what else may keep them). With the map's `ranges`
    the owners and epochs of the shards' fence rows are compared with it; with its `moves` either
    side of a move may own a slot.
    """
    faults = await settlement.compare(shards, catalog, settled_seconds)
    owned = await owners.faults(shards, ranges, moves)
    return [
        await _stock(catalog),
        await _totals(shards),
        await _no_duplicates(shards),
        await _no_event_lost(shards, catalog, settled_seconds),
        _named("payments-match", faults.payments, "captured = confirmed = the order's total"),
        _named("stock-follows-orders", faults.stock, "held by confirmed orders, by no cancelled"),
        _named("stock-has-orders", faults.orphans, "each reservation has its order"),
        _named("orders-settled", faults.unsettled, "settled, or waiting for the payment gateway"),
        _named("users-told", faults.untold, "every event has its notification, or mail waits"),
        _named("one-owner-per-slot", owned, "one owner a slot"),
        await _directory(shards, catalog),
    ]


async def resend_events(shard: Database, catalog: Database) -> int:
    """Events of `shard` are to be relayed again where somebody may not have got them, or where the
    catalog says something else than the order does, one of them having lost its newest rows.

    Returns how many. Whoever gets an event for a second time answers it again.
    """
    keys: set[tuple[int, int]] = set()
    for page in await _unrecorded(shard, catalog, 0.0):
        keys.update(page)
    keys.update(await _let_go(shard, catalog))
    for row in await shard.fetch(outbox.UNANSWERED):
        keys.add((row["user_id"], row["event_id"]))
    for row in await shard.fetch(outbox.UNTOLD, list(TOLD)):
        keys.add((row["user_id"], row["event_id"]))
    if not keys:
        return 0
    async with shard.transaction():
        rows = await shard.fetch(GUARD, sorted({slot_of(user) for user, _ in keys}))
        mine = {row[0] for row in rows}
        again = sorted(key for key in keys if slot_of(key[0]) in mine)
        if again:
            await shard.execute(outbox.AGAIN, *zip(*again, strict=True))
    return len(again)


async def return_orphan_stock(shards: Mapping[str, Database], catalog: Database) -> int:
    """Stock taken for orders that no shard has is put back. Returns for how many orders.

    Runs while services do: only movements older than the orders read are looked at, because an
    order always exists before its movement. The movements stay, as returned: an event of such an
    order that is still on its way takes nothing any more.
    """
    taken = {
        row[0]
        for row in await catalog.fetch(
            "SELECT DISTINCT order_id FROM stock_movements WHERE outcome = 'reserved'"
        )
    }
    taken = await directory.nowhere(shards, settlement.EXISTING, taken)
    if not taken:
        return 0
    async with catalog.transaction():
        await catalog.execute(
            "SELECT FROM products WHERE sku IN (SELECT sku FROM stock_movements "
            "WHERE order_id = ANY($1::bigint[])) ORDER BY sku FOR UPDATE",
            list(taken),
        )
        rows = await catalog.fetch(
            "UPDATE stock_movements SET outcome = 'returned' WHERE order_id = ANY($1::bigint[]) "
            "AND outcome = 'reserved' RETURNING order_id, sku, quantity",
            list(taken),
        )
        back: dict[str, int] = {}
        for row in rows:
            back[row["sku"]] = back.get(row["sku"], 0) + row["quantity"]
        await catalog.execute(
            "UPDATE products SET stock = stock + back.quantity, version = version + 1 "
            "FROM unnest($1::text[], $2::bigint[]) AS back(sku, quantity) "
            "WHERE products.sku = back.sku",
            list(back),
            list(back.values()),
        )
    return len({row["order_id"] for row in rows})


async def orphan_rows(old: Database, new: Database, since: datetime | None = None) -> list[JSON]:
    """Rows that `old` has and `new` lacks, a shard or a catalog: what a rewind would destroy.

    `since` limits the search to rows created then or later. An order comes with its lines; no
    row comes with its `SECRETS`. Rows that a shard had only for a move of their slots are another
    shard's.
    """
    orphans: list[JSON] = []
    is_shard = await old.fetchval("SELECT to_regclass('regionctl.served') IS NOT NULL")
    for table, key, created in SALVAGED:
        if not await old.fetchval("SELECT to_regclass($1) IS NOT NULL", f"public.{table}"):
            continue
        condition = f"WHERE {served() if is_shard else 'true'}"
        if since:
            condition += f" AND {created} >= $1"
        arguments = [since] if since else []
        keys = [
            row[0]
            for row in await old.fetch(f"SELECT {key} FROM {table} {condition}", *arguments)  # noqa: S608
        ]
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            known = await new.fetch(f"SELECT {key} FROM {table} WHERE {key} = ANY($1)", page)  # noqa: S608
            lost = set(page) - {row[0] for row in known}
            if lost:
                orphans += await _export(old, table, key, sorted(lost))
    return orphans


async def seed(catalog: Database, clients: Mapping[str, tuple[str, bytes]] | None = None) -> None:
    """The sample products exist, and those that do are left as they are.

    `clients` (id → role, SHA-256 of the secret) may log in, by these secrets and no others.
    """
    await catalog.executemany(
        "INSERT INTO products (sku, name, price_cents, currency, stock, initial_stock) "
        "VALUES ($1, $2, $3, 'USD', $4, $4) ON CONFLICT DO NOTHING",
        [(*product, INITIAL_STOCK) for product in PRODUCTS],
    )
    await catalog.executemany(
        "INSERT INTO oauth_clients (id, role, secret_hash) VALUES ($1, $2, $3) ON CONFLICT (id) "
        "DO UPDATE SET role = excluded.role, secret_hash = excluded.secret_hash",
        [(id, role, digest) for id, (role, digest) in (clients or {}).items()],
    )


async def _stock(catalog: Database) -> JSON:
    wrong = await catalog.fetch(STOCK)
    detail = "; ".join(
        f"{row['sku']}: {row['initial_stock']} at first, now {row['stock']} with "
        f"{row['reserved']} reserved"
        for row in wrong[:10]
    )
    return _verdict("stock-conserved", not wrong, detail or "initial stock = stock + reserved")


async def _totals(shards: Mapping[str, Database]) -> JSON:
    wrong = [str(row[0]) for shard in shards.values() for row in await shard.fetch(TOTALS)]
    detail = f"orders {', '.join(wrong[:10])}" if wrong else "order total = sum of its items"
    return _verdict("totals-match", not wrong, detail)


async def _no_duplicates(shards: Mapping[str, Database]) -> JSON:
    wrong = [str(row[1]) for shard in shards.values() for row in await shard.fetch(DUPLICATES)]
    detail = f"keys {', '.join(wrong[:10])}" if wrong else "one order an idempotency key"
    return _verdict("no-duplicate-order", not wrong, detail)


async def _no_event_lost(
    shards: Mapping[str, Database], catalog: Database, settled_seconds: float
) -> JSON:
    silent = [str(row[0]) for shard in shards.values() for row in await shard.fetch(UNSENT)]
    lost = [
        str(event)
        for shard in shards.values()
        for rows in await _unrecorded(shard, catalog, settled_seconds)
        for _, event in rows
    ]
    if silent:
        return _verdict("no-event-lost", False, f"orders without event: {', '.join(silent[:10])}")
    detail = f"{len(lost)} not recorded: {', '.join(lost[:10])}" if lost else "all recorded"
    return _verdict("no-event-lost", not lost, detail)


async def _directory(shards: Mapping[str, Database], catalog: Database) -> JSON:
    missing = [
        row[0] for shard in shards.values() for row in await directory.unlisted(shard, catalog)
    ]
    strays = await directory.strays(shards, catalog)
    faults = [f"user {id} has no row" for id in missing[:5]]
    faults += [f"the row of user {id} has no user" for id in strays[:5]]
    detail = "; ".join(faults) or "each user has the row of its address, each row its user"
    return _verdict("directory-complete", not faults, detail)


def _verdict(name: str, held: bool, detail: str) -> JSON:
    return {"name": name, "held": held, "detail": detail}


def _named(name: str, faults: Sequence[str], otherwise: str) -> JSON:
    more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
    return _verdict(name, not faults, "; ".join(faults[:10]) + more or otherwise)


async def _unrecorded(
    shard: Database, catalog: Database, older_seconds: float
) -> list[list[tuple[int, int]]]:
    """Pages of (user, event) that ask something of the stock and that the catalog knows not."""
    pages: list[list[tuple[int, int]]] = []
    last = (0, 0)
    while rows := await shard.fetch(ASKED, older_seconds, *last, PAGE):
        last = (rows[-1]["user_id"], rows[-1]["event_id"])
        users = {row["event_id"]: row["user_id"] for row in rows}
        lost = await catalog.fetch(
            UNRECORDED,
            list(users),
            [row["order_id"] for row in rows],
            [row["cancels"] for row in rows],
        )
        if lost:
            pages.append([(users[row[0]], row[0]) for row in lost])
    return pages


async def _let_go(shard: Database, catalog: Database) -> list[tuple[int, int]]:
    """(user, order) of orders that are not cancelled, whose stock the catalog does not hold."""
    found: list[tuple[int, int]] = []
    last = (0, 0)
    while rows := await shard.fetch(EXPECTING, *last, PAGE):
        last = (rows[-1]["user_id"], rows[-1]["id"])
        users = {row["id"]: row["user_id"] for row in rows}
        found += [(users[row[0]], row[0]) for row in await catalog.fetch(LET_GO, list(users))]
    return found


async def _export(database: Database, table: str, key: str, keys: Sequence[int]) -> list[JSON]:
    lines = (
        ", (SELECT json_agg(i) FROM order_items i WHERE i.user_id = t.user_id "
        "AND i.order_id = t.id)::text AS lines"
        if table == "orders"
        else ""
    )
    rows = await database.fetch(
        f"SELECT (to_jsonb(t) - $2::text[])::text AS document{lines} "  # noqa: S608
        f"FROM {table} t WHERE {key} = ANY($1)",
        list(keys),
        SECRETS,
    )
    exported: list[JSON] = []
    for row in rows:
        document: JSON = {"table": table, "row": json.loads(row["document"])}
        if table == "orders":
            document["items"] = json.loads(row["lines"] or "[]")
        exported.append(document)
    return exported
