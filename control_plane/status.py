"""The PlatformStatus document: the world as observed, beside what should be. Pure.

healthy   every instance runs and every database has a standby in sync
degraded  customers are served, but something is missing, or what they write is not archived
down      customers are not served: no route, no gateway behind it, or a primary is missing
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from infra.provider import InstanceView, Observed
from infra.topology import EDGE, InstanceSpec, Topology
from runtime.shardmap import Shard, ShardMap

JSON = dict[str, Any]
Health = Literal["healthy", "degraded", "down"]


def document(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    entry_url: str,
    pid: int,
    address: str,
    archives: Sequence[JSON] | None = (),
    settling: bool = False,
) -> JSON:
    """`pid` and `address` are the control plane's own; `archives` is None when nobody can say.

    `settling`: the platform has just come up, and archives may not run yet.
    """
    state = health(topology, observed, shard_map)
    archived = bool(topology.instances(kind="archiver"))
    if state == "healthy" and archived and not _archived(archives, settling=settling):
        state = "degraded"
    return {
        "apiVersion": "regionctl/v1",
        "kind": "PlatformStatus",
        "name": topology.name,
        "state": state,
        "at": observed.at.isoformat(),
        "entryUrl": entry_url,
        "route": observed.route,
        "regions": [
            {
                "name": region.name,
                "role": region.role,
                "state": _region_health(topology, observed, region.name),
                "instances": [
                    _instance(spec, observed.instances.get(spec.id))
                    for spec in topology.instances(region=region.name)
                ],
            }
            for region in topology.regions
        ],
        "edge": _instance(topology.instance(EDGE), observed.instances.get(EDGE)),
        "peers": [
            _instance(spec, observed.instances.get(spec.id))
            for spec in topology.instances(kind="peer")
        ],
        "shards": [shard_json(shard, observed) for shard in shard_map.shards.values()]
        if shard_map
        else [],
        "archives": list(archives or ()),
        "mapVersion": shard_map.version if shard_map else None,
        "controlPlane": {"pid": pid, "address": address},
    }


def _archived(archives: Sequence[JSON] | None, *, settling: bool) -> bool:
    """Whether every archive runs, none waits too long for its storage, and none has a hole, which
    the next full backup ends."""
    if archives is None:
        return settling
    whole = [each for each in archives if not each["gap"] and not each["alarm"]]
    return len(whole) == len(archives) and all(settling or each["running"] for each in archives)


def health(topology: Topology, observed: Observed, shard_map: ShardMap | None) -> Health:
    if shard_map is None or not served(topology, observed, shard_map):
        return "down"
    whole = all(observed.running(spec.id) for spec in topology.instances())
    synced = all(shard.sync for shard in shard_map.shards.values())
    return "healthy" if whole and synced else "degraded"


def served(topology: Topology, observed: Observed, shard_map: ShardMap) -> bool:
    """Whether customers are: a route, a gateway behind it, and every primary."""
    if observed.route is None or not observed.running(EDGE):
        return False
    gateways = topology.instances(component="gateway", region=observed.route)
    if not any(observed.running(gateway.id) for gateway in gateways):
        return False
    return all(observed.running(each.primary.instance) for each in shard_map.shards.values())


def _region_health(topology: Topology, observed: Observed, region: str) -> Health:
    running = [observed.running(spec.id) for spec in topology.instances(region=region)]
    if not any(running):
        return "down"
    return "healthy" if all(running) else "degraded"


def _instance(spec: InstanceSpec, view: InstanceView | None) -> JSON:
    role: str | None = None
    if view is not None and view.postgres is not None:
        role = view.postgres.role
    elif view is not None and view.valkey is not None:
        role = view.valkey.role
    return {
        "id": spec.id,
        "kind": spec.kind,
        "service": spec.component,
        "zone": spec.zone,
        "role": role,
        "pid": view.pid if view else None,
        "address": view.address if view else None,
        "state": view.state if view else "absent",
    }


def shard_json(shard: Shard, observed: Observed) -> JSON:
    primary = observed.postgres(shard.primary.instance)
    followers = {each.instance: each for each in primary.followers} if primary else {}
    standbys = []
    for end in shard.replicas:
        follower = followers.get(end.instance)
        standbys.append(
            {
                "id": end.instance,
                "sync": end.instance in shard.sync,
                "streaming": follower is not None and follower.streaming,
                "lagSeconds": follower.lag_seconds if follower else None,
            }
        )
    return {
        "name": shard.name,
        "epoch": shard.epoch,
        "home": shard.home,
        "primary": shard.primary.instance,
        "standbys": standbys,
    }
