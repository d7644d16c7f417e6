"""The steps of the drills about data: resharding, corruption, and restoring from backups. Pure.

What is killed while slots move is drawn here, from the seed, by its part ("the primary of s3"); who
that is, is known only when it is killed, because primaries change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.plan import Step
from infra.repair import DAMAGES
from infra.topology import Topology
from runtime.errors import Invalid, NotFound
from runtime.shardmap import CATALOG, ShardMap

JSON = dict[str, Any]

MOVING_SECONDS = 1800.0
RESTORING_SECONDS = 900.0
FIRST_HANDOVERS = 8
PRODUCTION_GIGABYTES = 500.0


@dataclass(frozen=True)
class Repeat:
    """One repeat, from 1. `phase` is the wait in seconds before the fault."""

    number: int
    topology: Topology
    known: ShardMap
    seed: int
    rate: float
    phase: float
    target: str | None
    production_gigabytes: float

    @property
    def this(self) -> JSON:
        return {"run": self.number}

    def draw(self) -> random.Random:
        return random.Random(f"{self.seed}/{self.number}")  # noqa: S311  replayable, not a secret


def _begin(repeat: Repeat, seconds: float) -> list[Step]:
    load = {"rate": repeat.rate, "seed": repeat.seed + repeat.number, "max_seconds": seconds}
    return [
        Step("start-probe", {**repeat.this, **load}),
        Step("await-steady", {**repeat.this, "seconds": 2.0, "success": 0.99}),
    ]


def _end(repeat: Repeat) -> list[Step]:
    this = repeat.this
    return [
        Step("stop-probe", this),
        Step("read-back", this),
        Step("check-invariants", this),
        *([Step("self-test", this)] if repeat.number == 1 else []),
    ]


def reshard(repeat: Repeat) -> list[Step]:
    """Twice as many shards and back, with one kill in one of the two directions."""
    if repeat.target is not None:
        raise Invalid("reshard chooses its target itself.", hint="leave --target out")
    this, count = repeat.this, len(repeat.topology.shards)
    way, victim = _victim(repeat)
    steps = [Step("acknowledge", {"databases": _everybody(count)}), *_begin(repeat, MOVING_SECONDS)]
    for name, to in (("grow", 2 * count), ("shrink", count)):
        mine = {**this, "name": name, "to": to}
        steps.append(Step("open-reshard", mine))
        if name == way:
            steps.append(Step("kill-during-move", {**this, "name": name, **victim}))
        steps.append(Step("await-reshard", mine))
        if name == way:
            database = victim["database"]
            awaited = [["failover", database]] if database else []
            steps.append(Step("await-recovery", {**this, "operations": awaited}))
            steps += [Step("await-hold", this), Step("heal-fault", this)]
        steps += [Step("finish-moves", mine), Step("await-redundancy", this)]
    return [*steps, *_end(repeat)]


def _victim(repeat: Repeat) -> tuple[str, JSON]:
    """In which direction, after how many hand-overs, and what: a database or a service."""
    draw, count = repeat.draw(), len(repeat.topology.shards)
    home = next(iter(repeat.known.shards.values())).home
    services = [spec.id for spec in repeat.topology.instances(component="orders", region=home)]
    databases = _everybody(2 * count)[:-1]
    way = draw.choice(("grow", "shrink"))
    handovers = draw.randrange(FIRST_HANDOVERS)
    database = draw.choice((*databases, None))
    return way, {
        "database": database,
        "instance": None if database else draw.choice(services),
        "handovers": handovers,
        "phase_seconds": repeat.phase,
    }


def _everybody(count: int) -> list[str]:
    return [*(f"s{number}" for number in range(1, count + 1)), CATALOG]


def data_corruption(repeat: Repeat) -> list[Step]:
    """Bad rows on one shard, found by the invariants, and put right from a restored copy."""
    this, database = repeat.this, _shard(repeat)
    mine = {**this, "database": database}
    seed = repeat.seed + repeat.number
    fault = {"kind": "corrupt", "target": database, "expires_seconds": 0.0, "seed": seed}
    broken = {
        "fault": fault,
        "databases": [database],
        "moved": [],
        "phase_seconds": repeat.phase,
    }
    steps = [
        _backed_up(repeat, [database]),
        *_begin(repeat, RESTORING_SECONDS),
        Step("await-invariants", this),
        Step("inject-fault", {**this, **broken}),
        Step("detect-corruption", this),
        Step("restore-before", {**mine, "production_gigabytes": repeat.production_gigabytes}),
        Step("merge-rows", mine),
        Step("await-repaired", mine),
        Step("await-hold", this),
        *_end(repeat),
        Step("heal-fault", this),
    ]
    return [*steps, *_tested(repeat, [database]), Step("discard-copies", this)]


def backup_restore(repeat: Repeat) -> list[Step]:
    """Every database restored as if all its servers were lost at one moment under load."""
    if repeat.target is not None:
        raise Invalid("backup-restore restores every database.", hint="leave --target out")
    databases = list(repeat.topology.databases)
    this = repeat.this
    mine = {**this, "databases": databases}
    steps = [
        _backed_up(repeat, databases),
        *_begin(repeat, RESTORING_SECONDS),
        Step("assume-loss", {**mine, "phase_seconds": repeat.phase}),
        Step("restore-copies", {**mine, "production_gigabytes": repeat.production_gigabytes}),
        Step("inspect-copies", mine),
        Step("await-hold", this),
        *_end(repeat),
    ]
    return [*steps, *_tested(repeat, databases[:1]), Step("discard-copies", this)]


def _backed_up(repeat: Repeat, databases: list[str]) -> Step:
    """The database whose backups are damaged later needs an incremental one."""
    chained = databases[:1] if repeat.number == 1 else []
    return Step("ensure-backups", {**repeat.this, "databases": databases, "chained": chained})


def _shard(repeat: Repeat) -> str:
    """The shards that have users in turn, or always the target."""
    used = [name for name in repeat.known.shards if repeat.known.slots_of(name)]
    if repeat.target is None:
        return used[(repeat.number - 1) % len(used)]
    if repeat.target not in used:
        raise NotFound(f"There is no shard {repeat.target!r}.", hint=f"One of: {', '.join(used)}")
    return repeat.target


def _tested(repeat: Repeat, databases: list[str]) -> list[Step]:
    """The damages that a restore must notice, once a drill."""
    if repeat.number > 1:
        return []
    kinds = list(DAMAGES)
    return [Step("plant-damages", {**repeat.this, "database": databases[0], "kinds": kinds})]


STEPS: Mapping[str, Callable[[Repeat], list[Step]]] = {
    "reshard": reshard,
    "data-corruption": data_corruption,
    "backup-restore": backup_restore,
}
