"""A platform on AWS as it is designed: what a plan without an account stands on. Pure.

Everything runs and follows, and nobody knows how far behind another region is. `home` is the region
that serves: the primary one, or one that was failed over to.
"""

from __future__ import annotations

from datetime import UTC, datetime

from infra.provider import Follower, InstanceView, Observed, PostgresView, ValkeyView
from infra.topology import InstanceSpec, Topology
from runtime.shardmap import Endpoint, Shard, ShardMap, even_ranges

PORTS = {"postgres": 5432, "valkey": 6379}


def observed(topology: Topology, home: str | None = None) -> Observed:
    home = home or topology.primary_region.name
    views = {spec.id: _view(topology, spec, home) for spec in topology.instances()}
    return Observed(datetime(1970, 1, 1, tzinfo=UTC), views, route=home)


def shard_map(topology: Topology, home: str | None = None) -> ShardMap:
    """Every database at home in `home` under epoch 1."""
    home = home or topology.primary_region.name
    shards = {}
    for name in topology.databases:
        primary, *others = _nodes(topology, name, home)
        sync = tuple(spec.id for spec in others if spec.region == home)[:1]
        replicas = tuple(_endpoint(spec) for spec in others)
        shards[name] = Shard(name, 1, home, _endpoint(primary), replicas, sync)
    queues = {
        region.name: _endpoint(topology.instances(component="queue", region=region.name)[0])
        for region in topology.regions
    }
    return ShardMap(1, even_ranges(topology.shards, 1), shards, queues)


def _nodes(topology: Topology, database: str, home: str) -> list[InstanceSpec]:
    """The writer first, which is the first of its region."""
    return sorted(topology.database_nodes(database), key=lambda node: node.region != home)


def _view(topology: Topology, spec: InstanceSpec, home: str) -> InstanceView:
    postgres, valkey = None, None
    if spec.kind == "postgres":
        primary, *others = _nodes(topology, spec.component, home)
        if spec.id == primary.id:
            followers = tuple(_follower(each, primary) for each in others)
            sync = tuple(each.instance for each in followers if each.sync)
            postgres = PostgresView("primary", sync_names=sync, followers=followers)
        else:
            postgres = PostgresView("standby", upstream=primary.id)
    if spec.kind == "valkey":
        first = topology.instances(component=spec.component, region=spec.region)[0].id
        role = spec.id == first
        valkey = ValkeyView("primary") if role else ValkeyView("replica", upstream=first)
    return InstanceView(spec.id, "running", postgres=postgres, valkey=valkey)


def _follower(spec: InstanceSpec, primary: InstanceSpec) -> Follower:
    beside = spec.region == primary.region
    return Follower(spec.id, True, beside, 0, 0.0 if beside else None)


def _endpoint(spec: InstanceSpec) -> Endpoint:
    return Endpoint(spec.id, spec.region, spec.zone, "", PORTS[spec.kind])
