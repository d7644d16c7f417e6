"""Switchover: a planned change of primary, of one database or of a whole region. It loses nothing.

The old primary is shut down cleanly, which sends everything to its standbys; the new one is
promoted only after it is seen to have all of it. Requests wait inside the services meanwhile.
"""

from __future__ import annotations

from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.failover import grow, take_over
from control_plane.plans.nodes import follows, known_map, standby_beside, was_primary
from control_plane.plans.scale import as_many_as
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import NotFound, Refused
from runtime.shardmap import Shard, ShardMap


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    target: str | None = None,
    to: str | None = None,
    **asked: Any,
) -> Plan:
    """`target` is a database (its synchronous standby takes over); or `to` is a region."""
    known = known_map(shard_map)
    if target is not None:
        if target not in known.shards:
            raise NotFound(
                f"There is no database {target!r}.", hint=f"One of: {', '.join(known.shards)}"
            )
        shard = known.shards[target]
        new = next((name for name in shard.sync if observed.running(name)), None)
        if new is None:
            raise Refused(
                f"{target} has no standby in sync: a switchover could lose data.",
                hint="regionctl status; wait until redundancy is restored",
            )
        _healthy(observed, [shard])
        steps = hand_over(topology, observed, {target: (shard.primary.instance, new)})
        return Plan(
            "switchover",
            target,
            tuple(steps),
            locks=(f"database:{target}",),
            premises=premises(shard_map, [target]),
            expected={"primary": new, "lossSeconds": 0.0},
        )
    if to is None:
        raise Refused("Say which database, or --to REGION.", hint="regionctl switchover --help")
    topology.region(to)
    shards = [shard for shard in known.shards.values() if shard.home != to]
    if not shards:
        return Plan("switchover", to, (), locks=("platform",))
    _healthy(observed, shards)
    pairs = {
        shard.name: (shard.primary.instance, _first_in(topology, shard, to)) for shard in shards
    }
    for old, new in pairs.values():
        if not follows(observed, new, old):
            raise Refused(
                f"{new} does not follow {old}.", hint="regionctl up mends it; then try again"
            )
    steps = [
        # First: nobody waits yet, and nothing has been touched if one of them cannot start.
        *as_many_as(topology, observed, sorted({shard.home for shard in shards}), to),
        *hand_over(topology, observed, pairs, route=to),
    ]
    return Plan(
        "switchover",
        to,
        tuple(steps),
        locks=("platform",),
        expected={"lossSeconds": 0.0},
        premises=premises(shard_map),
    )


def _healthy(observed: Observed, shards: list[Shard]) -> None:
    for shard in shards:
        if not observed.running(shard.primary.instance):
            raise Refused(
                f"{shard.primary.instance}, the primary of {shard.name}, does not answer.",
                hint=f"regionctl failover plan {shard.name}",
                runbook="database-failure",
            )


def _first_in(topology: Topology, shard: Shard, region: str) -> str:
    for node in topology.database_nodes(shard.name):
        if node.region == region:
            return node.id
    raise Refused(f"{shard.name} has no node in {region}.", hint="regionctl region list")


def hand_over(
    topology: Topology,
    observed: Observed,
    pairs: dict[str, tuple[str, str]],
    *,
    route: str | None = None,
) -> list[Step]:
    """Each database goes from its old primary to a new one (database → (old, new))."""
    moves = [{"from": old, "to": new} for old, new in pairs.values()]
    takers = {database: new for database, (_, new) in pairs.items()}
    returns, joins = [], []
    for database, (_, new) in pairs.items():
        for node in topology.database_nodes(database):
            if node.id != new and node.region + node.zone not in observed.unreachable:
                returns.append({"instance": node.id, "upstream": new})
        beside = standby_beside(topology, database, new)
        if beside and beside.region + beside.zone not in observed.unreachable:
            joins.append({"database": database, "standby": beside.id})
    olds = {old for old, _ in pairs.values()}
    deposed = [
        entry
        for entry in returns
        if entry["instance"] not in olds and was_primary(observed, entry["instance"])
    ]
    # Aurora stops the writes, waits for the new primary and promotes it, all in one request.
    stops = [
        Step("catch-up", {"moves": moves, "seconds": 30.0}),
        Step("stop-databases", {"instances": [old for old, _ in pairs.values()]}),
        Step("check-caught-up", {"moves": moves}),
    ]
    return [
        *(stops if topology.aws is None else ()),
        Step("record-unsynced", {"databases": list(pairs)}),
        *take_over(topology, takers, kind="switchover"),
        *([*grow(topology, route), Step("open-route", {"region": route})] if route else []),
        *([Step("salvage", {"standbys": deposed})] if deposed else []),
        Step("return-standbys", {"standbys": returns}),
        *([Step("join-sync", {"standbys": joins}), Step("publish-map")] if joins else []),
        *([Step("resend-events", {"databases": list(pairs)})] if route else []),
        # The queue of a region that comes back may hold events of orders that were lost with it.
        *([Step("return-orphan-stock")] if route else []),
    ]
