"""Old backups are removed, whole chains at a time, with the WAL that nothing kept needs."""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step
from control_plane.plans.backup import backup_lock, restore_lock
from control_plane.plans.nodes import known_map
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Invalid
from runtime.shardmap import ShardMap


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    keep_full: int | None = None,
    **asked: Any,
) -> Plan:
    """The newest `keep_full` full backups of each database stay, with what builds on them.

    Nothing is written, read back or restored meanwhile: the locks of all databases are held.
    """
    known_map(shard_map)
    keep = topology.backups.keep_full if keep_full is None else keep_full
    if keep < 1:
        raise Invalid("At least one full backup of each database is kept.", hint="--keep-full 1")
    locks = [lock(each) for lock in (backup_lock, restore_lock) for each in topology.databases]
    step = Step("prune-backups", {"keep_full": keep})
    return Plan("prune", topology.name, (step,), locks=tuple(locks), expected={"keepFull": keep})
