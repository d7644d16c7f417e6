"""Restore points over all databases: one moment, at which nobody wrote.

pg_create_restore_point on each database alone would name several moments. So the locks by which
writers guard their slots are taken on all databases at once, which waits for writers inside and
holds back new ones for some milliseconds; each database then says where it is. The locks end with
our connections, so a control plane that dies meanwhile leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg

from infra.backups import Point, Target
from infra.local.backups.parts import Parts, every, exclusive
from infra.local.cluster import CLOCK
from runtime.errors import Invalid, NotFound, Problem, Refused, Unavailable
from runtime.shardmap import ShardMap

FOLDER = "points"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LOCK_MILLISECONDS = 250
TRIES = 4
PAUSE_SECONDS = 0.3
DURABLE_SECONDS = 10.0
_BEING_MOVED = "SELECT count(*) FROM regionctl.slot_owner WHERE state = 'fencing'"
# Writers under REPEATABLE READ hold their row instead of the lock.
_ROWS = "SELECT count(*) FROM (SELECT FROM regionctl.slot_owner FOR UPDATE) AS held"
_LOCKS = """\
SELECT count(pg_advisory_xact_lock(7411, slot))
FROM (SELECT slot FROM regionctl.slot_owner ORDER BY slot) AS ordered
"""
_POINT = "SELECT (pg_create_restore_point($1) - '0/0'::pg_lsn)::bigint"
# Makes it durable here, and is a record behind it, before which recovery can stop.
_FLUSH = "SELECT pg_logical_emit_message(false, 'regionctl.point', $1, true)"
# Its commit is acknowledged by the standby, which then has the point too.
_CONFIRM = "SELECT pg_logical_emit_message(true, 'regionctl.point', $1)"


async def mark(parts: Parts, name: str, shard_map: ShardMap) -> Point:
    """See `infra.backups.Backups.mark_point`. A point that is known is returned as it is.

    Raises `Refused` when writers do not come to rest in time, or slots are just being handed over.
    """
    if not NAME.fullmatch(name):
        raise Invalid(
            f"{name!r} is no name for a restore point.",
            hint="Letters, digits, dots, hyphens and underscores; at most 63.",
        )
    for known in await listed(parts):
        if known.name == name:
            return known
    with exclusive(parts.scratch / "points.lock", "A restore point is being made"):
        at, lsns = await _all_at_once(parts, name, shard_map)
    document = {"name": name, "at": at.isoformat(), "lsns": lsns, "map": shard_map.to_json()}
    text = json.dumps(document).encode()
    kept = 0
    for vault in parts.shelves.vaults.values():
        with contextlib.suppress(Unavailable):
            await vault.put(f"{FOLDER}/{name}.json", text)
            kept += 1
    if not kept:
        raise Unavailable("No object storage answers: the restore point was not kept.")
    return parse(text)


def parse(text: bytes) -> Point:
    """The point of a document in the store."""
    known = json.loads(text)
    at = datetime.fromisoformat(known["at"])
    return Point(known["name"], at, known["lsns"], known["map"])


async def _all_at_once(
    parts: Parts, name: str, shard_map: ShardMap
) -> tuple[datetime, dict[str, int]]:
    async with contextlib.AsyncExitStack() as stack:
        sessions: dict[str, Any] = {}
        for database, shard in shard_map.shards.items():
            session = parts.monitor.session(shard.primary.instance)
            sessions[database] = await stack.enter_async_context(session)
        for attempt in range(TRIES):
            await CLOCK.sleep(attempt * PAUSE_SECONDS)
            try:
                at, lsns = await _try(sessions.values(), name)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                continue
            async with asyncio.timeout(DURABLE_SECONDS):
                await every(lambda each: each.execute(_CONFIRM, name), sessions.values())
            return at, dict(zip(sessions, lsns, strict=True))
    raise Refused(
        "Writers did not come to rest: no restore point was made.",
        hint="A long transaction is open; end it, then try again.",
    )


async def _try(sessions: Collection[Any], name: str) -> tuple[datetime, list[int]]:
    """Where each database is while all are held. Raises asyncpg's errors when one cannot be."""
    async with contextlib.AsyncExitStack() as stack:
        for session in sessions:
            await stack.enter_async_context(session.transaction())
            await session.execute("SET LOCAL synchronous_commit = local")
            await session.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")

        async def hold(session: Any) -> None:
            await session.execute(_ROWS)
            await session.execute(_LOCKS)
            if await session.fetchval(_BEING_MOVED):
                raise Refused("Slots are being handed over.", hint="Try again in some seconds.")

        async def point(session: Any) -> int:
            lsn: int = await session.fetchval(_POINT, name)
            await session.execute(_FLUSH, name)
            return lsn

        await every(hold, sessions)
        at = CLOCK.now()
        return at, await every(point, sessions)


async def listed(parts: Parts) -> Sequence[Point]:
    """Oldest first, from all stores that answer. Raises `Unavailable` when none does."""
    found: dict[str, Point] = {}
    problems: list[Problem] = []
    for vault in parts.shelves.vaults.values():
        try:
            for each in await vault.store.list(f"{FOLDER}/"):
                if each.name not in found:
                    found[each.name] = parse(await vault.get(each.name))
        except Unavailable as error:
            problems.append(error)
    if problems and len(problems) == len(parts.shelves.vaults):
        raise problems[0]
    return sorted(found.values(), key=lambda each: each.at)


async def resolve(parts: Parts, database: str, target: Target) -> Target:
    """A target by name as a target by LSN. Raises `NotFound` for an unknown point or database."""
    if sum(each is not None for each in (target.time, target.lsn, target.name)) > 1:
        raise Invalid("A target is a time, a position or a name: one of them.")
    if target.name is None:
        return target
    for point in await listed(parts):
        if point.name == target.name:
            if database not in point.lsns:
                raise NotFound(f"{database} did not exist at the restore point {point.name}.")
            return replace(target, name=None, lsn=point.lsns[database])
    raise NotFound(f"No restore point is called {target.name}.", hint="regionctl backup points")
