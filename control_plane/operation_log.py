"""Operations and their steps in the database: create, claim, record, resume, abort.

Every method is one transaction, and what it changes is told as an event of the same transaction;
what somebody asked for, and how it ended, as an entry of the audit log too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from sqlalchemy import Insert, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import audit, guards, records, rows
from control_plane.access import PLATFORM, Asked, Role
from control_plane.database import Database
from control_plane.events import Bell, Event
from control_plane.operations import (
    ACTIVE,
    FINISHED,
    Claim,
    Operation,
    State,
    StepRecord,
    Superseded,
)
from control_plane.plan import Plan
from runtime.clock import Clock
from runtime.errors import Refused

JSON = dict[str, Any]
PROMOTE = "promote"


class OperationLog:
    """`bell` rings at every event; `waiting` is set when there is an operation to claim."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.bell = Bell()
        self.waiting = asyncio.Event()

    async def operations(
        self,
        *,
        states: Collection[State] | None = None,
        kinds: Collection[str] | None = None,
        limit: int | None = None,
    ) -> list[Operation]:
        """Newest first."""
        query = select(records.operation).order_by(records.operation.c.number.desc())
        if states is not None:
            query = query.where(records.operation.c.state.in_(list(states)))
        if kinds is not None:
            query = query.where(records.operation.c.kind.in_(list(kinds)))
        if limit is not None:
            query = query.limit(limit)
        async with self.database.read() as connection:
            found = (await connection.execute(query)).mappings().all()
            steps = await rows.steps_of(connection, [row["id"] for row in found])
        return [rows.operation_of(row, steps[row["id"]]) for row in found]

    async def operation(self, id: str) -> Operation:
        """Raises `NotFound`."""
        async with self.database.read() as connection:
            return await rows.load(connection, id)

    async def operation_by_key(self, key: str, request: str | None = None) -> Operation | None:
        """Raises `Invalid` when another request than `request` (`guards.digest`) had the key."""
        async with self.database.read() as connection:
            return await guards.by_key(connection, key, request)

    async def generation(self) -> int:
        """A number that grows whenever the shard map changes or an operation is created."""
        async with self.database.read() as connection:
            return await guards.generation(connection)

    async def create_operation(
        self,
        plan: Plan,
        reason: str,
        idempotency_key: str | None,
        requested_by: str,
        *,
        role: Role = PLATFORM.role,
        generation: int | None = None,
        request: str | None = None,
    ) -> Operation:
        """Stores `plan` to be run at once; the same key again returns the first operation.

        `role` is that of `requested_by`; `generation`, when given, is what it must still be;
        `request` (`guards.digest`) is what came with the key, by default the verb alone.

        Raises `Refused`, naming the holder, when an unfinished operation holds a lock that
        conflicts: operations do not queue, because a plan is true only when it is made. Raises
        `Refused` for another generation, `Invalid` when the key was another request's.
        """
        table = records.operation
        request = request or guards.digest(plan.kind, {})
        async with self.database.write() as connection:
            if idempotency_key is not None:
                earlier = await guards.by_key(connection, idempotency_key, request)
                if earlier is not None:
                    return earlier
            if generation is not None:
                guards.check_generation(generation, await guards.generation(connection))
            await guards.check_locks(connection, plan.locks)
            await guards.check_premises(connection, plan)
            number = 1 + (await connection.scalar(select(func.max(table.c.number))) or 0)
            id = f"op-{number}"
            values = self._new_operation(plan, reason, idempotency_key, requested_by)
            await connection.execute(insert(table).values(number=number, id=id, **values))
            if idempotency_key is not None:
                asked_by = insert(records.request).values(operation_id=id, digest=request)
                await connection.execute(asked_by)
            if plan.steps:
                await connection.execute(insert(records.step), rows.new_steps(id, plan))
            data = {"kind": plan.kind, "target": plan.target, "reason": reason}
            await self._tell(connection, id, "operation-created", data)
            asked = Asked(requested_by, role, plan.kind, plan.target, reason)
            now = self.clock.now()
            await audit.append(connection, now, "asked", asked, operation=id, plan=plan)
            operation = await rows.load(connection, id)
        self._changed(waiting=True)
        return operation

    async def claim(self, id: str, worker: str) -> Claim | None:
        """Takes over a pending or running operation under the next epoch, and begins its step.

        None when it needs no worker: it has finished, or had no step left and now has.
        """
        async with self.database.write() as connection:
            operation = await rows.load(connection, id)
            if operation.state not in ACTIVE:
                return None
            epoch = operation.epoch + 1
            now = self.clock.now().isoformat()
            values = {"epoch": epoch, "worker": worker, "state": "running", "heartbeat_at": now}
            if operation.started_at is None:
                values["started_at"] = now
            changed = await connection.execute(
                update(records.operation)
                .where(records.operation.c.id == id)
                .where(records.operation.c.epoch == operation.epoch)
                .values(values)
            )
            if changed.rowcount != 1:
                return None
            await self._tell(connection, id, "operation-claimed", {"epoch": epoch})
            step = operation.next_step
            if step is None:
                await self._finish(connection, id, "succeeded")
            else:
                await self._begin_step(connection, id, step)
        self._changed()
        return None if step is None else Claim(id, epoch, worker)

    async def record_success(self, claim: Claim, number: int, result: Any) -> int | None:
        """Step `number` succeeded with `result` (JSON). Returns the step now begun, if any.

        Raises `Superseded` when the operation was claimed under a higher epoch.
        """
        async with self.database.write() as connection:
            operation = await self._check_claim(connection, claim, (number, number + 1))
            step, *rest = operation.steps
            await self._end_step(connection, operation.id, step, "succeeded", {"result": result})
            if not rest:
                await self._finish(connection, operation.id, "succeeded")
            elif operation.abort_requested:
                await self._finish(connection, operation.id, "aborted")
                rest = []
            else:
                await self._begin_step(connection, operation.id, rest[0])
        self._changed()
        return rest[0].number if rest else None

    async def record_failure(self, claim: Claim, number: int, problem: JSON) -> None:
        """Step `number` raised `problem`. Raises `Superseded` as `record_success` does."""
        async with self.database.write() as connection:
            operation = await self._check_claim(connection, claim, (number,))
            step = operation.steps[0]
            await self._end_step(connection, operation.id, step, "failed", {"problem": problem})
            state: State = "aborted" if operation.abort_requested else "failed"
            await self._finish(connection, claim.operation_id, state, problem)
        self._changed()

    async def resume(self, id: str, by: Asked | None = None) -> Operation:
        """A failed operation goes on at the step that failed.

        Raises `Refused` when it has not failed, when its locks are held by now, or when it would
        promote a node although another operation has worked on the same things since: a primary
        that went on meanwhile may have acknowledged what that node lacks.
        """
        async with self.database.write() as connection:
            operation = await rows.load(connection, id)
            if operation.state != "failed":
                raise Refused(
                    f"{id} is {operation.state}; only a failed operation can be resumed.",
                    hint=f"regionctl op show {id}",
                )
            await guards.check_locks(connection, operation.plan.locks)
            if any(step.name == PROMOTE and step.state != "succeeded" for step in operation.steps):
                await guards.check_untouched(connection, operation)
            values = {
                "state": "pending",
                "finished_at": None,
                "problem": None,
                "abort_requested": False,
            }
            await rows.update_operation(connection, id, values)
            await self._tell(connection, id, "operation-resumed", {})
            await self._record(connection, by, id)
            operation = await rows.load(connection, id)
        self._changed(waiting=True)
        return operation

    async def abort(self, id: str, reason: str, by: Asked | None = None) -> Operation:
        """Stops at once what nobody runs; what runs stops when its step in flight has ended."""
        async with self.database.write() as connection:
            operation = await rows.load(connection, id)
            if operation.state in ("succeeded", "aborted"):
                raise Refused(
                    f"{id} has {operation.state} and cannot be aborted.",
                    hint="What it did is undone by another plan: regionctl status, then failback.",
                )
            await self._tell(connection, id, "abort-requested", {"reason": reason})
            await self._record(connection, by, id)
            if operation.state == "running":
                await rows.update_operation(connection, id, {"abort_requested": True})
            else:
                await self._finish(connection, id, "aborted", operation.problem)
            operation = await rows.load(connection, id)
        self._changed()
        return operation

    async def append_event(
        self, kind: str, data: JSON, operation_id: str | None = None, by: Asked | None = None
    ) -> None:
        """`by` is who wanted it, when somebody did."""
        async with self.database.write() as connection:
            await self._tell(connection, operation_id, kind, data)
            await self._record(connection, by, operation_id)
        self._changed()

    async def ask(self, by: Asked) -> None:
        """Records what is about to be done beyond this database."""
        async with self.database.write() as connection:
            await self._record(connection, by, None)

    async def refuse(self, by: Asked, why: str) -> None:
        """Records that what was asked for has not been done."""
        async with self.database.write() as connection:
            await audit.append(connection, self.clock.now(), "refused", by, outcome=why)

    async def events(
        self, *, after: int = 0, operation_id: str | None = None, limit: int = 500
    ) -> list[Event]:
        """The events after sequence number `after`, oldest first."""
        query = select(records.event).where(records.event.c.sequence > after)
        if operation_id is not None:
            query = query.where(records.event.c.operation_id == operation_id)
        query = query.order_by(records.event.c.sequence).limit(limit)
        async with self.database.read() as connection:
            found = (await connection.execute(query)).mappings().all()
        return [rows.event_of(row) for row in found]

    async def past_events(self, *, limit: int = 50, operation_id: str | None = None) -> list[Event]:
        """The last `limit` events, oldest first."""
        query = select(records.event).order_by(records.event.c.sequence.desc()).limit(limit)
        if operation_id is not None:
            query = query.where(records.event.c.operation_id == operation_id)
        async with self.database.read() as connection:
            found = (await connection.execute(query)).mappings().all()
        return [rows.event_of(row) for row in reversed(found)]

    def _changed(self, *, waiting: bool = False) -> None:
        if waiting:
            self.waiting.set()
        self.bell.ring()

    def _new_operation(self, plan: Plan, reason: str, key: str | None, requested_by: str) -> JSON:
        return {
            "kind": plan.kind,
            "target": plan.target,
            "locks": list(plan.locks),
            "expected": dict(plan.expected),
            "premises": dict(plan.premises),
            "state": "pending",
            "reason": reason,
            "requested_by": requested_by,
            "idempotency_key": key,
            "epoch": 0,
            "abort_requested": False,
            "created_at": self.clock.now().isoformat(),
        }

    async def _check_claim(
        self, connection: AsyncConnection, claim: Claim, numbers: Collection[int]
    ) -> Operation:
        """The operation with these steps only: a drill of many repeats has hundreds."""
        operation = await rows.load(connection, claim.operation_id, numbers)
        if operation.epoch != claim.epoch or operation.state != "running":
            raise Superseded(
                f"{claim.operation_id} was claimed under epoch {operation.epoch}; "
                f"this worker holds epoch {claim.epoch}.",
            )
        await rows.update_operation(
            connection, operation.id, {"heartbeat_at": self.clock.now().isoformat()}
        )
        return operation

    async def _begin_step(self, connection: AsyncConnection, id: str, step: StepRecord) -> None:
        values = {
            "state": "running",
            "attempts": step.attempts + 1,
            "started_at": self.clock.now().isoformat(),
            "started_monotonic": self.clock.monotonic(),
            "finished_at": None,
            "finished_monotonic": None,
            "problem": None,
        }
        await rows.update_step(connection, id, step.number, values)
        data = {"number": step.number, "step": step.name, "args": dict(step.args)}
        await self._tell(connection, id, "step-started", data)

    async def _end_step(
        self, connection: AsyncConnection, id: str, step: StepRecord, state: str, outcome: JSON
    ) -> None:
        now = self.clock.monotonic()
        values = {
            "state": state,
            "finished_at": self.clock.now().isoformat(),
            "finished_monotonic": now,
            **outcome,
        }
        await rows.update_step(connection, id, step.number, values)
        started = step.started_monotonic
        data = {
            "number": step.number,
            "step": step.name,
            "seconds": None if started is None else round(now - started, 6),
            **outcome,
        }
        await self._tell(connection, id, f"step-{state}", data)

    async def _finish(
        self, connection: AsyncConnection, id: str, state: State, problem: JSON | None = None
    ) -> None:
        assert state in FINISHED
        values = {
            "state": state,
            "finished_at": self.clock.now().isoformat(),
            "problem": problem,
        }
        await rows.update_operation(connection, id, values)
        await self._tell(connection, id, f"operation-{state}", {"problem": problem})
        asked = await audit.who_asked(connection, id)
        if asked is None:
            operation = await rows.load(connection, id, ())
            who = operation.requested_by
            asked = Asked(who, PLATFORM.role, operation.kind, operation.target, operation.reason)
        why = f"{state}: {problem.get('detail', '')}" if problem else state
        now = self.clock.now()
        await audit.append(connection, now, "ended", asked, operation=id, outcome=why)

    async def _record(
        self, connection: AsyncConnection, by: Asked | None, operation_id: str | None
    ) -> None:
        if by is not None:
            now = self.clock.now()
            await audit.append(connection, now, "asked", by, operation=operation_id)

    async def _tell(
        self, connection: AsyncConnection, id: str | None, kind: str, data: JSON
    ) -> None:
        await connection.execute(self._event(id, kind, data))

    def _event(self, id: str | None, kind: str, data: JSON) -> Insert:
        return insert(records.event).values(
            operation_id=id,
            kind=kind,
            at=self.clock.now().isoformat(),
            monotonic=self.clock.monotonic(),
            data=data,
        )
