"""What is forgotten of the past: operations with their steps, reports of drills, and events.

Never forgotten: what has not ended; the newest of everything (numbers are never given twice, and
there is something to look at); what was done since an operation failed that may still be resumed,
for a resumption asks for just that; a report that the disaster-recovery table rests on; shard maps
(a restore asks who owned what); and the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import records
from control_plane.database import Database
from infra.topology_policies import HistoryPolicy

# How much at a time: nobody else can write meanwhile.
AT_ONCE = 200
EVENTS_AT_ONCE = 5000
SETTLED = ("succeeded", "aborted")


@dataclass(frozen=True)
class Past:
    """An operation. `finished_at` is None while it has not ended."""

    id: str
    state: str
    finished_at: datetime | None


@dataclass(frozen=True)
class PastReport:
    id: str
    drill: str
    verdict: str
    saved_at: datetime


@dataclass(frozen=True)
class Forgotten:
    operations: int
    reports: int
    events: int

    @property
    def anything(self) -> bool:
        return self.operations + self.reports + self.events > 0


def outlived(policy: HistoryPolicy, past: Sequence[Past], now: datetime) -> list[str]:
    """The operations to forget, oldest first. `past`: all, newest first."""
    before = now - timedelta(days=policy.operation_days)
    found: list[str] = []
    for each in reversed(past[policy.keep_last :]):
        if each.finished_at is not None and each.finished_at < before:
            found.append(each.id)
        elif each.state not in SETTLED:
            break  # it may be resumed, and then asks what was done since
    return found


def outlived_reports(policy: HistoryPolicy, past: Sequence[PastReport], now: datetime) -> list[str]:
    """The reports to forget. `past`: all, newest first.

    The table (`control_plane.report.verdict_sheet`) rests on the newest report of a drill that is
    not void, and says when it passed last and whether the newest is void: so the newest of each
    drill and verdict stays.
    """
    before = now - timedelta(days=policy.operation_days)
    newest: dict[tuple[str, str], str] = {}
    for each in past:
        newest.setdefault((each.drill, each.verdict), each.id)
    needed = set(newest.values())
    return [
        each.id
        for each in past[policy.keep_last :]
        if each.saved_at < before and each.id not in needed
    ]


async def forget(database: Database, policy: HistoryPolicy, now: datetime) -> Forgotten:
    """Forgets a batch. Call it again while it has forgotten anything."""
    async with database.read() as connection:
        if not await _any(connection, policy, now):
            return Forgotten(0, 0, 0)
    async with database.write() as connection:
        operations = (await _operations(connection, policy, now))[:AT_ONCE]
        reports = (await _reports(connection, policy, now))[:AT_ONCE]
        events = await _events(connection, policy, now)
        for key, ids in (
            (records.request.c.operation_id, operations),
            (records.step.c.operation_id, operations),
            (records.operation.c.id, operations),
            (records.report.c.id, reports),
        ):
            await connection.execute(delete(key.table).where(key.in_(ids)))
        await connection.execute(delete(records.event).where(records.event.c.sequence.in_(events)))
    return Forgotten(len(operations), len(reports), len(events))


async def _any(connection: AsyncConnection, policy: HistoryPolicy, now: datetime) -> bool:
    """Whether there is anything to forget: asked first, because asking stops no writer."""
    return bool(
        await _operations(connection, policy, now)
        or await _reports(connection, policy, now)
        or await _events(connection, policy, now)
    )


async def _operations(
    connection: AsyncConnection, policy: HistoryPolicy, now: datetime
) -> list[str]:
    table = records.operation
    query = select(table.c.id, table.c.state, table.c.finished_at).order_by(table.c.number.desc())
    past = [
        Past(id, state, datetime.fromisoformat(at) if at else None)
        for id, state, at in await connection.execute(query)
    ]
    return outlived(policy, past, now)


async def _reports(connection: AsyncConnection, policy: HistoryPolicy, now: datetime) -> list[str]:
    table = records.report
    told = (table.c.document["drill"].as_string(), table.c.document["verdict"].as_string())
    query = select(table.c.id, *told, table.c.saved_at).order_by(table.c.saved_at.desc())
    past = [
        PastReport(id, drill, verdict, datetime.fromisoformat(at))
        for id, drill, verdict, at in await connection.execute(query)
    ]
    return outlived_reports(policy, past, now)


async def _events(connection: AsyncConnection, policy: HistoryPolicy, now: datetime) -> list[int]:
    """The oldest that may be forgotten: not those of an operation that runs or may be resumed."""
    event, operation = records.event, records.operation
    before = (now - timedelta(days=policy.event_days)).isoformat()
    newest = await connection.scalar(select(func.max(event.c.sequence))) or 0
    unsettled = select(operation.c.id).where(operation.c.state.not_in(SETTLED))
    about = event.c.operation_id.is_(None) | event.c.operation_id.not_in(unsettled)
    query = (
        select(event.c.sequence)
        .where(event.c.sequence <= newest - policy.keep_last, event.c.at < before, about)
        .order_by(event.c.sequence)
        .limit(EVENTS_AT_ONCE)
    )
    return list(await connection.scalars(query))
