"""The steps of the drills that break servers: a service, a database, a zone, a region. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_plane.plan import Step
from infra.topology import Topology
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import ShardMap

JSON = dict[str, Any]
PROBE_SECONDS = 300.0


@dataclass(frozen=True)
class Run:
    """One repeat: what is broken, which databases that touches (none named: everything), which
    operations of the sentinel must mend it, and which databases change their primary."""

    fault: JSON
    databases: tuple[str, ...] = ()
    awaited: tuple[tuple[str, str], ...] = ()
    moved: tuple[str, ...] = ()


def runs(
    topology: Topology, known: ShardMap, drill: str, fault: str, repeat: int, target: str | None
) -> list[Run]:
    """Raises `Invalid`, `NotFound` or `Refused` for a target that the drill cannot have."""
    if drill == "service-outage":
        return _service_runs(topology, known, fault, repeat, target)
    if drill == "database-failure":
        return _database_runs(known, fault, repeat, target)
    if drill == "zone-failure":
        if target is not None:
            raise Invalid(f"{drill} chooses its target itself.", hint="leave --target out")
        return _zone_runs(topology, known, repeat)
    home = next(iter(known.shards.values())).home
    if target is not None and topology.region(target).name != home:
        raise Refused(
            f"{target} does not serve, {home} does: {drill} breaks the region that serves.",
            hint=f"--region {home}, or leave it out; "
            f"regionctl switchover run --to {target} has the other one serve first",
            runbook="region-failure",
        )
    return [Run(_fault("kill-region", home), moved=tuple(known.shards))] * repeat


def _service_runs(
    topology: Topology, known: ShardMap, fault: str, repeat: int, target: str | None
) -> list[Run]:
    """The instances of the orders service in turn, or always `target`."""
    home = next(iter(known.shards.values())).home
    pool = [spec.id for spec in topology.instances(component="orders", region=home)]
    if target is not None:
        if topology.instance(target).kind != "service":
            raise Invalid(f"{target} is not an instance of a service.", hint=f"such as {pool[0]}")
        pool = [target]
    return [Run(_fault(fault, pool[number % len(pool)])) for number in range(repeat)]


def _database_runs(known: ShardMap, fault: str, repeat: int, target: str | None) -> list[Run]:
    """Primary and synchronous standby change places at every repeat."""
    name = target or min(known.shards)
    if target is None:
        name = next(shard for shard in known.shards if known.slots_of(shard))
    if name not in known.shards:
        raise NotFound(f"There is no database {name!r}.", hint=f"One of: {', '.join(known.shards)}")
    pair = (known.shards[name].primary.instance, known.shards[name].sync[0])
    return [
        Run(_fault(fault, pair[number % 2]), (name,), (("failover", name),), (name,))
        for number in range(repeat)
    ]


def _zone_runs(topology: Topology, known: ShardMap, repeat: int) -> list[Run]:
    """First the zone with the most primaries, then the zone to which they fled, in turn."""
    zones = [
        topology.instance(shard.primary.instance).region
        + topology.instance(shard.primary.instance).zone
        for shard in known.shards.values()
    ]
    zone = max(sorted(set(zones)), key=zones.count)
    primary = {name: shard.primary.instance for name, shard in known.shards.items()}
    standby = {name: shard.sync[0] for name, shard in known.shards.items()}
    home = next(iter(known.shards.values())).home
    queues = [spec.id for spec in topology.instances(component="queue", region=home)]
    queue = known.queues[home].instance
    found: list[Run] = []
    for _ in range(repeat):
        hit = [name for name in primary if _zone_of(topology, primary[name]) == zone]
        awaited = [("failover", name) for name in hit]
        for name in hit:
            primary[name], standby[name] = standby[name], primary[name]
        if _zone_of(topology, queue) == zone and len(queues) > 1:
            awaited.append(("queue-failover", home))
            queue = next(id for id in queues if id != queue)
        found.append(Run(_fault("kill-zone", zone), (), tuple(awaited), tuple(hit)))
        zone = _zone_of(topology, primary[hit[0]] if hit else standby[next(iter(standby))])
    return found


def _zone_of(topology: Topology, instance: str) -> str:
    spec = topology.instance(instance)
    return spec.region + spec.zone


def _fault(kind: str, target: str) -> JSON:
    return {"kind": kind, "target": target, "expires_seconds": 60.0 if kind == "freeze" else 120.0}


def steps(drill: str, run: Run, number: int, *, last: bool, load: JSON, phase: float) -> list[Step]:
    """One repeat. A region goes home between repeats; after the last one that is left to people."""
    this: JSON = {"run": number}
    region = run.fault["kind"] == "kill-region"
    recovery = [
        Step("await-recovery", {**this, "operations": [list(pair) for pair in run.awaited]})
    ]
    if region:
        asked = {
            "target": run.fault["target"],
            "accept_data_loss": True,
            "reason": f"drill {drill}",
        }
        recovery = [Step("run-recovery", {**this, "verb": "failover", "asked": asked})]
    back: list[Step] = []
    if region and not last:
        to = {"to": run.fault["target"]}
        back = [Step("run-return", {**this, "verb": "failback", "asked": to})]
    restored = [Step("await-redundancy", this)] if back or not region else []
    probe = {**this, **load, "max_seconds": PROBE_SECONDS}
    return [
        *([Step("acknowledge", {"databases": list(run.moved)})] if run.moved else []),
        Step("start-probe", probe),
        Step("await-steady", {**this, "seconds": 2.0, "success": 0.99}),
        Step(
            "inject-fault",
            {
                **this,
                "fault": run.fault,
                "databases": list(run.databases),
                "moved": list(run.moved),
                "phase_seconds": phase,
            },
        ),
        *(recovery if run.awaited or region else []),
        Step("await-hold", this),
        Step("heal-fault", this),
        *([] if region else restored),
        Step("stop-probe", this),
        Step("read-back", this),
        Step("check-invariants", this),
        *([Step("self-test", this)] if number == 1 else []),
        Step("judge", {**this, "drill": drill}),
        *((*back, *restored) if region else ()),
    ]
