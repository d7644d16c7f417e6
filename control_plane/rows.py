"""Operation, step and event rows, to and from their dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import records
from control_plane.events import Event
from control_plane.operations import Operation, StepRecord
from control_plane.plan import Plan
from runtime.errors import NotFound

JSON = dict[str, Any]


async def load(
    connection: AsyncConnection, id: str, numbers: Collection[int] | None = None
) -> Operation:
    """The operation with all its steps, or with these only. Raises `NotFound`."""
    query = select(records.operation).where(records.operation.c.id == id)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no operation {id!r}.", hint="regionctl op list shows them all.")
    return operation_of(row, (await steps_of(connection, [id], numbers))[id])


async def steps_of(
    connection: AsyncConnection, ids: Sequence[str], numbers: Collection[int] | None = None
) -> dict[str, list[StepRecord]]:
    found: dict[str, list[StepRecord]] = {id: [] for id in ids}
    query = select(records.step).where(records.step.c.operation_id.in_(ids))
    if numbers is not None:
        query = query.where(records.step.c.number.in_(numbers))
    query = query.order_by(records.step.c.operation_id, records.step.c.number)
    for row in (await connection.execute(query)).mappings():
        found[row["operation_id"]].append(step_of(row))
    return found


async def update_operation(connection: AsyncConnection, id: str, values: Mapping[str, Any]) -> None:
    table = records.operation
    await connection.execute(update(table).where(table.c.id == id).values(**values))


async def update_step(
    connection: AsyncConnection, id: str, number: int, values: Mapping[str, Any]
) -> None:
    table = records.step
    await connection.execute(
        update(table).where(table.c.operation_id == id, table.c.number == number).values(**values)
    )


def new_steps(id: str, plan: Plan) -> list[JSON]:
    return [
        {
            "operation_id": id,
            "number": number,
            "name": step.name,
            "args": dict(step.args),
            "state": "pending",
            "attempts": 0,
        }
        for number, step in enumerate(plan.steps)
    ]


def operation_of(row: RowMapping, steps: Sequence[StepRecord]) -> Operation:
    plan = Plan.from_json(
        {
            "kind": row["kind"],
            "target": row["target"],
            "steps": [{"name": step.name, "args": step.args} for step in steps],
            "locks": row["locks"],
            "expected": row["expected"],
            "premises": row["premises"],
        }
    )
    return Operation(
        id=row["id"],
        plan=plan,
        state=row["state"],
        reason=row["reason"],
        requested_by=row["requested_by"],
        epoch=row["epoch"],
        created_at=datetime.fromisoformat(row["created_at"]),
        steps=tuple(steps),
        idempotency_key=row["idempotency_key"],
        worker=row["worker"],
        heartbeat_at=_time(row["heartbeat_at"]),
        abort_requested=row["abort_requested"],
        started_at=_time(row["started_at"]),
        finished_at=_time(row["finished_at"]),
        problem=row["problem"],
    )


def step_of(row: RowMapping) -> StepRecord:
    return StepRecord(
        number=row["number"],
        name=row["name"],
        args=row["args"],
        state=row["state"],
        attempts=row["attempts"],
        started_at=_time(row["started_at"]),
        started_monotonic=row["started_monotonic"],
        finished_at=_time(row["finished_at"]),
        finished_monotonic=row["finished_monotonic"],
        result=row["result"],
        problem=row["problem"],
    )


def event_of(row: RowMapping) -> Event:
    return Event(
        sequence=row["sequence"],
        operation=row["operation_id"],
        kind=row["kind"],
        at=datetime.fromisoformat(row["at"]),
        monotonic=row["monotonic"],
        data=row["data"],
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
