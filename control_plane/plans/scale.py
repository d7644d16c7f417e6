"""Scale: a service gets more or fewer instances in a zone, or in each zone that serves.

And hold: for some time no service is scaled but by hand, because somebody measures or repairs.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil
from typing import Any

from control_plane.plan import Plan, Step
from control_plane.plans.nodes import known_map
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Invalid, Refused
from runtime.shardmap import CATALOG, ShardMap

HOLD = "scale-hold"
LONGEST_HOLD_SECONDS = 86_400.0


def service_lock(service: str, zone: str) -> str:
    """Held by what changes how many instances `service` has in `zone` ("us-east-1a")."""
    return f"service:{service}.{zone}"


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    service: str,
    to: int,
    zone: str | None = None,
    **asked: Any,
) -> Plan:
    """`to` instances of `service` in `zone` ("us-east-1a"); in each zone of the region that serves
    when none is named. Empty when they are there. Raises `Refused` for a zone that is down.
    """
    known = known_map(shard_map)
    region = observed.route or known.shards[CATALOG].home
    zones = [zone] if zone is not None else _zones(topology, region)
    wanted = topology
    for each in zones:
        wanted = wanted.with_instances(service, each, to)
    if down := sorted(each for each in zones if _down(observed, each)):
        raise Refused(
            f"{', '.join(down)} cannot be reached: nothing can be started or stopped there.",
            hint="regionctl status; regionctl scale list",
        )
    changed = [each for each in zones if not _as_wanted(topology, observed, service, each, to)]
    return Plan(
        "scale",
        f"{service}.{zone}" if zone is not None else service,
        tuple(
            Step("set-instances", {"service": service, "zone": each, "count": to})
            for each in changed
        ),
        locks=tuple(service_lock(service, each) for each in changed),
        expected={each: f"{topology.count(service, each)} to {to}" for each in changed},
    )


def as_many_as(
    topology: Topology, observed: Observed, former: Collection[str], region: str
) -> list[Step]:
    """Before or after `region` takes over from the regions `former`: its zones together have as
    many instances of each service as theirs together, within the bounds of each zone.

    Of a service that has the least everywhere nothing is known but that it is enough: the least of
    `region` stays. Nothing is taken away, and nothing is started in a zone that is held down. On
    AWS it is `failover.grow` that does this.
    """
    if topology.aws is not None:
        return []
    zones = [zone for zone in _zones(topology, region) if zone not in observed.unreachable]
    theirs = [zone for name in former if name != region for zone in _zones(topology, name)]
    policy, steps = topology.scaling, list[Step]()
    for service in topology.services:
        counts = [topology.count(service, zone) for zone in theirs]
        if not zones or max(counts, default=0) <= policy.min_instances:
            continue
        wanted = min(ceil(sum(counts) / len(zones)), policy.max_instances)
        steps += [
            Step("ensure-instances", {"service": service, "zone": zone, "least": wanted})
            for zone in zones
            if topology.count(service, zone) < wanted
        ]
    return steps


def _zones(topology: Topology, region: str) -> list[str]:
    return [region + letter for letter in topology.region(region).zones]


def _down(observed: Observed, zone: str) -> bool:
    return bool({zone, zone[:-1]} & observed.unreachable)


def _as_wanted(topology: Topology, observed: Observed, service: str, zone: str, count: int) -> bool:
    """There are so many, all run, and the gateways send requests to them and to no others: what is
    otherwise may be left of a change that failed."""
    region = zone[:-1]
    own = topology.instances(component=service, region=region, zone=zone[-1])
    all_of = frozenset(each.id for each in topology.instances(component=service, region=region))
    told = [
        observed.targets[gateway.id].get(service, frozenset())
        for gateway in topology.instances(component="gateway", region=region)
        if gateway.id in observed.targets
    ]
    return (
        topology.count(service, zone) == count
        and all(observed.running(each.id) for each in own)
        and all(each == all_of for each in told)
    )


def hold(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    seconds: float,
    **asked: Any,
) -> Plan:
    """Services are scaled by hand only for so long; 0 ends an earlier hold."""
    known_map(shard_map)
    if not 0 <= seconds <= LONGEST_HOLD_SECONDS:
        raise Invalid(f"Scaling is held for at most a day, not {seconds:g} s.", hint="--for 2h")
    return Plan(HOLD, topology.name, (Step("hold-scaling", {"seconds": seconds}),))
