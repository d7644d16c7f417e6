"""The rows of a restored copy beside those of its primary, over two raw connections.

Both are read in pages of keys with one hash a row, so that only rows that differ are read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from infra.repair import JSON, TABLES, Change, Difference, Inspected, Table
from runtime import checks
from runtime.errors import Refused
from runtime.orders import store
from runtime.shardmap import slot_of

PAGE = 2000
BATCH = 500

TYPES = {"sku": "text"}
COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER'
ORDER BY ordinal_position
"""
NAMES = """
SELECT relname FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname
"""
OWNED = "SELECT slot FROM regionctl.slot_owner WHERE state IN ('owned', 'fencing')"


async def differences(then: Any, now: Any) -> list[Difference]:
    """`then` is the copy, `now` the primary."""
    owned = {row[0] for row in await now.fetch(OWNED)}
    return [
        difference
        for table in TABLES.values()
        for difference in await _of_table(then, now, table, owned)
    ]


async def apply(connection: Any, changes: Sequence[Change]) -> int:
    """Returns how many rows changed. Raises `Refused` when a slot is not owned here."""
    done = 0
    for (name, columns), group in groupby(changes, lambda change: (change.table, change.columns)):
        rows = [change.row for change in group]
        for start in range(0, len(rows), BATCH):
            done += await _apply(connection, TABLES[name], columns, rows[start : start + BATCH])
    return done


async def _of_table(then: Any, now: Any, table: Table, owned: set[int]) -> list[Difference]:
    """Page by page; rows of slots that the primary does not own are another shard's by now."""
    found: list[Difference] = []
    last: Sequence[Any] = ()
    while page := await then.fetch(_page(table, first=not last), *last, PAGE):
        last = [page[-1][name] for name in table.key]
        mine = [row for row in page if slot_of(row["user_id"]) in owned]
        live = await now.fetch(_hashes(table), *_keys(table, mine))
        known = {_key(table, row): row["hash"] for row in live}
        wrong = [row for row in mine if known.get(_key(table, row)) != row["hash"]]
        if wrong:
            found += await _whole(then, now, table, wrong)
    return found


async def _whole(then: Any, now: Any, table: Table, rows: Sequence[Any]) -> list[Difference]:
    keys = _keys(table, rows)
    old = [json.loads(row[0]) for row in await then.fetch(_documents(table), *keys)]
    new = [json.loads(row[0]) for row in await now.fetch(_documents(table), *keys)]
    by_key = {_key(table, row): row for row in new}
    return [Difference(table.name, row, by_key.get(_key(table, row))) for row in old]


async def _apply(
    connection: Any, table: Table, columns: Sequence[str], rows: Sequence[JSON]
) -> int:
    """One transaction, under the guard of each row's slot."""
    document = json.dumps(rows)
    async with connection.transaction():
        slots = sorted({slot_of(row["user_id"]) for row in rows})
        guarded = await connection.fetch(checks.GUARD, slots)
        if len(guarded) < len(slots):
            raise Refused(
                f"Slots of {table.name} are handed over to another shard just now.",
                hint="try again",
            )
        if columns:
            done = await connection.execute(_update(table, columns), document)
        else:
            names = [row[0] for row in await connection.fetch(COLUMNS, table.name)]
            done = await connection.execute(_insert(table, names), document)
    return int(done.split()[-1])


async def _sums(copy: Any) -> tuple[dict[str, int], dict[str, str]]:
    """Number of rows, and one checksum over all of them, of each table."""
    rows: dict[str, int] = {}
    sums: dict[str, str] = {}
    for (name,) in await copy.fetch(NAMES):
        found = await copy.fetchrow(
            f'SELECT count(*), bit_xor(hashtextextended(t::text, 0)) FROM "{name}" t'  # noqa: S608
        )
        rows[name], sums[name] = found[0], f"{(found[1] or 0) % 2**64:016x}"
    return rows, sums


