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

from control_plane import drills_data, drills_load, drills_service
from control_plane.objectives import ObjectiveName
from control_plane.plan import Plan, Step
from control_plane.plans import failover
from infra.provider import Observed
from infra.repair import DAMAGES
from infra.topology import Topology
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import ShardMap

JSON = dict[str, Any]
FaultName = Literal["kill", "freeze", "corrupt", "loss"]
Measure = Literal["service", "repair", "restore"]

PHASE_SECONDS = 1.0
RATE = 40.0


@dataclass(frozen=True)
class Drill:
    """`scenario` names the row of the objectives that the drill is judged by, `hypothesis` what
    must be true for it to pass. `lossless`: no acknowledged order may be lost, whatever the row
    allows. `unharmed`: no request with an idempotency key may fail. `limits` are its own, in
    seconds, and go before those of the row. `measure`: what its recovery time ends with (orders
    are taken again, the rows are right again, or every restored copy is proven). `damages`
    are planted in copies of backups; each must be noticed."""

    name: str
    title: str
    scenario: str
    hypothesis: str
    faults: tuple[FaultName, ...]
    lossless: bool
    unharmed: bool = False
    limits: tuple[tuple[ObjectiveName, float], ...] = ()
    measure: Measure = "service"
    damages: tuple[str, ...] = ()

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
        Drill(
            "reshard",
            "Twice as many shards and back, under writes, with one kill in between",
            "reshard",
            "No write is lost or made twice, no request with an idempotency key fails, and every "
            "hand-over of slots pauses its users for a tenth of a second at most.",
            ("kill",),
            lossless=True,
            unharmed=True,
            limits=(("pause", 0.1),),
        ),
        Drill(
            "data-corruption",
            "A bad UPDATE and a bad DELETE hit the rows of a shard",
            "data-corruption",
            "The invariants find it; the rows come back from a copy restored to just before it, "
            "and everything that was written since is kept.",
            ("corrupt",),
            lossless=True,
            measure="repair",
            damages=DAMAGES,
        ),
        Drill(
            "backup-restore",
            "All servers of every database are taken for lost",
            "data-corruption",
            "Every database is restored from another region, each page and row is right, and no "
            "write is missing that was acknowledged a second before.",
            ("loss",),
            lossless=True,
            limits=(("rpo", 1.0),),
            measure="restore",
            damages=DAMAGES,
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


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    drill: str,
    fault: str | None = None,
    repeat: int = 1,
    seed: int = 1,
    rate: float = RATE,
    target: str | None = None,
    production_gigabytes: float = drills_data.PRODUCTION_GIGABYTES,
    load: str | None = None,
    load_rate_scale: float = 1.0,
    load_seconds: float | None = None,
    **asked: Any,
) -> Plan:
    """The whole drill, `repeat` times over. `target`: a database, an instance of a service, or the
    region that serves.

    `production_gigabytes` is the size of one database for which the time of a restore is
    extrapolated. `load` is a profile of load tests that runs beside the probe.

    Raises `Refused` unless the platform is whole: a drill on a wounded platform proves nothing
    and may finish it off.
    """
    spec = find(drill)
    fault = fault or spec.faults[0]
    if fault not in spec.faults:
        raise Invalid(
            f"{drill} has no fault {fault!r}.", hint=f"--fault {' or '.join(spec.faults)}"
        )
    if not 1 <= repeat <= 100 or not 1 <= rate <= 200:
        raise Invalid("A drill repeats 1 to 100 times, at a rate of 1 to 200 arrivals a second.")
    if not 0 < production_gigabytes <= 1e9:
        raise Invalid("A database has more than 0 and at most 1e9 gigabytes.")
    beside = drills_load.check(load, load_rate_scale, load_seconds, seed)
    known = check_whole(topology, observed, shard_map)
    steps: list[Step] = []
    if data := drills_data.STEPS.get(drill):
        for number in range(1, repeat + 1):
            chance = phase(seed, number)
            run = data(
                drills_data.Repeat(
                    number, topology, known, seed, rate, chance, target, production_gigabytes
                )
            )
            run.append(Step("judge", {"run": number, "drill": drill}))
            steps += drills_load.under(beside, number, drill, run)
    else:
        runs = drills_service.runs(topology, known, drill, fault, repeat, target)
        for number, each in enumerate(runs, start=1):
            probe = {"rate": rate, "seed": seed + number}
            run = drills_service.steps(
                drill, each, number, last=number == repeat, load=probe, phase=phase(seed, number)
            )
            steps += drills_load.under(beside, number, drill, run)
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
