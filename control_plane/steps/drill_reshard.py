"""Effects of the drill "reshard": the real operations, and one kill while slots are handed over."""

from __future__ import annotations

from typing import Any

from control_plane.operations import Operation
from control_plane.steps.drill_fault import inject_fault
from control_plane.steps.drill_files import keep, kept, leave_out, run_folder, unless_left_out
from control_plane.steps.drill_operations import ended, open_once, patiently, told
from control_plane.world import World
from runtime.errors import Refused
from runtime.shardmap import CATALOG, ShardMap

JSON = dict[str, Any]

OPENING_SECONDS = 120.0
RESHARD_SECONDS = 900.0
FINISH_SECONDS = 300.0


@unless_left_out
async def open_reshard(world: World, *, run: int, name: str, to: int) -> JSON:
    """The operation that an operator would open, with no time to take it back afterwards."""
    try:
        operation = await open_once(
            world, run, "reshard", {"to": to, "soak": 0.0}, OPENING_SECONDS, name
        )
    except Refused as problem:
        return leave_out(run_folder(world, run), problem.detail)
    return {"operation": operation.id}


@unless_left_out
async def kill_during_move(
    world: World,
    *,
    run: int,
    name: str,
    database: str | None,
    instance: str | None,
    handovers: int,
    phase_seconds: float,
) -> JSON:
    """Kills `instance`, or the primary that `database` has by then, after so many hand-overs.

    Who that is, is written down before anything is killed: after the failover another one would
    be found.
    """
    folder = run_folder(world, run)
    fault: JSON | None = kept(folder, "victim.json")
    if fault is None:
        target = instance or await _primary(world, run, name, str(database), handovers)
        if target is None:
            return leave_out(folder, f"{database} took no part in the moves")
        fault = {"kind": "kill", "target": target, "expires_seconds": 120.0}
        keep(folder, "victim.json", fault)
    return await inject_fault(
        world, run=run, fault=fault, databases=[], moved=[], phase_seconds=phase_seconds
    )


async def _primary(world: World, run: int, name: str, database: str, handovers: int) -> str | None:
    """Waits until so many hand-overs are done and `database` has a standby; its primary then."""
    found: list[str] = []

    async def reached() -> bool:
        operation = await _operation(world, run, name)
        shard_map = await world.store.shard_map()
        shard = shard_map.shards.get(database) if shard_map else None
        if shard is not None and shard.sync:
            found[:] = [shard.primary.instance]
        done = [s for s in operation.steps if s.name == "hand-over" and s.state == "succeeded"]
        return operation.finished or (bool(found) and len(done) >= handovers)

    await patiently(world, reached, "hand-overs", RESHARD_SECONDS, every=0.05)
    return found[0] if found else None


async def _operation(world: World, run: int, name: str) -> Operation:
    operation = await world.store.operation_by_key(f"{world.operation_id}/{run}/{name}")
    assert operation is not None, name
    return operation


@unless_left_out
async def await_reshard(world: World, *, run: int, name: str, to: int) -> JSON:
    """Waits for the end of the moves. It is not an error that they fail: the evidence says so."""
    operation = await _operation(world, run, name)
    operation = await ended(world, operation.id, RESHARD_SECONDS)
    return {"operation": operation.id, "state": operation.state}


@unless_left_out
async def finish_moves(world: World, *, run: int, name: str, to: int) -> JSON:
    """No move is left in the map, and there are exactly `to` shards.

    The sentinel finishes as well, when the soak is over: whoever is first.
    """
    folder = run_folder(world, run)
    operation = await _operation(world, run, name)
    state: list[str] = []

    async def finished() -> bool:
        shard_map = await world.store.shard_map()
        assert shard_map is not None
        state[:] = _left(shard_map, to)
        if not state or operation.state != "succeeded":
            return not state
        if shard_map.moves:
            try:
                await open_once(world, run, "reshard-finish", {"early": True}, 0.0, f"end-{name}")
            except Refused as problem:
                state.append(problem.detail)
        return False

    seconds = FINISH_SECONDS if operation.state == "succeeded" else 0.0
    done = await patiently(world, finished, "the moves to be over", seconds, every=0.2)
    document = {"operation": told(operation), "finished": done, "detail": "; ".join(state)}
    keep(folder, f"moves-{name}.json", document)
    return {"finished": done, "detail": document["detail"]}


def _left(shard_map: ShardMap, to: int) -> list[str]:
    moves = [f"{move.source} to {move.target}" for move in shard_map.moves]
    shards = [shard for shard in shard_map.shards if shard != CATALOG]
    return moves + ([f"{len(shards)} shards"] if len(shards) != to else [])
