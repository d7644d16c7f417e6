"""The e-mail directory of the catalog, compared with the users on the shards and mended.

Between regions replication is asynchronous, so databases promoted together may have got different
parts of a registration. Everything here takes the superuser's connections and is idempotent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import asyncpg

from runtime.served import served

if TYPE_CHECKING:
    Database = asyncpg.Connection[asyncpg.Record]
else:
    Database = asyncpg.Connection

PAGE = 5000

USERS = f"""
SELECT user_id, email, idempotency_key, request_hash, created_at FROM users
WHERE user_id > $1 AND {served()} ORDER BY user_id LIMIT $2
"""  # noqa: S608
KNOWN = "SELECT user_id FROM users WHERE user_id = ANY($1::bigint[])"
CONFIRMED = """
SELECT user_id FROM emails WHERE state = 'confirmed' AND user_id > $1 ORDER BY user_id LIMIT $2
"""
UNLISTED = """
SELECT user_id FROM unnest($1::bigint[], $2::text[]) AS made(user_id, email)
WHERE NOT EXISTS (SELECT FROM emails e WHERE e.user_id = made.user_id AND e.email = made.email)
"""
LIST = """
INSERT INTO emails (user_id, email, idempotency_key, request_hash, reserved_at, state)
SELECT *, 'confirmed'
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[])
ON CONFLICT DO NOTHING RETURNING 1
"""
RELEASE = """
UPDATE emails SET state = 'reserved' WHERE user_id = ANY($1::bigint[]) AND state = 'confirmed'
RETURNING 1
"""


async def restore(shards: Mapping[str, Database], catalog: Database) -> int:
    """The e-mail directory says what the shards say. Returns how many rows were mended.

    A user whose row is missing gets it back. A confirmed row whose user no shard has becomes a
    reservation again: whoever registers the address next goes on with it, as after a crash, so
    nothing that is in flight meanwhile can go wrong. Reservations are left alone. An address that
    somebody else has by now is not taken from them; the invariant directory-complete tells.
    """
    mended = 0
    for shard in shards.values():
        missing = await unlisted(shard, catalog)
        if missing:
            mended += len(await catalog.fetch(LIST, *zip(*missing, strict=True)))
    lost = await strays(shards, catalog)
    return mended + len(await catalog.fetch(RELEASE, lost) if lost else [])


async def unlisted(shard: Database, catalog: Database) -> list[tuple[Any, ...]]:
    """Users (the columns of `USERS`) whose address is not theirs in the catalog.

    A row is reserved before its user is made and never deleted: one read later is there.
    """
    found: list[tuple[Any, ...]] = []
    async for rows in _pages(shard, USERS):
        ids = [row["user_id"] for row in rows]
        missing = await catalog.fetch(UNLISTED, ids, [row["email"] for row in rows])
        lacking = {row[0] for row in missing}
        found += [tuple(row) for row in rows if row["user_id"] in lacking]
    return found


async def strays(shards: Mapping[str, Database], catalog: Database) -> list[int]:
    """Users of confirmed rows that no shard has. A user is made before its row is confirmed."""
    found: list[int] = []
    async for rows in _pages(catalog, CONFIRMED):
        found += sorted(await nowhere(shards, KNOWN, {row[0] for row in rows}))
    return found


async def nowhere(shards: Mapping[str, Database], query: str, keys: Iterable[int]) -> set[int]:
    """Those of `keys` that `query` finds on no shard.

    Any copy counts, also one that its shard has for a move: nothing is given up while it may be
    somewhere. Shards are read one after the other, twice, so that a row cannot slip past by moving
    from a shard that is read late to one that was read early.
    """
    left = set(keys)
    for shard in (*shards.values(), *shards.values()):
        if left:
            left -= {row[0] for row in await shard.fetch(query, list(left))}
    return left


async def _pages(database: Database, query: str) -> AsyncIterator[list[asyncpg.Record]]:
    """What `query` finds, in the order of `user_id`, some thousand rows at a time."""
    last = 0
    while rows := await database.fetch(query, last, PAGE):
        yield rows
        last = rows[-1]["user_id"]
