"""Failback: the region that was lost gets its databases back, without losing an order.

First it is rebuilt as a standby of the region that serves now, then the roles are switched.
"""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import follows, known_map
from control_plane.plans.provision import FOUNDATION, return_steps
from control_plane.plans.scale import as_many_as
from control_plane.plans.switchover import hand_over
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Refused
from runtime.shardmap import ShardMap


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    to: str | None = None,
    **asked: Any,
) -> Plan:
    """Everything goes home to `to` (default: the primary region). Empty when it is home already."""
    known = known_map(shard_map)
    home = topology.region(to).name if to else topology.primary_region.name
    away = [shard for shard in known.shards.values() if shard.home != home]
    if not away:
        return Plan("failback", home, (), locks=("platform",))
    returns: list[dict[str, str]] = []
    clones: list[dict[str, str]] = []
    pairs: dict[str, tuple[str, str]] = {}
    for shard in away:
        primary = shard.primary.instance
        if not observed.running(primary):
            raise Refused(
                f"{primary}, the primary of {shard.name}, does not answer.",
                hint=f"regionctl failover plan {shard.name}",
                runbook="database-failure",
            )
        nodes = [node for node in topology.database_nodes(shard.name) if node.region == home]
        if not nodes:
            raise Refused(f"{shard.name} has no node in {home}.", hint="regionctl region list")
        pairs[shard.name] = (primary, nodes[0].id)
        for node in nodes:
            entry = {"instance": node.id, "upstream": primary}
            if observed.state(node.id) == "absent":
                clones.append(entry)
            elif not follows(observed, node.id, primary):
                returns.append(entry)
    steps = [
        *_servers(topology, observed, home, foundation=True),
        *return_steps(observed, returns),
        *([Step("clone-standbys", {"standbys": clones})] if clones else []),
        *_servers(topology, observed, home, foundation=False),
        *as_many_as(topology, observed, sorted({shard.home for shard in away}), home),
        Step("publish-map"),
        *hand_over(topology, observed, pairs, route=home),
    ]
    return Plan(
        "failback",
        home,
        tuple(steps),
        locks=("platform",),
        expected={"lossSeconds": 0.0},
        premises=premises(shard_map),
    )


def _servers(
    topology: Topology, observed: Observed, region: str, *, foundation: bool
) -> list[Step]:
    missing = [
        spec.id
        for spec in topology.instances(region=region)
        if spec.kind not in ("postgres", "supervisor")
        and (spec.component in FOUNDATION) == foundation
        and not observed.running(spec.id)
    ]
    first = [Step("ensure-regions", {"regions": [region]})] if foundation else []
    return [*first, *([Step("start-servers", {"instances": missing})] if missing else [])]
