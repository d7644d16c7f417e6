"""Stop the platform in the order that loses nothing: clients, services, primaries, standbys.

The peers end last, with the edge: a service that ends may still be speaking with them.
"""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step, premises
from infra.provider import Observed
from infra.topology import Topology
from runtime.shardmap import ShardMap


def plan(topology: Topology, observed: Observed, shard_map: ShardMap | None, **asked: Any) -> Plan:
    """Everything stopped cleanly; the data stays. Empty when nothing runs."""
    servers = [
        spec.id
        for spec in topology.instances()
        if spec.kind not in ("postgres", "supervisor") and spec.region and observed.running(spec.id)
    ]
    beyond = [spec.id for spec in topology.instances(region="") if observed.running(spec.id)]
    primaries = [shard.primary.instance for shard in shard_map.shards.values()] if shard_map else []
    running = [spec.id for spec in topology.instances(kind="postgres") if observed.running(spec.id)]
    first = [id for id in primaries if id in running]
    then = [id for id in running if id not in first]
    steps = [
        *([Step("close-route")] if observed.route else []),
        *([Step("stop-servers", {"instances": servers})] if servers else []),
        *(
            Step("stop-databases", {"instances": each, "even_crashed": True})
            for each in (first, then)
            if each
        ),
        *(
            Step("remove-region", {"region": region.name})
            for region in topology.regions
            if observed.running(f"supervisor.{region.name}")
        ),
        *([Step("stop-servers", {"instances": beyond})] if beyond else []),
    ]
    return Plan(
        "decommission",
        topology.name,
        tuple(steps),
        locks=("platform",),
        premises=premises(shard_map),
    )
