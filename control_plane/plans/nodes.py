"""Questions about database nodes that several planners ask. Pure."""

from __future__ import annotations

from infra.provider import Observed
from infra.topology import InstanceSpec, Topology
from runtime.errors import NotFound, Refused
from runtime.shardmap import Shard, ShardMap


def known_map(shard_map: ShardMap | None) -> ShardMap:
    """Raises `Refused` when nothing has been provisioned yet."""
    if shard_map is None:
        raise Refused("The platform has not been provisioned.", hint="regionctl up")
    return shard_map


def known_shard(shard_map: ShardMap | None, database: str) -> Shard:
    """Raises `NotFound` for an unknown database, `Refused` before there are any."""
    shards = known_map(shard_map).shards
    if database not in shards:
        raise NotFound(f"There is no database {database!r}.", hint=f"One of: {', '.join(shards)}")
    return shards[database]


def others(topology: Topology, shard: Shard) -> tuple[InstanceSpec, ...]:
    """The nodes of a database that are not its primary."""
    nodes = topology.database_nodes(shard.name)
    return tuple(node for node in nodes if node.id != shard.primary.instance)


def standby_beside(topology: Topology, database: str, primary: str) -> InstanceSpec | None:
    """The node that should be the synchronous standby of `primary`: the one in its own region."""
    region = topology.instance(primary).region
    for node in topology.database_nodes(database):
        if node.region == region and node.id != primary:
            return node
    return None


def can_start(observed: Observed, node: InstanceSpec) -> bool:
    """Whether the node's region and zone are there to start something in."""
    return not {node.region, node.region + node.zone} & observed.unreachable


def was_primary(observed: Observed, node: str) -> bool:
    """Whether the node's data directory would start as a primary: its tail must be looked at."""
    view = observed.postgres(node)
    return view is not None and view.role == "primary"


def follows(observed: Observed, node: str, primary: str) -> bool:
    """Whether the node is a standby of `primary`, on the same timeline.

    One that stayed on an older timeline went further there than its primary did: it connects and
    gets nothing, and must be led back.
    """
    view, source = observed.postgres(node), observed.postgres(primary)
    if view is None or view.role != "standby" or view.upstream != primary:
        return False
    timelines = {view.timeline, source.timeline if source else None} - {None}
    return observed.running(node) and len(timelines) <= 1
