"""SQL of auth: clients in the catalog; who somebody is and their sessions, on the user's shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from runtime.auth import rules
from runtime.identity import Role
from runtime.pool import Connection
from runtime.served import owned
from runtime.shardmap import Placement

GUARD = "SELECT regionctl.guard($1::int, $2::bigint)"
CLIENT = "SELECT secret_hash, role FROM oauth_clients WHERE id = $1"
USER_OF_EMAIL = "SELECT user_id FROM emails WHERE email = $1"
LOGIN = "SELECT role, password_hash FROM users WHERE user_id = $1"
# Locked against a change of the password, which ends all sessions that it sees, and against another
# login, which counts them.
STILL = """
SELECT role FROM users WHERE user_id = $1 AND password_hash = ANY($2::text[]) FOR NO KEY UPDATE
"""
REHASH = "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND password_hash = $3"
OPEN = """
INSERT INTO sessions (user_id, id, client_id, token_hash, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""
# The new session $2 is none of the others, of which $4 may stay.
END_OLDEST = """
UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND id IN (
    SELECT id FROM sessions
    WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL AND expires_at > $3
    ORDER BY created_at DESC, id DESC OFFSET $4
)
"""
ENDED = "SELECT id FROM sessions WHERE user_id = $1 AND revoked_at = $2"
FIND = """
SELECT s.*, u.role FROM sessions s JOIN users u USING (user_id)
WHERE s.user_id = $1 AND s.id = $2 FOR UPDATE OF s
"""
ROTATE = """
UPDATE sessions SET token_hash = $3, previous_hash = $4, rotation_key = $5, rotated_at = $6,
                    expires_at = $7
WHERE user_id = $1 AND id = $2
"""
END = "UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL"
# Of a revoked one, an attempt that was cut off may still want to know.
OVER = """
(expires_at < clock_timestamp() - interval '1 hour'
 OR revoked_at < clock_timestamp() - interval '1 day')
"""
OVER_PAGE = f"""
SELECT user_id, id FROM sessions WHERE {OVER} AND (user_id, id) > ($1, $2) AND {owned()}
ORDER BY user_id, id LIMIT $3
"""  # noqa: S608
FORGET = f"""
DELETE FROM sessions USING unnest($1::bigint[], $2::bigint[]) AS old(user_id, id)
WHERE sessions.user_id = old.user_id AND sessions.id = old.id AND {OVER}
"""  # noqa: S608
# The empty message makes the commit wait for the standby: a session that had ended may be one whose
# end is not confirmed there.
MARK = "SELECT pg_logical_emit_message(true, 'regionctl.replay', '')"
FORGET_REVOCATIONS = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
DELETE FROM revocations USING fence WHERE expires_at < clock_timestamp()
"""

# (user id, session id)
Key = tuple[int, int]


@dataclass(frozen=True)
class Login:
    """What a password is compared with."""

    user_id: int
    role: Literal["user", "admin"]
    password_hash: str


@dataclass(frozen=True)
class Opened:
    """The user's role, and the sessions that ended because there were too many."""

    role: Role
    ended: tuple[int, ...]


@dataclass(frozen=True)
class Rotation:
    verdict: rules.Verdict
    role: Role


async def client(connection: Connection, id: str) -> tuple[bytes, Role] | None:
    """The hash of the client's secret, and its role."""
    row: Any = await connection.fetchrow(CLIENT, id)
    return (row["secret_hash"], row["role"]) if row else None


async def user_of(connection: Connection, email: str) -> int | None:
    found: int | None = await connection.fetchval(USER_OF_EMAIL, email)
    return found


async def login(connection: Connection, user_id: int) -> Login | None:
    row: Any = await connection.fetchrow(LOGIN, user_id)
    return Login(user_id, row["role"], row["password_hash"]) if row else None


async def open_session(
    connection: Connection,
    place: Placement,
    *,
    session: rules.Session,
    verified: str,
    rehashed: str | None,
) -> Opened | None:
    """The session is there, with the youngest of the user's others; None when the password
    changed meanwhile."""
    async with connection.transaction():
        await connection.execute(GUARD, place.slot, place.epoch)
        hashes = [verified, rehashed or verified]
        role: Role | None = await connection.fetchval(STILL, session.user_id, hashes)
        if role is None:
            return None
        if rehashed:
            await connection.execute(REHASH, session.user_id, rehashed, verified)
        await connection.execute(
            OPEN,
            session.user_id,
            session.id,
            session.client,
            session.token_hash,
            session.created_at,
            session.expires_at,
        )
        # An attempt that was cut off may have ended them: all that ended at this moment count.
        at, others = session.created_at, rules.SESSIONS_AT_MOST - 1
        await connection.execute(END_OLDEST, session.user_id, session.id, at, others)
        ended = await connection.fetch(ENDED, session.user_id, at)
        return Opened(role, tuple(row["id"] for row in ended))


async def rotate(
    connection: Connection,
    place: Placement,
    *,
    user_id: int,
    session_id: int,
    client: str,
    shown: bytes,
    fresh: bytes,
    key: str | None,
    now: datetime,
) -> Rotation | None:
    """Does with the session what `rules.judge` says; None when there is no such session."""
    async with connection.transaction():
        await connection.execute(GUARD, place.slot, place.epoch)
        row: Any = await connection.fetchrow(FIND, user_id, session_id)
        if row is None or row["client_id"] != client:
            return None
        session = _session(row)
        verdict = rules.judge(session, shown, fresh, key, now)
        if verdict in ("rotate", "repeat"):
            expires = rules.session_expiry(session.created_at, now)
            await connection.execute(ROTATE, user_id, session_id, fresh, shown, key, now, expires)
        elif verdict == "reuse":
            await connection.execute(END, user_id, session_id, now)
        return Rotation(verdict, row["role"])


async def end_session(
    connection: Connection, place: Placement, *, user_id: int, session_id: int, now: datetime
) -> None:
    async with connection.transaction():
        await connection.execute(GUARD, place.slot, place.epoch)
        await connection.execute(END, user_id, session_id, now)
        await connection.execute(MARK)


async def sessions_over(connection: Connection, after: Key, limit: int) -> list[Key]:
    """Those of a shard that no token is of any use for, in order, behind `after`."""
    rows: Any = await connection.fetch(OVER_PAGE, *after, limit)
    return [(row["user_id"], row["id"]) for row in rows]


async def forget_sessions(connection: Connection, keys: Sequence[Key]) -> None:
    await connection.execute(FORGET, [user for user, _ in keys], [id for _, id in keys])


async def forget_revocations(connection: Connection, place: Placement) -> None:
    """Those of sessions whose last access token has expired."""
    await connection.execute(FORGET_REVOCATIONS, place.slot, place.epoch)


def _session(row: Any) -> rules.Session:
    return rules.Session(
        id=row["id"],
        user_id=row["user_id"],
        client=row["client_id"],
        token_hash=row["token_hash"],
        previous_hash=row["previous_hash"],
        rotation_key=row["rotation_key"],
        rotated_at=row["rotated_at"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
