"""How a reshard ends: taken back (rollback), for good (finish), or given up (abort).

Each leaves no move in the map, rows of a slot only where it is owned, and no shard that owns
nothing: the shards that remain are s1 to the last one that owns a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.nodes import known_map
from control_plane.plans.reshard import BATCH, BUDGET_SECONDS, LOCKS, RUNBOOK, hand_overs
from control_plane.plans.reshard_moves import owned_by_target, owners, runs, transfer_of
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Needless, Refused
from runtime.shardmap import CATALOG, Move, ShardMap

VERBS = ("reshard-finish", "reshard-rollback", "reshard-abort")


def rollback(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    batch: int = BATCH,
    budget: float = BUDGET_SECONDS,
    **asked: Any,
) -> Plan:
    """Every slot that was handed over goes back to its source, and new shards end."""
    known = known_map(shard_map)
    if not known.moves:
        raise Needless(
            "Nothing can be taken back: no reshard is in progress or soaks.",
            hint="regionctl shard reshard --to N moves slots again",
            runbook=RUNBOOK,
        )
    check_answering(observed, known, _touched(known))
    transfers = [transfer_of(move) for move in reversed(known.moves)]
    owned = owners(known.ranges)
    for each in transfers:
        owned[each.first : each.last + 1] = [each.source] * each.slots
    steps = [
        Step("reopen-moves", {"moves": [transfer_of(move).args() for move in known.moves]}),
        *_settle_owners(known.moves),
        # The whole move: what was handed over last, the map may not have yet.
        *(
            step
            for each in transfers
            for step in hand_overs(each, each.batches(batch), budget, back=True)
        ),
        *_finish_moves(known.moves),
        *_remove_empty(topology, observed, known, owned),
    ]
    taken = [owned_by_target(known, move) for move in known.moves]
    batches = sum(len(runs(slots, batch)) for slots in taken)
    return _plan("reshard-rollback", known, steps, slots=sum(map(len, taken)), handOvers=batches)


def finish(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    early: bool = False,
    **asked: Any,
) -> Plan:
    """The reshard can no longer be taken back; copies of moved slots and empty shards go.

    Refused before the soak is over, unless `early`.
    """
    known = known_map(shard_map)
    until = [move.soak_until for move in known.moves]
    if not until:
        raise Needless("No reshard waits to be finished.", hint="regionctl shard map")
    if not all(until):
        raise Refused(
            "Not every slot was handed over: there is nothing to finish yet.",
            hint="regionctl op list, then regionctl op resume ID, or regionctl shard rollback",
            runbook=RUNBOOK,
        )
    last = max(str(each) for each in until)
    if not early and last > observed.at.isoformat():
        raise Refused(
            f"The soak ends at {last}; until then the reshard can be taken back.",
            hint="wait, or regionctl shard finish --early",
        )
    check_answering(observed, known, _touched(known))
    steps = [
        *_finish_moves(known.moves),
        *_remove_empty(topology, observed, known, owners(known.ranges)),
    ]
    return _plan("reshard-finish", known, steps)


def abort(topology: Topology, observed: Observed, shard_map: ShardMap | None, **asked: Any) -> Plan:
    """Slots stay where they are now, and everything else of an unfinished reshard goes."""
    known = known_map(shard_map)
    if known.moves and all(move.soak_until for move in known.moves):
        raise Refused(
            "Every slot was handed over: there is nothing to abort.",
            hint="regionctl shard rollback, or regionctl shard finish",
            runbook=RUNBOOK,
        )
    check_answering(observed, known, _touched(known))
    steps = [
        *_settle_owners(known.moves),
        *_finish_moves(known.moves, even_different=True),
        *_remove_empty(topology, observed, known, owners(known.ranges)),
    ]
    if not steps:
        raise Needless("No reshard is in progress.", hint="regionctl shard map")
    kept = {
        f"{move.source} to {move.target}": len(owned_by_target(known, move)) for move in known.moves
    }
    return _plan("reshard-abort", known, steps, keptSlots=sum(kept.values()))


def _plan(verb: str, known: ShardMap, steps: Sequence[Step], **expected: Any) -> Plan:
    return Plan(
        verb, "slots", tuple(steps), locks=LOCKS, expected=expected, premises=premises(known)
    )


def _touched(known: ShardMap) -> list[str]:
    return sorted({name for move in known.moves for name in (move.source, move.target)})


def check_answering(observed: Observed, known: ShardMap, databases: Sequence[str]) -> None:
    """Raises `Refused` while a primary that is needed does not answer."""
    for name in databases:
        primary = known.shards[name].primary.instance
        if not observed.running(primary):
            raise Refused(
                f"{primary}, the primary of {name}, does not answer.",
                hint=f"regionctl failover plan {name}",
                runbook="database-failure",
            )


def _settle_owners(moves: Sequence[Move]) -> list[Step]:
    args = [transfer_of(move).args() for move in moves]
    return [Step("settle-owners", {"moves": args})] if moves else []


def _finish_moves(moves: Sequence[Move], *, even_different: bool = False) -> list[Step]:
    if not moves:
        return []
    return [
        *(
            Step("finish-move", {**transfer_of(move).args(), "even_different": even_different})
            for move in moves
        ),
        Step("publish-map"),
    ]


def _remove_empty(
    topology: Topology, observed: Observed, known: ShardMap, owned: Sequence[str]
) -> list[Step]:
    """The shards behind the last one that owns a slot end: first for the services, then at all."""
    shards = [name for name in known.shards if name != CATALOG]
    every = list(dict.fromkeys((*topology.shards, *shards)))
    last = max(index for index, name in enumerate(every) if name in set(owned))
    empty = every[last + 1 :]
    if not empty:
        return []
    nodes = [
        node.id
        for name in empty
        for node in topology.with_shards(len(every)).database_nodes(name)
        if observed.state(node.id) != "absent"
    ]
    leaders = [known.shards[name].primary.instance for name in empty if name in known.shards]
    first = [id for id in nodes if id in leaders]
    regions = [each.name for each in topology.regions if each.name not in observed.unreachable]
    then = [id for id in nodes if id not in leaders]
    return [
        Step("retire-shards", {"shards": empty}),
        Step("publish-map"),
        *([Step("stop-retired", {"instances": first})] if first else []),
        *([Step("stop-retired", {"instances": then})] if then else []),
        *([Step("remove-retired", {"instances": nodes})] if nodes else []),
        Step("adopt-shards", {"count": last + 1}),
        Step("ensure-regions", {"regions": regions}),
    ]
