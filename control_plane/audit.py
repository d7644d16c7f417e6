"""The audit log: who wanted what and why, what was planned, and how it ended. Append-only.

    kind     says                                                  outcome
    asked    a change was carried out, or its operation began      what it made, or none
    refused  a guard, a rule of access or a fault stopped it       why
    ended    an operation has ended (or was resumed and has again) its state, and what stopped it

Each entry has the hash of the one before it (`control_plane.chain`), and the table's triggers
refuse updates and deletions. Whoever can write the database's file can forge the whole chain: its
head (`sequence` and `hash` of the last entry), noted elsewhere, is what a forger cannot change.
What is done where no control plane is, `control_plane.audit_file` records.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import records
from control_plane.access import Asked
from control_plane.chain import FIRST, Entry, Kind, Verdict, first_broken, seal
from control_plane.database import Database
from control_plane.plan import Plan

JSON = dict[str, Any]

PAGE = 1000


async def append(
    connection: AsyncConnection,
    now: datetime,
    kind: Kind,
    asked: Asked,
    *,
    operation: str | None = None,
    plan: Plan | None = None,
    outcome: str | None = None,
) -> None:
    """One more entry, inside the write transaction of what it tells of."""
    table = records.audit
    query = select(table.c.sequence, table.c.hash).order_by(table.c.sequence.desc()).limit(1)
    last = (await connection.execute(query)).one_or_none()
    values: JSON = {
        "sequence": 1 if last is None else last.sequence + 1,
        "at": now.isoformat(),
        "kind": kind,
        **asdict(asked),
        "operation": operation,
        "plan": None if plan is None else plan.digest(),
        "steps": None if plan is None else [step.name for step in plan.steps],
        "outcome": outcome,
        "previous": FIRST if last is None else last.hash,
    }
    await connection.execute(insert(table).values(**values, hash=seal(values)))


async def who_asked(connection: AsyncConnection, operation: str) -> Asked | None:
    """Who asked for the operation first; None when that was before there was an audit log."""
    table = records.audit
    query = (
        select(table)
        .where(table.c.operation == operation, table.c.kind == "asked")
        .order_by(table.c.sequence)
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    return Asked(row["actor"], row["role"], row["action"], row["target"], row["reason"])


class Audit:
    """Reads the log."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def entries(
        self,
        *,
        operation: str | None = None,
        actor: str | None = None,
        after: int = 0,
        limit: int = 50,
    ) -> list[Entry]:
        """The last `limit` entries after number `after` that fit, oldest first."""
        table = records.audit
        query = select(table).where(table.c.sequence > after)
        if operation is not None:
            query = query.where((table.c.operation == operation) | (table.c.target == operation))
        if actor is not None:
            query = query.where(table.c.actor == actor)
        query = query.order_by(table.c.sequence.desc()).limit(limit)
        async with self.database.read() as connection:
            found = (await connection.execute(query)).mappings().all()
        return [_entry_of(row) for row in reversed(found)]

    async def verify(self) -> Verdict:
        """Recomputes the whole chain, page by page."""
        count, head = 0, FIRST
        while True:
            entries = await self._page(count)
            broken = first_broken(entries, count, head)
            if broken is not None:
                good = [entry for entry in entries if entry.sequence < broken.sequence]
                return Verdict(count + len(entries), good[-1].hash if good else head, broken)
            if not entries:
                return Verdict(count, head, None)
            count, head = entries[-1].sequence, entries[-1].hash

    async def _page(self, after: int) -> list[Entry]:
        table = records.audit
        query = select(table).where(table.c.sequence > after).order_by(table.c.sequence)
        async with self.database.read() as connection:
            found = (await connection.execute(query.limit(PAGE))).mappings().all()
        return [_entry_of(row) for row in found]


def _entry_of(row: RowMapping) -> Entry:
    steps = row["steps"]
    return Entry(**{**row, "steps": None if steps is None else tuple(steps)})
