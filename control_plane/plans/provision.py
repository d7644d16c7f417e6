"""Bring the platform to its topology: plan = what is missing.

On nothing it makes everything; after a reboot it starts what is there; on a healthy platform it is
empty. The order puts data before servers and servers before clients: no order is accepted before
its synchronous standby has joined.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import (
    follows,
    others,
    standby_beside,
    was_primary,
)
from infra.provider import Observed
from infra.topology import EDGE, MAILBOX, PAYMENT_GATEWAY, Topology
from runtime.errors import Refused
from runtime.shardmap import CATALOG, ShardMap

# Processes here; tasks of Fargate, each of which fetches an image first.
READY_SECONDS, READY_SECONDS_ON_AWS = 30.0, 600.0
FOUNDATION = ("link", "cache", "queue", PAYMENT_GATEWAY, MAILBOX)


def plan(topology: Topology, observed: Observed, shard_map: ShardMap | None, **asked: Any) -> Plan:
    """The steps from `observed` to `topology`. Raises `Refused` when a primary's data is gone."""
    # AWS has no supervisors: Pulumi makes regions, which are looked at once.
    supervised = topology.aws is None or shard_map is None
    observed = _as_left(topology, observed) if supervised else observed
    steps = [
        *(_regions(topology, observed) if supervised else []),
        *_servers(topology, observed, foundation=True),
        *_primaries(topology, observed, shard_map),
        *_map(observed, shard_map),
        # Before any service looks: an empty catalog would be kept for a while.
        *([Step("seed-catalog")] if shard_map is None else []),
        *standbys(topology, observed, shard_map),
        *_servers(topology, observed, foundation=False),
    ]
    if not observed.running(EDGE):
        steps.append(Step("start-servers", {"instances": [EDGE]}))
    home = shard_map.shards[CATALOG].home if shard_map else topology.primary_region.name
    if observed.route is None:
        steps.append(Step("open-route", {"region": home}))
    if steps:
        seconds = READY_SECONDS if topology.aws is None else READY_SECONDS_ON_AWS
        steps.append(Step("await-ready", {"seconds": seconds}))
    if steps and shard_map is not None:
        # A queue that lost power has lost the last second of what was relayed to it.
        shards = [name for name in shard_map.shards if name != CATALOG]
        steps.append(Step("resend-events", {"databases": shards}))
    return Plan(
        "provision", topology.name, tuple(steps), locks=("platform",), premises=premises(shard_map)
    )


def _as_left(topology: Topology, observed: Observed) -> Observed:
    """What runs after `ensure-regions`: that ends whatever runs without its region's supervisor."""
    return replace(
        observed,
        instances={
            id: replace(view, state="stopped")
            if (region := topology.instance(id).region)
            and view.state != "absent"
            and not observed.running(f"supervisor.{region}")
            else view
            for id, view in observed.instances.items()
        },
    )


def _regions(topology: Topology, observed: Observed) -> list[Step]:
    missing = [
        region.name
        for region in topology.regions
        if not observed.running(f"supervisor.{region.name}")
    ]
    return [Step("ensure-regions", {"regions": missing})] if missing else []


def _servers(topology: Topology, observed: Observed, *, foundation: bool) -> list[Step]:
    missing = [
        spec.id
        for spec in topology.instances()
        if spec.kind not in ("postgres", "supervisor")
        and spec.id != EDGE
        and (spec.component in FOUNDATION) == foundation
        and not observed.running(spec.id)
    ]
    return [Step("start-servers", {"instances": missing})] if missing else []


def _known(topology: Topology, shard_map: ShardMap | None) -> list[str]:
    """All databases; but a shard that is not in the map yet, or no more, is a reshard's matter."""
    if shard_map is None:
        return list(topology.databases)
    return [name for name in topology.databases if name in shard_map.shards]


def _primaries(topology: Topology, observed: Observed, shard_map: ShardMap | None) -> list[Step]:
    make, start = [], []
    for database in _known(topology, shard_map):
        designed = topology.designed_primary(database).id
        primary = shard_map.shards[database].primary.instance if shard_map else designed
        state = observed.state(primary)
        if shard_map is None and state in ("absent", "stopped"):
            make.append(primary)
        elif state == "absent":
            raise Refused(
                f"The data of {primary}, the primary of {database}, is gone.",
                hint=f"regionctl failover run {database} --confirm {database}, if a standby lives",
                runbook="database-failure",
            )
        elif state == "stopped":
            start.append(primary)
    steps = [Step("create-primaries", {"instances": make})] if make else []
    if start:
        steps.append(Step("start-databases", {"instances": start}))
    return steps


def _map(observed: Observed, shard_map: ShardMap | None) -> list[Step]:
    if shard_map is None:
        return [Step("adopt-map"), Step("set-epochs", {}), Step("publish-map")]
    steps = []
    behind = [
        name
        for name, shard in shard_map.shards.items()
        if name == CATALOG or shard_map.slots_of(name)  # without slots there are no fence rows
        if (view := observed.postgres(shard.primary.instance)) is None
        or (view.epoch or 0) < _epoch(shard_map, name)
    ]
    if behind:
        steps.append(Step("set-epochs", {"databases": behind}))
    if any(version < shard_map.version for version in observed.map_versions.values()):
        steps.append(Step("publish-map"))
    return steps


def _epoch(shard_map: ShardMap, name: str) -> int:
    """The highest epoch that the fence rows of this database must have."""
    epochs = [owned.epoch for owned in shard_map.slots_of(name)]
    return max(epochs) if epochs else shard_map.shards[name].epoch


def standbys(topology: Topology, observed: Observed, shard_map: ShardMap | None) -> list[Step]:
    """Copies of every database made, started or led back, and the synchronous ones joined."""
    clones, returns, joins = [], [], []
    for database in _known(topology, shard_map):
        shard = shard_map.shards[database] if shard_map else None
        primary = shard.primary.instance if shard else topology.designed_primary(database).id
        nodes = (
            others(topology, shard)
            if shard
            else tuple(n for n in topology.database_nodes(database) if n.id != primary)
        )
        for node in nodes:
            if shard is None or observed.state(node.id) == "absent":
                clones.append({"instance": node.id, "upstream": primary})
            elif not follows(observed, node.id, primary):
                returns.append({"instance": node.id, "upstream": primary})
        beside = standby_beside(topology, database, primary)
        if beside and (shard is None or beside.id not in shard.sync):
            joins.append({"database": database, "standby": beside.id})
    return [
        *return_steps(observed, returns),
        *([Step("clone-standbys", {"standbys": clones})] if clones else []),
        *([Step("join-sync", {"standbys": joins}), Step("publish-map")] if joins else []),
    ]


def return_steps(observed: Observed, returns: list[dict[str, str]]) -> list[Step]:
    """Lost nodes come back as standbys; what only a deposed primary has is exported first."""
    if not returns:
        return []
    deposed = [entry for entry in returns if was_primary(observed, entry["instance"])]
    salvage = [Step("salvage", {"standbys": deposed})] if deposed else []
    return [*salvage, Step("return-standbys", {"standbys": returns})]
