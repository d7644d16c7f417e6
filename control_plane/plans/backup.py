"""Backups: taken now, and read back to see that they are good."""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step
from control_plane.plans.nodes import known_map
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import ShardMap

ALL = "all"
KINDS = ("full", "incremental")


def backup_lock(database: str) -> str:
    """Held by what writes, reads through or removes the backups of `database`."""
    return f"backup:{database}"


def restore_lock(database: str) -> str:
    """Held by what restores `database`. A backup may be taken meanwhile, none may be removed."""
    return f"restore:{database}"


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    database: str = ALL,
    kind: str | None = None,
    **asked: Any,
) -> Plan:
    """A base backup of `database`, or of each in turn.

    Without `kind` an incremental one, which is a full one where nothing is there to build on.
    """
    known = known_map(shard_map)
    if kind is not None and kind not in KINDS:
        raise Invalid(f"There is no kind of backup {kind!r}.", hint=f"One of: {', '.join(KINDS)}")
    names = [each for each in databases_of(topology, database) if each in known.shards]
    if not names:
        raise Refused(f"{database} is still being made.", hint="regionctl op list")
    steps = [Step("take-backup", {"database": each, "kind": kind or KINDS[1]}) for each in names]
    return Plan("backup", database, tuple(steps), locks=tuple(map(backup_lock, names)))


def verify(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    id: str,
    database: str | None = None,
    **asked: Any,
) -> Plan:
    """Everything that a restore from backup `id` would read is downloaded and checked.

    `database` is whose backup it is, for the lock; without it all are held.
    """
    known_map(shard_map)
    names = databases_of(topology, database or ALL)
    step = Step("verify-backup", {"id": id})
    return Plan("backup-verify", id, (step,), locks=tuple(map(backup_lock, names)))


def databases_of(topology: Topology, database: str) -> tuple[str, ...]:
    """The databases that are meant. Raises `NotFound`."""
    if database == ALL:
        return topology.databases
    if database not in topology.databases:
        names = ", ".join((*topology.databases, ALL))
        raise NotFound(f"There is no database {database!r}.", hint=f"One of: {names}")
    return (database,)
