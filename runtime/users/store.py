"""SQL of users: the e-mail directory in the catalog, the users on their shards.

Registration reserves the address, creates the user, confirms the address. The row on the shard
decides who won: whoever comes upon a reservation left by a crash goes on with its user id, and
the confirmation carries the key of the row that exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from runtime.pool import Connection
from runtime.shardmap import Placement
from runtime.users.rules import Entry, Registration, User

# Marks the transaction as one that wrote, so that its commit waits for the standby even when the
# answer was already there.
MARK = """
fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint)),
mark AS MATERIALIZED (
    SELECT pg_logical_emit_message(true, 'regionctl.replay', '') FROM fence
)
"""
RESERVE = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
INSERT INTO emails (email, user_id, idempotency_key, request_hash, state)
SELECT $3::text, $4::bigint, $5::text, $6::bytea, 'reserved' FROM fence
ON CONFLICT DO NOTHING
RETURNING user_id
"""
FIND = f"""
WITH {MARK}
SELECT email, user_id, idempotency_key, request_hash, state FROM mark, emails
WHERE idempotency_key = $3::text OR email = $4::text
ORDER BY idempotency_key = $3::text DESC LIMIT 1
"""  # noqa: S608
CREATE = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at)
SELECT $3::bigint, $4::text, $5::text, $6::text, $7::bytea, $8::timestamptz FROM fence
ON CONFLICT (user_id) DO NOTHING
RETURNING created_at, pg_current_xact_id()::text AS xid
"""
EXISTING = f"""
WITH {MARK}
SELECT user_id, email, name, idempotency_key, request_hash, created_at,
       pg_current_xact_id()::text AS xid
FROM mark, users WHERE user_id = $3::bigint
"""  # noqa: S608
CONFIRM = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
UPDATE emails SET state = 'confirmed', idempotency_key = $5::text, request_hash = $6::bytea
FROM fence
WHERE email = $3::text AND user_id = $4::bigint
  AND (state <> 'confirmed' OR idempotency_key <> $5::text)
"""
GET = "SELECT user_id, email, name, created_at FROM users WHERE user_id = $1"


@dataclass(frozen=True)
class Created:
    """The row on the shard, whoever made it: `key` and `digest` tell."""

    user: User
    key: str
    digest: bytes
    xid: int
    fresh: bool


async def reserve(connection: Connection, place: Placement, wish: Registration) -> Entry:
    """The directory's line for this key or address: new, or what was there."""
    fence = (place.slot, place.epoch)
    if await connection.fetchval(RESERVE, *fence, wish.email, wish.user_id, wish.key, wish.digest):
        return Entry(wish.email, wish.user_id, wish.key, wish.digest, "reserved")
    row = await connection.fetchrow(FIND, *fence, wish.key, wish.email)
    if row is None:
        # The random user id is taken: the caller draws another.
        raise asyncpg.UniqueViolationError("user id in use")
    return Entry(
        row["email"], row["user_id"], row["idempotency_key"], row["request_hash"], row["state"]
    )


async def create(
    connection: Connection, place: Placement, user_id: int, wish: Registration
) -> Created:
    """The user with this id exists; `fresh` says that this call made it."""
    fence = (place.slot, place.epoch)
    row = await connection.fetchrow(
        CREATE, *fence, user_id, wish.email, wish.name, wish.key, wish.digest, wish.at
    )
    if row:
        user = User(user_id, wish.email, wish.name, row["created_at"])
        return Created(user, wish.key, wish.digest, int(row["xid"]), True)
    found: Any = await connection.fetchrow(EXISTING, *fence, user_id)
    return Created(
        _user(found),
        found["idempotency_key"],
        found["request_hash"],
        int(found["xid"]),
        False,
    )


async def confirm(connection: Connection, place: Placement, created: Created) -> None:
    """The address belongs to the user that exists, under the key that made it."""
    await connection.execute(
        CONFIRM,
        place.slot,
        place.epoch,
        created.user.email,
        created.user.id,
        created.key,
        created.digest,
    )


async def get(connection: Connection, user_id: int) -> User | None:
    row = await connection.fetchrow(GET, user_id)
    return _user(row) if row else None


def _user(row: Any) -> User:
    return User(row["user_id"], row["email"], row["name"], row["created_at"])
