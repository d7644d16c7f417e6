"""A lost or deposed node comes back, only ever as a standby, and redundancy is restored."""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import can_start, follows, known_shard, others, standby_beside
from control_plane.plans.provision import return_steps
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Refused
from runtime.shardmap import ShardMap


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    database: str,
    **asked: Any,
) -> Plan:
    """Every node of `database` that can start follows its primary again; the near one in sync."""
    shard = known_shard(shard_map, database)
    primary = shard.primary.instance
    if not observed.running(primary):
        raise Refused(
            f"{primary}, the primary of {database}, does not answer.",
            hint=f"regionctl failover plan {database}",
            runbook="database-failure",
        )
    returns: list[dict[str, str]] = []
    clones: list[dict[str, str]] = []
    for node in others(topology, shard):
        entry = {"instance": node.id, "upstream": primary}
        if not can_start(observed, node) or follows(observed, node.id, primary):
            continue
        (clones if observed.state(node.id) == "absent" else returns).append(entry)
    steps = return_steps(observed, returns)
    if clones:
        steps.append(Step("clone-standbys", {"standbys": clones}))
    beside = standby_beside(topology, database, primary)
    if beside and beside.id not in shard.sync and can_start(observed, beside):
        join = [{"database": database, "standby": beside.id}]
        steps += [Step("join-sync", {"standbys": join}), Step("publish-map")]
    return Plan(
        "rejoin",
        database,
        tuple(steps),
        locks=(f"database:{database}",),
        premises=premises(shard_map, [database]),
    )
