"""SQL of users: the e-mail directory in the catalog, the users on their shards.

Registration reserves the address, creates the user, confirms the address. The row on the shard
decides who won: whoever comes upon a reservation left by a crash goes on with its user id, and
the confirmation carries the key of the row that exists.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from runtime.pool import Connection
from runtime.shardmap import Placement
from runtime.users.rules import Change, Entry, Registration, User

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
INSERT INTO users
    (user_id, email, name, idempotency_key, request_hash, created_at, password_hash)
SELECT $3::bigint, $4::text, $5::text, $6::text, $7::bytea, $8::timestamptz, $9::text FROM fence
ON CONFLICT (user_id) DO NOTHING
RETURNING created_at, pg_current_xact_id()::text AS xid
"""
EXISTING = f"""
WITH {MARK}
SELECT user_id, email, name, idempotency_key, request_hash, created_at, role, version,
       password_hash, pg_current_xact_id()::text AS xid
FROM mark, users WHERE user_id = $3::bigint
"""  # noqa: S608
CONFIRM = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
UPDATE emails SET state = 'confirmed', idempotency_key = $5::text, request_hash = $6::bytea
FROM fence
WHERE email = $3::text AND user_id = $4::bigint
  AND (state <> 'confirmed' OR idempotency_key <> $5::text)
"""
CONFIRM_ONLY = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
UPDATE emails SET state = 'confirmed' FROM fence WHERE email = $3::text AND user_id = $4::bigint
"""
COLUMNS = "user_id, email, name, created_at, role, version"
GET = f"SELECT {COLUMNS} FROM users WHERE user_id = $1"  # noqa: S608
PAGE = f"""
SELECT {COLUMNS} FROM users
WHERE user_id > $1 AND crc32(int8send(user_id)) % 1024 = ANY($3::bigint[])
ORDER BY user_id LIMIT $2
"""  # noqa: S608
PASSWORD = "SELECT password_hash FROM users WHERE user_id = $1"  # noqa: S105
GUARD = "SELECT regionctl.guard($1::int, $2::bigint)"
# $4: the new hash, or NULL; $5: the hash that the current password was compared with.
CHANGE = f"""
UPDATE users SET name = coalesce($2::text, name), role = coalesce($3::text, role),
    password_hash = coalesce($4::text, password_hash), version = version + 1
WHERE user_id = $1 AND ($4::text IS NULL OR password_hash IN ($4::text, $5::text))
RETURNING {COLUMNS}, pg_current_xact_id()::text AS xid
"""  # noqa: S608
# Also those that ended lately, whose access tokens may still be good: the attempt that ended them
# may be one that was cut off.
END_SESSIONS = """
UPDATE sessions SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE user_id = $1 AND id <> $2 AND expires_at > clock_timestamp()
  AND (revoked_at IS NULL OR revoked_at > clock_timestamp() - interval '11 minutes')
RETURNING id
"""


@dataclass(frozen=True)
class Created:
    """The row on the shard, whoever made it: `key` and `digest` tell."""

    user: User
    key: str
    digest: bytes
    password_hash: str = field(repr=False)
    xid: int
    fresh: bool


@dataclass(frozen=True)
class Changed:
    """`ended`: the sessions that are over."""

    user: User
    xid: int
    ended: tuple[int, ...]


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
    connection: Connection, place: Placement, user_id: int, wish: Registration, password_hash: str
) -> Created:
    """The user with this id exists; `fresh` says that this call made it."""
    fence = (place.slot, place.epoch)
    row = await connection.fetchrow(
        CREATE,
        *fence,
        user_id,
        wish.email,
        wish.name,
        wish.key,
        wish.digest,
        wish.at,
        password_hash,
    )
    if row:
        user = User(user_id, wish.email, wish.name, row["created_at"])
        return Created(user, wish.key, wish.digest, password_hash, int(row["xid"]), True)
    found: Any = await connection.fetchrow(EXISTING, *fence, user_id)
    return Created(
        _user(found),
        found["idempotency_key"],
        found["request_hash"],
        found["password_hash"],
        int(found["xid"]),
        False,
    )


async def confirm(connection: Connection, place: Placement, created: Created) -> None:
    """The address belongs to the user that exists, under the key that made it.

    Where that key has reserved another address since, this one keeps the key it was reserved by.
    """
    line = (place.slot, place.epoch, created.user.email, created.user.id)
    try:
        await connection.execute(CONFIRM, *line, created.key, created.digest)
    except asyncpg.UniqueViolationError:
        await connection.execute(CONFIRM_ONLY, *line)


async def get(connection: Connection, user_id: int) -> User | None:
    row = await connection.fetchrow(GET, user_id)
    return _user(row) if row else None


async def page(
    connection: Connection, after: int, limit: int, slots: Collection[int]
) -> list[User]:
    """Of one shard, in `slots`."""
    return [_user(row) for row in await connection.fetch(PAGE, after, limit, list(slots))]


async def password_hash(connection: Connection, user_id: int) -> str | None:
    found: str | None = await connection.fetchval(PASSWORD, user_id)
    return found


async def change(
    connection: Connection,
    place: Placement,
    *,
    user_id: int,
    wish: Change,
    hashes: tuple[str, str] | None,
    but: int | None,
) -> Changed | None:
    """`hashes`: of the new password and of the current one. None when either is not there.

    A new password or role ends all sessions, but not the session `but`. May run again.
    """
    async with connection.transaction():
        await connection.execute(GUARD, place.slot, place.epoch)
        new, current = hashes or (None, None)
        row: Any = await connection.fetchrow(CHANGE, user_id, wish.name, wish.role, new, current)
        if row is None:
            return None
        ended: tuple[int, ...] = ()
        if hashes or wish.role:
            # A statement of its own: it sees what a login did that the update waited for.
            rows = await connection.fetch(END_SESSIONS, user_id, but or 0)
            ended = tuple(row["id"] for row in rows)
        return Changed(_user(row), int(row["xid"]), ended)


def _user(row: Any) -> User:
    return User(
        row["user_id"],
        row["email"],
        row["name"],
        row["created_at"],
        row["role"],
        row["version"],
    )
