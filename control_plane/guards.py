"""What an operation must fulfil before it is taken into the records.

Each is asked inside the transaction that takes it, so it still holds when that is committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import records, rows
from control_plane.operations import ACTIVE, Operation, conflicts
from control_plane.plan import Plan, broken_premises
from runtime.errors import Invalid, Refused
from runtime.shardmap import ShardMap


async def generation(connection: AsyncConnection) -> int:
    version = select(func.max(records.shard_map.c.version))
    number = select(func.max(records.operation.c.number))
    return (await connection.scalar(version) or 0) + (await connection.scalar(number) or 0)


def check_generation(expected: int, found: int) -> None:
    """Raises `Refused` when the platform is no longer what the caller looked at."""
    if expected != found:
        raise Refused(
            f"The platform has changed since: its generation is {found}, not {expected}.",
            hint="Look again, and plan again: regionctl status, regionctl op list",
            extra={"generation": found},
        )


async def check_premises(connection: AsyncConnection, plan: Plan) -> None:
    """A plan made from a map that has changed since must not be carried out."""
    table = records.shard_map
    query = select(table.c.document).order_by(table.c.version.desc()).limit(1)
    document = await connection.scalar(query)
    shard_map = None if document is None else ShardMap.from_json(document)
    changed = broken_premises(plan, shard_map)
    if changed:
        raise Refused(
            f"{', '.join(changed)} changed while the {plan.kind} of {plan.target} was planned.",
            hint="Plan it again: run the same command once more.",
        )


async def check_locks(connection: AsyncConnection, locks: Iterable[str]) -> None:
    wanted = tuple(locks)
    query = select(records.operation).where(records.operation.c.state.in_(ACTIVE))
    for row in (await connection.execute(query)).mappings():
        if conflicts(wanted, row["locks"]):
            raise Refused(
                f"{row['id']} ({row['kind']} {row['target']}, {row['state']}) holds "
                f"{', '.join(row['locks'])}.",
                hint=f"Wait for it with: regionctl op watch {row['id']}",
                extra={"operation": row["id"], "locks": row["locks"]},
            )


async def check_untouched(connection: AsyncConnection, operation: Operation) -> None:
    """Raises `Refused` when a later operation has run under a conflicting lock."""
    table = records.operation
    mine = select(table.c.number).where(table.c.id == operation.id).scalar_subquery()
    query = select(table).where(table.c.number > mine).order_by(table.c.number)
    for row in (await connection.execute(query)).mappings():
        if conflicts(operation.plan.locks, row["locks"]):
            raise Refused(
                f"{row['id']} ({row['kind']} {row['target']}) has run since {operation.id} failed: "
                "what this one would promote may lack acknowledged writes by now.",
                hint=f"regionctl op abort {operation.id}, then plan it again",
                extra={"operation": row["id"]},
            )


def digest(verb: str, args: Mapping[str, Any]) -> str:
    """SHA-256 of a request, whatever the order of its arguments; null is as if left out."""
    given = {key: value for key, value in args.items() if value is not None}
    return hashlib.sha256(json.dumps([verb, given], sort_keys=True).encode()).hexdigest()


async def by_key(connection: AsyncConnection, key: str, request: str | None) -> Operation | None:
    """The operation that began with this key, by whatever request when none is named.

    Raises `Invalid` when another request than `request` (its digest) began it.
    """
    table, asked = records.operation, records.request
    query = (
        select(table.c.id, asked.c.digest)
        .outerjoin(asked, asked.c.operation_id == table.c.id)
        .where(table.c.idempotency_key == key)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    operation = await rows.load(connection, row.id)
    if request is not None and request != row.digest:
        raise _taken(operation)
    return operation


def _taken(operation: Operation) -> Invalid:
    return Invalid(
        f"The idempotency key belongs to {operation.id}, {operation.kind} {operation.target}.",
        hint="Send a new key for a new request.",
    )