async def inspect_catalog(copy: Any) -> Inspected:
    wrong = await copy.fetch(checks.STOCK)
    problems = tuple(f"stock of {row['sku']} is not conserved" for row in wrong)
    return Inspected(*await _sums(copy), problems, (), 0)


async def inspect_shard(copy: Any, orders: Sequence[str], users: Sequence[str]) -> Inspected:
    problems = [
        f"{what}: {', '.join(str(row[0]) for row in wrong[:5])}"
        for what, query in (
            ("totals are not those of the lines", checks.TOTALS),
            ("orders made twice", checks.DUPLICATES),
            ("orders without an event", checks.UNSENT),
        )
        if (wrong := await copy.fetch(query))
    ]
    wanted = [int(id) for id in orders]
    served_orders = [id for id in wanted if await store.get(copy, id) is not None]
    known = await copy.fetch(
        "SELECT user_id FROM users WHERE user_id = ANY($1::bigint[])", [int(id) for id in users]
    )
    there = {str(id) for id in served_orders} | {str(row[0]) for row in known}
    missing = tuple(id for id in (*orders, *users) if id not in there)
    return Inspected(*await _sums(copy), tuple(problems), missing, len(served_orders))


# Names of tables and columns are those of `infra.repair.TABLES`, never a user's.


def _page(table: Table, *, first: bool) -> str:
    names = ", ".join(table.key)
    after = ", ".join(f"${n}" for n, _ in enumerate(table.key, start=1))
    where = "" if first else f"WHERE ({names}) > ({after}) "
    limit = 1 if first else len(table.key) + 1
    return (
        f"SELECT {names}, {_hash(table)} AS hash FROM {table.name} t {where}"  # noqa: S608
        f"ORDER BY {names} LIMIT ${limit}"
    )


def _hashes(table: Table) -> str:
    names = ", ".join(f"t.{name}" for name in table.key)
    return f"SELECT {names}, {_hash(table)} AS hash FROM {table.name} t {_wanted(table)}"  # noqa: S608


def _documents(table: Table) -> str:
    return f"SELECT to_jsonb(t)::text FROM {table.name} t {_wanted(table)}"  # noqa: S608


def _hash(table: Table) -> str:
    lasting = ", ".join(f"t.{name}" for name in table.lasting)
    return f"md5(ROW({lasting})::text)"


def _wanted(table: Table) -> str:
    """Joins the keys that are given as one array a column."""
    arrays = ", ".join(
        f"${n}::{TYPES.get(name, 'bigint')}[]" for n, name in enumerate(table.key, start=1)
    )
    return f"JOIN unnest({arrays}) AS k({', '.join(table.key)}) USING ({', '.join(table.key)})"


def _update(table: Table, columns: Sequence[str]) -> str:
    """A version grows, so that what caches kept of the bad row is older."""
    sets = [f"{name} = n.{name}" for name in columns]
    sets += ["version = t.version + 1"] if table.versioned else []
    same = " AND ".join(f"t.{name} = n.{name}" for name in table.key)
    mine, theirs = (", ".join(f"{of}.{name}" for name in columns) for of in "tn")
    return (
        f"UPDATE {table.name} t SET {', '.join(sets)} "  # noqa: S608
        f"FROM jsonb_populate_recordset(NULL::{table.name}, $1::jsonb) n "
        f"WHERE {same} AND ROW({mine}) IS DISTINCT FROM ROW({theirs})"
    )


def _insert(table: Table, names: Sequence[str]) -> str:
    listed = ", ".join(names)
    return (
        f"INSERT INTO {table.name} ({listed}) SELECT {listed} "  # noqa: S608
        f"FROM jsonb_populate_recordset(NULL::{table.name}, $1::jsonb) ON CONFLICT DO NOTHING"
    )


def _keys(table: Table, rows: Iterable[Any]) -> list[list[Any]]:
    listed = list(rows)
    return [[row[name] for row in listed] for name in table.key]


def _key(table: Table, row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in table.key)
