"""SQL of notifications on a shard: who is told, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtime.notifications.rules import Notice, Recipient, Record
from runtime.pool import Connection

RECIPIENTS = "SELECT user_id, email, name FROM users WHERE user_id = ANY($1::bigint[])"
KNOWN = """
SELECT n.user_id, n.event_id FROM notifications n
JOIN unnest($1::bigint[], $2::bigint[]) AS asked(user_id, event_id)
  ON n.user_id = asked.user_id AND n.event_id = asked.event_id
"""
RECORD = """
INSERT INTO notifications (user_id, event_id, kind, recipient, status, reason)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (user_id, event_id) DO NOTHING
"""
# The empty message makes the commit wait for the standby: a row that was there may be one whose own
# commit is not confirmed there.
MARK = "SELECT pg_logical_emit_message(true, 'regionctl.replay', '')"
OWNER = "SELECT user_id FROM orders WHERE id = $1"
OF_EVENTS = """
SELECT kind, recipient, status, reason, created_at FROM notifications
WHERE user_id = $1 AND event_id = ANY($2::bigint[]) ORDER BY created_at, kind
"""


@dataclass(frozen=True)
class Briefing:
    """Of some notices: who is to get them, and which are recorded already."""

    recipients: dict[int, Recipient]
    recorded: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Told:
    kind: str
    recipient: str
    status: str
    reason: str | None
    created_at: datetime


async def brief(connection: Connection, notices: Sequence[Notice]) -> Briefing:
    """In a transaction in which the slots of all `notices` are guarded."""
    users = [notice.user_id for notice in notices]
    found = await connection.fetch(RECIPIENTS, sorted(set(users)))
    known = await connection.fetch(KNOWN, users, [notice.event_id for notice in notices])
    if known:
        await connection.execute(MARK)
    return Briefing(
        {row["user_id"]: Recipient(*row) for row in found},
        frozenset((row["user_id"], row["event_id"]) for row in known),
    )


async def record(connection: Connection, records: Sequence[Record]) -> None:
    """Every one of `records` has a row; one that had a row keeps it. In a transaction."""
    # In one order always, so that two consumers never wait for each other.
    rows = sorted(records, key=lambda each: (each.user_id, each.event_id))
    columns: list[list[Any]] = [
        [getattr(row, name) for row in rows]
        for name in ("user_id", "event_id", "kind", "recipient", "status", "reason")
    ]
    await connection.execute(RECORD, *columns)
    await connection.execute(MARK)


async def owner_of(connection: Connection, order_id: int) -> int | None:
    owner: int | None = await connection.fetchval(OWNER, order_id)
    return owner


async def told(connection: Connection, user_id: int, events: Sequence[int]) -> list[Told]:
    """What the user was told about `events`, oldest first."""
    return [Told(*row) for row in await connection.fetch(OF_EVENTS, user_id, list(events))]
