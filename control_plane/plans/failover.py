"""Failover: a database or a region is lost, another node takes over. It may lose data.

Within a region the synchronous standby has every acknowledged commit, and the old primary cannot
acknowledge another one once that standby is promoted away: nothing is lost and nobody writes twice.
A standby that is not recorded in sync is promoted only with `accept_data_loss` and a reason.
Between regions replication is asynchronous: the loss is stated before and measured after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import known_map
from control_plane.plans.scale import as_many_as
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Needless, NotFound, Refused
from runtime.shardmap import CATALOG, Shard, ShardMap

# Services look for a new map four times a second; a loaded machine takes a little longer.
MAP_READ_SECONDS = 2.0


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    target: str,
    accept_data_loss: bool = False,
    unfenced: bool = False,
    reason: str | None = None,
    **asked: Any,
) -> Plan:
    """The failover of a database ("s1") or of a region ("us-east-1")."""
    need_reason(accept_data_loss or unfenced, reason)
    if target in known_map(shard_map).shards:
        return database(
            topology,
            observed,
            shard_map,
            target=target,
            accept_data_loss=accept_data_loss,
            unfenced=unfenced,
        )
    if target in {region.name for region in topology.regions}:
        return region(
            topology,
            observed,
            shard_map,
            region=target,
            accept_data_loss=accept_data_loss,
            unfenced=unfenced,
        )
    names = ", ".join([*known_map(shard_map).shards, *(region.name for region in topology.regions)])
    raise NotFound(f"There is no database or region {target!r}.", hint=f"One of: {names}")


def need_reason(dangerous: bool, reason: str | None) -> None:
    """Raises `Refused` when a guard is to be overridden without a word why."""
    if dangerous and not (reason or "").strip():
        raise Refused(
            "--accept-data-loss and --unfenced need a reason; the report will quote it.",
            hint='add --reason "why"',
        )


def database(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    target: str,
    accept_data_loss: bool = False,
    unfenced: bool = False,
) -> Plan:
    """The standby of `target` takes over. Refused while the primary answers.

    A standby in sync is the fence itself; with another one the old primary must be proven silent.
    """
    known = known_map(shard_map)
    shard = known.shards[target]
    old = shard.primary.instance
    if observed.running(old):
        raise Needless(
            f"{old}, the primary of {target}, answers: nothing has failed.",
            hint=f"for a planned change without loss: regionctl switchover run {target}",
            runbook="database-failure",
        )
    new = candidate(topology, observed, shard, accept_data_loss=accept_data_loss)
    followers = [
        {"instance": node.id, "upstream": new}
        for node in topology.database_nodes(target)
        if node.id not in (old, new) and observed.running(node.id)
    ]
    steps = [
        Step("confirm-lost", {"instance": old}),
        Step("record-unsynced", {"databases": [target]}),
        Step("fence-instance", {"instance": old, "unfenced": new in shard.sync or unfenced}),
        *take_over(
            topology, {target: new}, kind="failover", lost=[old], lossy=new not in shard.sync
        ),
        *([Step("return-standbys", {"standbys": followers})] if followers else []),
        *([] if new in shard.sync else mend_rows(_shards(known))),
    ]
    return Plan(
        "failover",
        target,
        tuple(steps),
        locks=(f"database:{target}",),
        premises=premises(shard_map, [target]),
        expected={"primary": new, "lossSeconds": 0.0 if new in shard.sync else None},
    )


def candidate(
    topology: Topology, observed: Observed, shard: Shard, *, accept_data_loss: bool
) -> str:
    """The node to promote. Raises `Refused` when that could lose data nobody agreed to lose."""
    for name in shard.sync:
        if observed.running(name):
            return name
    nodes = [
        node
        for node in topology.database_nodes(shard.name)
        if node.id != shard.primary.instance and observed.running(node.id)
    ]
    if not nodes:
        raise Refused(
            f"No standby of {shard.name} answers.",
            hint="start one (regionctl up), or restore from backup",
            runbook="database-failure",
        )
    if not accept_data_loss:
        raise Refused(
            f"No standby of {shard.name} that answers is recorded in sync: promoting "
            f"{nodes[0].id} could lose acknowledged orders.",
            hint=f"bring {shard.primary.instance} back, or add --accept-data-loss --reason …",
            runbook="database-failure",
        )

    def worth(id: str) -> tuple[bool, int]:
        """A deposed primary that somebody started has a position of its own history."""
        view = observed.postgres(id)
        return (view.role == "standby", view.position or 0) if view else (False, 0)

    return max(nodes, key=lambda node: (worth(node.id), node.region == shard.home)).id


def region(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    region: str,
    accept_data_loss: bool = False,
    unfenced: bool = False,
    reason: str | None = None,
    assume_lost: bool = False,
) -> Plan:
    """A DR region takes over everything whose home was `region`.

    `assume_lost` plans for a loss that has not happened yet: a drill prints and inlines this plan
    before it breaks the region.
    """
    shards = [shard for shard in known_map(shard_map).shards.values() if shard.home == region]
    if not shards:
        raise Needless(
            f"{region} is the home of no database: nothing to fail over.", hint="regionctl status"
        )
    answering = [s.primary.instance for s in shards if observed.running(s.primary.instance)]
    if answering and not assume_lost:
        raise Refused(
            f"{region} still answers ({', '.join(answering)}).",
            hint="for a planned move without loss: regionctl switchover run --to REGION",
            runbook="region-failure",
        )
    if not accept_data_loss:
        raise Refused(
            "Replication between regions is asynchronous: orders acknowledged in the last moments "
            f"before {region} was lost may be missing.",
            hint="add --accept-data-loss --reason …",
            runbook="region-failure",
        )
    takers = {shard.name: _taker(topology, observed, shard, region) for shard in shards}
    home = topology.instance(next(iter(takers.values()))).region
    databases = list(takers)
    steps = [
        Step("close-route"),
        Step("fence-region", {"region": region, "unfenced": unfenced}),
        Step("record-unsynced", {"databases": databases}),
        *take_over(topology, takers, kind="region-failover", lossy=True),
        # Before clients come: one that tries again with its key must find the user it made.
        Step("restore-directory"),
        *grow(topology, home),
        Step("open-route", {"region": home}),
        Step("return-orphan-stock"),
        Step("resend-events", {"databases": databases}),
        # Last: what starts takes processors from those who serve, and one that cannot start must
        # leave nothing undone that data needs.
        *as_many_as(topology, observed, [region], home),
    ]
    return Plan(
        "failover",
        region,
        tuple(steps),
        locks=("platform", "region-failover"),
        premises=premises(shard_map, databases),
        expected={"home": home, "lossSeconds": _lag(observed, shards, takers)},
    )


def _taker(topology: Topology, observed: Observed, shard: Shard, lost: str) -> str:
    for node in topology.database_nodes(shard.name):
        if node.region != lost and observed.running(node.id):
            return node.id
    raise Refused(
        f"No replica of {shard.name} outside {lost} answers.",
        hint="restore from backup",
        runbook="region-failure",
    )


def _lag(observed: Observed, shards: list[Shard], takers: dict[str, str]) -> float | None:
    """The largest replication lag that the primaries last reported, in seconds; None: unknown."""
    lags: list[float] = []
    for shard in shards:
        view = observed.postgres(shard.primary.instance)
        found = [
            follower.lag_seconds
            for follower in (view.followers if view else ())
            if follower.instance == takers[shard.name]
        ]
        known = [lag for lag in found if lag is not None]
        if not known:
            return None
        lags += known
    return max(lags)


def take_over(
    topology: Topology,
    takers: dict[str, str],
    *,
    kind: str,
    lost: Sequence[str] = (),
    lossy: bool = False,
) -> list[Step]:
    """Each node of `takers` (database → node) becomes the primary, under a new epoch.

    None does while one of `lost` answers. `lossy`: it may lack acknowledged writes, which somebody
    has agreed to.
    """
    changes = [
        {"database": database, "instance": node, "home": topology.instance(node).region}
        for database, node in takers.items()
    ]
    databases = list(takers)
    promoted: dict[str, Any] = {"instances": list(takers.values()), "lost": list(lost)}
    return [
        Step("promote", promoted | ({"accept_data_loss": True} if lossy else {})),
        Step("advance-map", {"changes": changes}),
        Step("set-epochs", {"databases": databases, "ends_moves": kind == "region-failover"}),
        Step("publish-map"),
        Step("record-failover", {"databases": databases, "kind": kind}),
    ]


def grow(topology: Topology, region: str) -> list[Step]:
    """Where a waiting region runs fewer tasks than one that serves (AWS), it gets all of them."""
    if topology.aws is None:
        return []
    specs = topology.instances(region=region)
    tasks = [spec.id for spec in specs if spec.kind in ("service", "envoy")]
    return [Step("start-servers", {"instances": tasks})]


def mend_rows(shards: list[str]) -> list[Step]:
    """What a database that lost rows owes to the others, and they to it."""
    return [
        Step("restore-directory"),
        Step("return-orphan-stock"),
        Step("resend-events", {"databases": shards}),
    ]


def _shards(known: ShardMap) -> list[str]:
    """Those that the services know: a new one is in the topology before it is in the map."""
    return [name for name in known.shards if name != CATALOG]


def queue(
    topology: Topology, observed: Observed, shard_map: ShardMap | None, *, region: str, **asked: Any
) -> Plan:
    """Another queue of `region` takes the streams. Events that it has not are sent again."""
    known = known_map(shard_map)
    if region not in known.queues:
        hint = f"One of: {', '.join(known.queues)}"
        raise NotFound(f"There is no region {region!r} with a queue.", hint=hint)
    lost = known.queues[region].instance
    if observed.running(lost):
        raise Needless(f"{lost} answers: nothing has failed.", hint="regionctl status")
    for node in topology.instances(component="queue", region=region):
        if node.id != lost and observed.running(node.id):
            return Plan(
                "queue-failover",
                region,
                (
                    Step("promote-queue", {"instance": node.id}),
                    Step("advance-queue", {"region": region, "instance": node.id}),
                    Step("publish-map"),
                    Step("resend-events", {"databases": _shards(known)}),
                    # Once more for what services sent to the old queue before they read the map.
                    Step(
                        "resend-events",
                        {"databases": _shards(known), "settle_seconds": MAP_READ_SECONDS},
                    ),
                ),
                locks=(f"queue:{region}",),
            )
    raise Refused(f"No other queue of {region} answers.", hint="regionctl up")
