"""Commits stop waiting for a lost standby: the shard keeps writing, and can lose data from then on.

The standby is recorded as out of sync, durably, before the primary is told: whoever decides about a
promotion later must not find it still recorded in sync.
"""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import known_shard
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
    """Refused while a recorded standby answers."""
    shard = known_shard(shard_map, database)
    answering = [name for name in shard.sync if observed.running(name)]
    if answering:
        raise Refused(f"{answering[0]} answers: nothing has failed.", hint="regionctl status")
    return Plan(
        "relax-sync",
        database,
        (
            Step("record-unsynced", {"databases": [database]}),
            Step("set-sync", {"instance": shard.primary.instance, "standbys": []}),
            Step("publish-map"),
        ),
        locks=(f"database:{database}",),
        premises=premises(shard_map, [database]),
    )
