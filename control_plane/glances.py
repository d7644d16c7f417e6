"""Operations at a glance: how far each is, without what its steps were told and returned.

A drill of many repeats has hundreds of steps; who looks at all operations each second needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, func, or_, select

from control_plane import records
from control_plane.database import Database
from control_plane.operations import ACTIVE, FINISHED, State

JSON = dict[str, Any]


@dataclass(frozen=True)
class Glance:
    """`done` of `steps` have succeeded; `next_step` is the name of the one after those, in flight
    or pending or what stopped it, None when there is none. `problem`: RFC 9457."""

    id: str
    kind: str
    target: str
    state: State
    steps: int
    done: int
    next_step: str | None
    began_at: datetime
    finished_at: datetime | None
    requested_by: str
    reason: str
    problem: JSON | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


async def glances(database: Database, newest: int) -> list[Glance]:
    """The `newest` operations and all that have not ended, newest first."""
    operation, step = records.operation, records.step
    mine = step.c.operation_id == operation.c.id
    open_step = mine & (step.c.state != "succeeded")
    last = select(operation.c.number).order_by(operation.c.number.desc()).limit(newest)
    query = (
        select(
            operation,
            select(func.count()).where(mine).scalar_subquery().label("steps"),
            select(func.count()).where(open_step).scalar_subquery().label("left"),
            select(step.c.name)
            .where(open_step)
            .order_by(step.c.number)
            .limit(1)
            .scalar_subquery()
            .label("next_step"),
        )
        .where(or_(operation.c.number.in_(last), operation.c.state.in_(ACTIVE)))
        .order_by(operation.c.number.desc())
    )
    async with database.read() as connection:
        return [_glance(row) for row in (await connection.execute(query)).mappings()]


def _glance(row: RowMapping) -> Glance:
    finished = row["finished_at"]
    return Glance(
        id=row["id"],
        kind=row["kind"],
        target=row["target"],
        state=row["state"],
        steps=row["steps"],
        done=row["steps"] - row["left"],
        next_step=row["next_step"],
        began_at=datetime.fromisoformat(row["started_at"] or row["created_at"]),
        finished_at=datetime.fromisoformat(finished) if finished else None,
        requested_by=row["requested_by"],
        reason=row["reason"],
        problem=row["problem"],
    )
