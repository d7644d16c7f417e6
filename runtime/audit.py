"""The append-only record of security events, in the catalog. No secret ever goes in.

    action                 subject          detail
    login                  user or e-mail   reason
    session.reuse          user             session (a refresh token came back after its rotation)
    session.revoke         user             session
    user.register          user             -
    user.password          user             sessions (how many others were ended)
    user.role              user             role, before
    product.change         product          name, price_cents, currency, add: what was to change
    audit.read             -                - (only denied ones)
    client.grant           client           reason (only denied ones)
    keys.rotate            kid              active_from

Refusals of what only admins may do are there as denied. An event whose commit
was in doubt may be there twice; none that was answered is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from starlette.requests import Request

from runtime import identity
from runtime.errors import Forbidden
from runtime.identity import Caller
from runtime.pool import Connection
from runtime.ratelimit import address_of
from runtime.shardmap import Placement
from runtime.shards import Shards, catalog

Outcome = Literal["allowed", "denied"]

# How long after its end a session's access tokens could still be good.
REVOCATION_SECONDS = 660

RECORD = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
INSERT INTO audit_log (action, outcome, actor, subject, address, request_id, detail)
SELECT $3::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::jsonb FROM fence
"""
REVOKE = """
WITH fence AS MATERIALIZED (SELECT regionctl.guard($1::int, $2::bigint))
INSERT INTO revocations (session_id, revoked_at, expires_at)
SELECT DISTINCT id, clock_timestamp(), clock_timestamp() + make_interval(secs => $4)
FROM fence, unnest($3::bigint[]) AS id
ON CONFLICT DO NOTHING
"""
PAGE = """
SELECT id, at, action, outcome, actor, subject, address, request_id, detail::text AS detail
FROM audit_log WHERE id < $1 AND ($2::text IS NULL OR action = $2) ORDER BY id DESC LIMIT $3
"""


@dataclass(frozen=True)
class Origin:
    """Who asked, from where, in which request."""

    actor: str
    address: str
    request_id: str


@dataclass(frozen=True)
class Event:
    action: str
    outcome: Outcome
    subject: str
    origin: Origin
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    id: int
    at: datetime
    event: Event


def origin_of(request: Request) -> Origin:
    who: Caller | None = request.scope.get("caller")
    return Origin(
        str(who) if who else "anonymous",
        address_of(request.scope),
        str(request.scope.get("request_id", "")),
    )


async def record(connection: Connection, place: Placement, event: Event) -> None:
    """Inside a write to the catalog."""
    origin = event.origin
    await connection.execute(
        RECORD,
        place.slot,
        place.epoch,
        event.action,
        event.outcome,
        origin.actor,
        event.subject,
        origin.address,
        origin.request_id,
        json.dumps(dict(event.detail)),
    )


async def write(shards: Shards, event: Event, ended: Sequence[int] = ()) -> None:
    """The event is recorded, and access tokens of the sessions `ended` are good no more."""

    async def work(connection: Connection, place: Placement) -> None:
        async with connection.transaction():
            if ended:
                await connection.execute(
                    REVOKE, place.slot, place.epoch, list(ended), REVOCATION_SECONDS
                )
            await record(connection, place, event)

    await shards.write(catalog, work)


async def require_admin(shards: Shards, request: Request, action: str, subject: str = "") -> Caller:
    """Raises `Unauthorized`, or `Forbidden`, which is recorded."""
    try:
        return identity.require_admin(request)
    except Forbidden:
        await write(shards, Event(action, "denied", subject, origin_of(request)))
        raise


async def page(
    connection: Connection, before: int, action: str | None, limit: int
) -> list[Recorded]:
    """The newest events older than the one with id `before`, of one action or of all."""
    rows: Any = await connection.fetch(PAGE, before, action, limit)
    return [
        Recorded(
            row["id"],
            row["at"],
            Event(
                row["action"],
                row["outcome"],
                row["subject"],
                Origin(row["actor"], row["address"], row["request_id"]),
                json.loads(row["detail"]),
            ),
        )
        for row in rows
    ]
