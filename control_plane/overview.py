"""The Overview document: the platform on one page, for dashboards. Pure.

Its state goes further than that of `control_plane.status`: what customers get counts too, so a
platform whose servers all run is degraded while one of its regions is slow or a replica far behind.
`why` names rule, value and threshold of each trouble, `try` a command about the same one
(`control_plane.trouble`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane import status
from control_plane.glances import Glance
from control_plane.status import Health
from control_plane.traffic import Level, Measured, Rates, Series
from control_plane.trouble import Trouble, World
from infra.provider import Observed
from infra.topology import InstanceSpec, RegionSpec, Topology
from runtime.shardmap import Shard, ShardMap

JSON = dict[str, Any]

SHOWN_OPERATIONS = 20
IMPORTANCE: Mapping[str, int] = {
    "failover": 0,
    "queue-failover": 0,
    "restore": 1,
    "drill": 2,
    "switchover": 3,
    "failback": 3,
    "reshard": 4,
    "reshard-rollback": 4,
    "reshard-finish": 4,
    "reshard-abort": 4,
}
OTHERS = 5


def document(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    generation: int,
    operations: Sequence[Glance],
    measured: Measured,
    archives: Sequence[JSON] | None,
    moves: Sequence[JSON],
    entry_url: str,
    pid: int,
    address: str,
    settling: bool = False,
) -> JSON:
    """`generation` is what whoever plans by this page has to expect (`OperationRequest`).
    `operations`: newest first, every unfinished one among them. `moves` are as /v1/reshard shows
    them; for the others see `control_plane.status.document`."""
    specs: dict[str, list[InstanceSpec]] = {}
    for spec in topology.by_id.values():
        specs.setdefault(spec.region, []).append(spec)
    world = World(topology, observed, shard_map, operations, measured, archives, settling, specs)
    troubles = world.of_platform()
    regions = [_region(region, world) for region in topology.regions]
    shards = [_shard(each, world) for each in (shard_map.shards.values() if shard_map else ())]
    wrong = troubles or any(each["why"] for each in (*regions, *shards))
    served = shard_map is not None and status.served(topology, observed, shard_map)
    state: Health = "down" if not served else "degraded" if wrong else "healthy"
    return {
        "apiVersion": "regionctl/v1",
        "kind": "Overview",
        "name": topology.name,
        "provider": topology.provider,
        "at": observed.at.isoformat(),
        "state": state,
        **_lines(troubles),
        "entryUrl": entry_url,
        "route": observed.route,
        "generation": generation,
        "controlPlane": {"pid": pid, "address": address},
        "activity": activity(operations),
        "regions": regions,
        "shards": shards,
        "slo": [_level(level) for level in measured.levels],
        "series": _series(measured.series),
        "operations": [_operation(each) for each in operations[:SHOWN_OPERATIONS]],
        "moves": list(moves),
        "archives": list(archives or ()),
        "invariants": None,
    }


def activity(operations: Sequence[Glance]) -> JSON | None:
    """The unfinished operation that matters most; of several alike the one that was first."""
    running = [each for each in reversed(operations) if not each.finished]
    if not running:
        return None
    most = min(running, key=lambda each: IMPORTANCE.get(each.kind, OTHERS))
    shown = _operation(most)
    return {
        "kind": shown["kind"],
        "operation": shown["id"],
        "target": shown["target"],
        "state": shown["state"],
        "step": shown["step"],
        "steps": shown["steps"],
        "stepName": most.next_step,
        "startedAt": shown["startedAt"],
        "requestedBy": shown["requestedBy"],
        "reason": shown["reason"],
    }


def _operation(operation: Glance) -> JSON:
    """`step` counts from 1: the one in flight or that stopped it; of one that succeeded, the last.

    Of a problem only what it says and what to do; /v1/operations has it whole.
    """
    finished, problem = operation.finished_at, operation.problem
    return {
        "id": operation.id,
        "kind": operation.kind,
        "target": operation.target,
        "state": operation.state,
        "step": min(operation.done + 1, operation.steps),
        "steps": operation.steps,
        "startedAt": operation.began_at.isoformat(),
        "finishedAt": finished.isoformat() if finished else None,
        "requestedBy": operation.requested_by,
        "reason": operation.reason,
        "problem": problem and {"detail": problem.get("detail"), "hint": problem.get("hint")},
    }


def _region(region: RegionSpec, world: World) -> JSON:
    specs = world.specs.get(region.name, ())
    running = len(specs) - len(world.missing(region.name))
    troubles = world.of_region(region.name)
    state: Health = "down" if not running else "degraded" if troubles else "healthy"
    rates = world.measured.regions.get(region.name, Rates())
    return {
        "name": region.name,
        "role": region.role,
        "state": state,
        **_lines(troubles),
        "traffic": {
            "share": world.measured.shares.get(region.name),
            "rate": rates.rate,
            "p99Ms": rates.p99_ms,
            "errorRatio": rates.error_ratio,
        },
        "lagSeconds": world.lags.get(region.name),
        "primaries": world.primaries.get(region.name, 0),
        "instances": {"running": running, "all": len(specs)},
        "budgetLeft": world.measured.budgets.get(region.name),
    }


def _shard(shard: Shard, world: World) -> JSON:
    trouble = world.of_shard(shard)
    down = not world.observed.running(shard.primary.instance)
    state: Health = "down" if down else "degraded" if trouble else "healthy"
    return {
        **status.shard_json(shard, world.observed),
        "slots": world.slots.get(shard.name, 0),
        "state": state,
        **_lines([trouble] if trouble else []),
    }


def _lines(troubles: Sequence[Trouble]) -> JSON:
    """Line by line: the command of a trouble stands where its reason stands."""
    return {"why": [each.why for each in troubles], "try": [each.command for each in troubles]}


def _level(level: Level) -> JSON:
    return {
        "name": level.name,
        "objective": level.objective,
        "since": level.since.isoformat(),
        "good": level.good,
        "budgetLeft": level.budget_left,
        "burn": dict(level.burn),
    }


def _series(series: Series) -> JSON:
    return {
        "stepSeconds": series.step_seconds,
        "until": series.until.isoformat() if series.until else None,
        "rate": [each.rate for each in series.points],
        "p99Ms": [each.p99_ms for each in series.points],
        "errorRatio": [each.error_ratio for each in series.points],
    }
