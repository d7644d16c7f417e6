"""What an operation must fulfil before it is taken into the records.

Each is asked inside the transaction that takes it, so it still holds when that is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import records, rows
from control_plane.operations import ACTIVE, Operation, conflicts
from control_plane.plan import Plan, broken_premises
from runtime.errors import Invalid, Refused
from runtime.shardmap import ShardMap

NAMED_BY: Mapping[str, tuple[str, ...]] = {
    "failover": ("target",),
    "queue-failover": ("region",),
    "switchover": ("target", "to"),
    "failback": ("to",),
    "relax-sync": ("database",),
    "rejoin": ("database",),
    "backup": ("database",),
    "backup-verify": ("id",),
    "restore": ("database",),
    "restore-discard": ("id",),
    "restore-point": ("name",),
    "scale": ("service",),
    "drill": ("drill",),
}
"""The arguments, first that is given, which become a plan's target as they are."""


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


async def by_key(connection: AsyncConnection, key: str, plan: Plan) -> Operation | None:
    query = select(records.operation.c.id).where(records.operation.c.idempotency_key == key)
    id = await connection.scalar(query)
    if id is None:
        return None
    operation = await rows.load(connection, id)
    if operation.kind != plan.kind:
        raise _taken(operation)
    return operation


def check_same(operation: Operation, verb: str, args: Mapping[str, Any]) -> None:
    """Raises `Invalid` unless `operation`, found by its key, is what is asked for with it again."""
    if not may_be_of(operation.plan, verb, args):
        raise _taken(operation)


def may_be_of(plan: Plan, verb: str, args: Mapping[str, Any]) -> bool:
    """Whether `plan` has this verb, and the target that `args` name if they name one."""
    target = plan.target
    if plan.kind != verb:
        return False
    if verb == "reshard":
        return f" {target}".endswith(f" to {args.get('to')} shards")
    if verb == "scale" and args.get("zone") is not None:
        return target == f"{args.get('service')}.{args['zone']}"
    named = next((args[key] for key in NAMED_BY.get(verb, ()) if args.get(key) is not None), target)
    return bool(named == target)


def _taken(operation: Operation) -> Invalid:
    return Invalid(
        f"The idempotency key belongs to {operation.id}, {operation.kind} {operation.target}.",
        hint="Send a new key for a new request.",
    )
