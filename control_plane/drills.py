"""Drills: break one thing on purpose, under load, and wrap the real recovery with evidence.

Nothing in the middle of a drill is special to drills. Within a region the drill waits for the
operations that the sentinel opens by itself; for a lost region it asks the planners for the same
failover that an operator would run. `plan` is pure: the same arguments give the same steps, the
random phase before each fault included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from control_plane.plan import Plan, Step
from control_plane.plans import failover
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import ShardMap

JSON = dict[str, Any]
FaultName = Literal["kill", "freeze"]

PHASE_SECONDS = 1.0
PROBE_SECONDS = 300.0
RATE = 40.0
REASON = "drill {drill}"


@dataclass(frozen=True)
class Drill:
    """`scenario` names the row of the objectives that the drill is judged by, `hypothesis` what
    must be true for it to pass. `lossless`: no acknowledged order may be lost, whatever the row
    allows. `unharmed`: no request with an idempotency key may fail."""

    name: str
    title: str
    scenario: str
    hypothesis: str
    faults: tuple[FaultName, ...]
    lossless: bool
    unharmed: bool = False

    @property
    def runbook(self) -> str:
        return self.name


DRILLS: Mapping[str, Drill] = {
    drill.name: drill
    for drill in (
        Drill(
            "service-outage",
            "One instance of the orders service is lost",
            "service-outage",
            "No request that carries an idempotency key fails; the other zone's instance serves.",
            ("kill", "freeze"),
            lossless=True,
            unharmed=True,
        ),
        Drill(
            "database-failure",
            "The primary of a database is lost",
            "database-failure",
            "The synchronous standby takes over by itself and no acknowledged order is lost.",
            ("kill", "freeze"),
            lossless=True,
        ),
        Drill(
            "zone-failure",
            "A zone is lost: its databases, queue, services and gateway",
            "database-failure",
            "The other zone takes over by itself and no acknowledged order is lost.",
            ("kill",),
            lossless=True,
        ),
        Drill(
            "region-failure",
            "The serving region is lost",
            "region-failure",
            "One operation moves everything to the DR region; what is lost is counted exactly and "
            "is no more than the replication lag.",
            ("kill",),
            lossless=False,
        ),
    )
}


def find(name: str) -> Drill:
    """Raises `NotFound`, with the names that exist."""
    try:
        return DRILLS[name]
    except KeyError:
        raise NotFound(
            f"There is no drill {name!r}.", hint=f"One of: {', '.join(DRILLS)}"
        ) from None


@dataclass(frozen=True)
class _Run:
    """One repeat: what is broken, which databases that touches (none named: everything), which
    operations of the sentinel must mend it, and which databases change their primary."""

    fault: JSON
    databases: tuple[str, ...] = ()
    awaited: tuple[tuple[str, str], ...] = ()
    moved: tuple[str, ...] = ()


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    drill: str,
    fault: str = "kill",
    repeat: int = 1,
    seed: int = 1,
    rate: float = RATE,
    target: str | None = None,
    **asked: Any,
) -> Plan:
    """The whole drill, `repeat` times over. `target`: a database or an instance of a service.

    Raises `Refused` unless the platform is whole: a drill on a wounded platform proves nothing
    and may finish it off.
    """
    spec = find(drill)
    if fault not in spec.faults:
        raise Invalid(
            f"{drill} has no fault {fault!r}.", hint=f"--fault {' or '.join(spec.faults)}"
        )
    if not 1 <= repeat <= 100 or not 1 <= rate <= 200:
        raise Invalid("A drill repeats 1 to 100 times, at a rate of 1 to 200 arrivals a second.")
    known = check_whole(topology, observed, shard_map)
    runs = _runs(topology, known, spec, fault, repeat, target)
    steps: list[Step] = []
    for number, run in enumerate(runs, start=1):
        steps += _steps(spec, run, number, last=number == repeat, seed=seed, rate=rate)
    steps.append(Step("write-report", {"drill": drill, "fault": fault, "repeat": repeat}))
    return Plan(
        "drill", drill, tuple(steps), ("drill",), _expected(topology, observed, known, spec)
    )


def check_whole(topology: Topology, observed: Observed, shard_map: ShardMap | None) -> ShardMap:
    """The map of a platform that has nothing missing. Raises `Refused`."""
    missing = wounds(topology, observed, shard_map)
    if shard_map is None or missing:
        raise Refused(
            f"A drill starts only on a whole platform. Missing: {'; '.join(missing)}.",
            hint="regionctl status -w, regionctl up; after a region failover: "
            "regionctl failback run",
        )
    return shard_map


def wounds(topology: Topology, observed: Observed, shard_map: ShardMap | None) -> list[str]:
    """What is missing of full redundancy: servers that do not run, standbys that do not follow."""
    if shard_map is None:
        return ["the platform is not provisioned"]
    found = [f"{s.id} does not run" for s in topology.instances() if not observed.running(s.id)]
    for name, shard in shard_map.shards.items():
        if not shard.sync:
            found.append(f"{name} has no standby in sync")
        view = observed.postgres(shard.primary.instance)
        followers = {f.instance: f for f in view.followers} if view else {}
        for node in topology.database_nodes(name):
            if node.id == shard.primary.instance:
                continue
            follower = followers.get(node.id)
            if follower is None or not follower.streaming:
                found.append(f"{node.id} does not stream from {shard.primary.instance}")
            elif node.id in shard.sync and not follower.sync:
                found.append(f"{node.id} is not synchronous yet")
    return found


def _runs(
    topology: Topology, known: ShardMap, spec: Drill, fault: str, repeat: int, target: str | None
) -> list[_Run]:
    if spec.name == "service-outage":
        return _service_runs(topology, known, fault, repeat, target)
    if spec.name == "database-failure":
        return _database_runs(known, fault, repeat, target)
    if target is not None:
        raise Invalid(f"{spec.name} chooses its target itself.", hint="leave --target out")
    if spec.name == "zone-failure":
        return _zone_runs(topology, known, repeat)
    home = next(iter(known.shards.values())).home
    return [_Run(_fault("kill-region", home), moved=tuple(known.shards))] * repeat


def _service_runs(
    topology: Topology, known: ShardMap, fault: str, repeat: int, target: str | None
) -> list[_Run]:
    """The instances of the orders service in turn, or always `target`."""
    home = next(iter(known.shards.values())).home
    pool = [spec.id for spec in topology.instances(component="orders", region=home)]
    if target is not None:
        if topology.instance(target).kind != "service":
            raise Invalid(f"{target} is not an instance of a service.", hint=f"such as {pool[0]}")
        pool = [target]
    return [_Run(_fault(fault, pool[number % len(pool)])) for number in range(repeat)]


def _database_runs(known: ShardMap, fault: str, repeat: int, target: str | None) -> list[_Run]:
    """Primary and synchronous standby change places at every repeat."""
    name = target or min(known.shards)
    if target is None:
        name = next(shard for shard in known.shards if known.slots_of(shard))
    if name not in known.shards:
        raise NotFound(f"There is no database {name!r}.", hint=f"One of: {', '.join(known.shards)}")
    pair = (known.shards[name].primary.instance, known.shards[name].sync[0])
    return [
        _Run(_fault(fault, pair[number % 2]), (name,), (("failover", name),), (name,))
        for number in range(repeat)
    ]


def _zone_runs(topology: Topology, known: ShardMap, repeat: int) -> list[_Run]:
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
    runs: list[_Run] = []
    for _ in range(repeat):
        hit = [name for name in primary if _zone_of(topology, primary[name]) == zone]
        awaited = [("failover", name) for name in hit]
        for name in hit:
            primary[name], standby[name] = standby[name], primary[name]
        if _zone_of(topology, queue) == zone and len(queues) > 1:
            awaited.append(("queue-failover", home))
            queue = next(id for id in queues if id != queue)
        runs.append(_Run(_fault("kill-zone", zone), (), tuple(awaited), tuple(hit)))
        zone = _zone_of(topology, primary[hit[0]] if hit else standby[next(iter(standby))])
    return runs


def _zone_of(topology: Topology, instance: str) -> str:
    spec = topology.instance(instance)
    return spec.region + spec.zone


def _fault(kind: str, target: str) -> JSON:
    return {"kind": kind, "target": target, "expires_seconds": 60.0 if kind == "freeze" else 120.0}


def _steps(
    spec: Drill, run: _Run, number: int, *, last: bool, seed: int, rate: float
) -> list[Step]:
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
            "reason": REASON.format(drill=spec.name),
        }
        recovery = [Step("run-recovery", {**this, "verb": "failover", "asked": asked})]
    back: list[Step] = []
    if region and not last:
        to = {"to": run.fault["target"]}
        back = [Step("run-return", {**this, "verb": "failback", "asked": to})]
    restored = [Step("await-redundancy", this)] if back or not region else []
    probe = {**this, "rate": rate, "seed": seed + number, "max_seconds": PROBE_SECONDS}
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
                "phase_seconds": phase(seed, number),
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
        Step("judge", {**this, "drill": spec.name}),
        *((*back, *restored) if region else ()),
    ]


def phase(seed: int, run: int) -> float:
    """A wait of 0 to 1 s before the fault, so that repeats meet timers at different moments."""
    digest = hashlib.sha256(f"{seed}/{run}".encode()).digest()
    return round(int.from_bytes(digest[:8], "big") / 2**64 * PHASE_SECONDS, 3)


def _expected(topology: Topology, observed: Observed, known: ShardMap, spec: Drill) -> JSON:
    """What `--dry-run` says beside the steps: the loss to expect and the recovery to be run."""
    if spec.lossless:
        return {"lossSeconds": 0.0}
    home = next(iter(known.shards.values())).home
    recovery = failover.region(
        topology, observed, known, region=home, accept_data_loss=True, assume_lost=True
    )
    return {
        "lossSeconds": recovery.expected.get("lossSeconds"),
        "recovery": [step.to_json() for step in recovery.steps],
    }
