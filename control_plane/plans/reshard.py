"""Reshard: more shards or fewer, while users write.

New shards exist with their standbys before they take a slot. Then, for each move: copy and follow,
rehearse the fence, hand over a batch of slots at a time. The source follows the target until the
soak ends; until then `control_plane/plans/reshard_end.py` can take everything back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import known_map, standby_beside
from control_plane.plans.reshard_estimate import Facts, estimate
from control_plane.plans.reshard_moves import Transfer, minimal_moves
from infra.provider import Observed
from infra.topology import MOST_SHARDS, Topology
from runtime.errors import Invalid, Needless, Refused
from runtime.shardmap import CATALOG, ShardMap

LOCKS = ("reshard",)
RUNBOOK = "reshard"
BATCH = 32
SOAK_SECONDS = 600.0
BUDGET_SECONDS = 0.25


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    to: int,
    batch: int = BATCH,
    soak: float = SOAK_SECONDS,
    budget: float = BUDGET_SECONDS,
    facts: Facts | None = None,
    **asked: Any,
) -> Plan:
    """From the shards there are to `to` of them, `batch` slots a hand-over.

    `soak` is how long (seconds) it can be taken back afterwards, `budget` how long a fence may
    stand before it is taken down again, `facts` what sizes and times are estimated from.
    """
    known = known_map(shard_map)
    _check_asked(to, batch, soak, budget)
    check_nothing_moves(known)
    wanted = topology.with_shards(to)
    now = [name for name in known.shards if name != CATALOG]
    moves = minimal_moves(known.ranges, wanted.shards)
    if not moves and len(now) == to:
        raise Needless(
            f"There are {to} shards already, and the slots are dealt evenly.",
            hint="regionctl shard map",
        )
    check_whole(topology, observed, known)
    new = [name for name in wanted.shards if name not in known.shards]
    steps = [
        Step("check-moves", {"moves": [move.args() for move in moves]}),
        *(_provision(wanted, new) if new else []),
        *(step for move in moves for step in _move(move, batch, budget)),
        Step("begin-soak", {"moves": [move.args() for move in moves], "seconds": soak}),
    ]
    return Plan(
        "reshard",
        f"{len(now)} to {to} shards",
        tuple(steps),
        locks=LOCKS,
        expected=estimate(moves, batch, facts or Facts()),
        premises=premises(shard_map),
    )


def _check_asked(to: int, batch: int, soak: float, budget: float) -> None:
    if not isinstance(to, int) or not 1 <= to <= MOST_SHARDS:
        raise Invalid(
            f"There are 1 to {MOST_SHARDS} shards, not {to}.", hint="regionctl shard plan --to 4"
        )
    if not isinstance(batch, int) or not 1 <= batch <= 256:
        raise Invalid(f"A batch has 1 to 256 slots, not {batch}.", hint=f"--batch {BATCH}")
    if not 0 <= soak <= 30 * 86400:
        raise Invalid(
            f"The soak is 0 to 2592000 seconds (30 days), not {soak:g}.",
            hint=f"--soak {SOAK_SECONDS:g}",
        )
    if not 0 < budget <= 5:
        raise Invalid(f"A fence may stand for at most 5 seconds, not {budget:g}.")


def check_nothing_moves(known: ShardMap) -> None:
    """Raises `Refused` while a reshard is not over."""
    if not known.moves:
        return
    until = [move.soak_until for move in known.moves]
    if all(until):
        raise Refused(
            f"The last reshard can still be taken back (until {max(map(str, until))}).",
            hint="regionctl shard finish --early, or regionctl shard rollback",
            runbook=RUNBOOK,
        )
    raise Refused(
        "A reshard is not over: "
        + ", ".join(f"{move.source} to {move.target}" for move in known.moves)
        + ".",
        hint="regionctl op list, then regionctl op resume ID, shard rollback or shard abort",
        runbook=RUNBOOK,
    )


def check_whole(topology: Topology, observed: Observed, known: ShardMap) -> None:
    """Raises `Refused` unless every database has its primary and a standby in sync, and every
    region is there: a move under failover would wait, and a new shard could not be made whole."""
    missing = [f"{name} has no standby in sync" for name, s in known.shards.items() if not s.sync]
    missing += [
        f"{shard.primary.instance} does not answer"
        for shard in known.shards.values()
        if not observed.running(shard.primary.instance)
    ]
    missing += [f"{place} cannot be reached" for place in sorted(observed.unreachable)]
    if missing:
        raise Refused(
            f"Slots are moved only on a whole platform. Missing: {'; '.join(missing)}.",
            hint="regionctl status -w, regionctl up; after a region failover: "
            "regionctl failback run",
            runbook=RUNBOOK,
        )


def _provision(wanted: Topology, new: Sequence[str]) -> list[Step]:
    """The new shards with their standbys, which own nothing yet."""
    clones, joins = [], []
    for name in new:
        primary, *others = wanted.database_nodes(name)
        clones += [{"instance": node.id, "upstream": primary.id} for node in others]
        beside = standby_beside(wanted, name, primary.id)
        if beside is not None:
            joins.append({"database": name, "standby": beside.id})
    links = [spec.id for spec in wanted.instances(kind="link")]
    return [
        # A shard of that name that was given up has left some, which would be taken for theirs.
        Step("forget-backups", {"databases": list(new)}),
        Step("adopt-shards", {"count": len(wanted.shards)}),
        Step("ensure-regions", {"regions": [region.name for region in wanted.regions]}),
        *([Step("start-servers", {"instances": links})] if links else []),
        Step("create-primaries", {"instances": [wanted.designed_primary(n).id for n in new]}),
        Step("adopt-new-shards", {"shards": list(new)}),
        Step("set-epochs", {"databases": list(new)}),
        Step("publish-map"),
        Step("clone-standbys", {"standbys": clones}),
        Step("join-sync", {"standbys": joins}),
        Step("publish-map"),
    ]


def _move(move: Transfer, batch: int, budget: float) -> list[Step]:
    args = move.args()
    batches = move.batches(batch)
    return [
        Step("begin-move", args),
        Step("start-move", args),
        Step("await-copy", args),
        Step("rehearse-move", {**args, "slots": list(batches[0]), "budget_seconds": budget}),
        *hand_overs(move, batches, budget),
    ]


def hand_overs(
    move: Transfer, batches: Sequence[tuple[int, int]], budget: float, *, back: bool = False
) -> list[Step]:
    return [
        Step(
            "hand-over",
            {**move.args(), "slots": [first, last], "budget_seconds": budget, "back": back},
        )
        for first, last in batches
    ]
