"""The HTTP API under /v1 about resharding: how far it is, pause and resume, and what plans need."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from control_plane.gate import asked_of
from control_plane.operations import ACTIVE, Operation
from control_plane.plane import ControlPlane, plane_of
from control_plane.plans.reshard_estimate import Facts
from control_plane.plans.reshard_moves import owned_by_target
from control_plane.schemas import ReasonRequest
from infra.moves import Progress
from runtime.errors import Problem, Refused
from runtime.shardmap import Move, ShardMap

JSON = dict[str, Any]

MOVING = ("reshard", "reshard-rollback")
ALL = (*MOVING, "reshard-finish", "reshard-abort")
PAST = 5

router = APIRouter()


@router.get("/reshard")
async def get_reshard(request: Request) -> JSON:
    """The operation that moves slots now, and every move that is in the map."""
    plane = plane_of(request)
    shard_map = await plane.store.shard_map()
    operation = await _running(plane, ALL)
    return {
        "operation": None if operation is None else operation.id,
        "verb": None if operation is None else operation.kind,
        "paused": operation is not None and await plane.store.reshard_paused(operation.id),
        "items": await moves(plane, shard_map),
    }


async def moves(plane: ControlPlane, shard_map: ShardMap | None) -> list[JSON]:
    """Every move of the map with its progress."""
    if shard_map is None:
        return []
    return [await _move(plane, move, shard_map) for move in shard_map.moves]


@router.post("/reshard/pause")
async def pause(request: Request, asked: ReasonRequest) -> JSON:
    """Copying waits, and no slots are handed over, until somebody resumes it. Durable."""
    return await _set(request, asked, paused=True)


@router.post("/reshard/resume")
async def resume(request: Request, asked: ReasonRequest) -> JSON:
    return await _set(request, asked, paused=False)


async def _set(request: Request, asked: ReasonRequest, *, paused: bool) -> JSON:
    plane = plane_of(request)
    operation = await _running(plane, MOVING)
    if operation is None:
        raise Refused("No slots are being moved.", hint="regionctl op list")
    word = "paused" if paused else "resumed"
    if await plane.store.reshard_paused(operation.id) != paused:
        data = {"message": f"moving slots is {word}: {asked.reason or 'no reason given'}"}
        await plane.store.append_event(f"reshard-{word}", data, operation.id, asked_of(request))
    return {"operation": operation.id, "paused": paused, "reason": asked.reason}


async def _running(plane: ControlPlane, kinds: tuple[str, ...]) -> Operation | None:
    found = await plane.store.operations(states=ACTIVE, kinds=kinds)
    return found[0] if found else None


async def _move(plane: ControlPlane, move: Move, shard_map: ShardMap) -> JSON:
    try:
        progress: Progress | None = await plane.provider.moves.progress(move, shard_map)
        trouble = None if progress is None else progress.problem
    except Problem as problem:
        progress, trouble = None, problem.detail
    return {
        "id": move.id,
        "source": move.source,
        "target": move.target,
        "first": move.first,
        "last": move.last,
        "slots": move.last - move.first + 1,
        "slotsMoved": len(owned_by_target(shard_map, move)),
        "soakUntil": move.soak_until,
        "rows": None if progress is None else progress.rows,
        "copied": None if progress is None else progress.copied,
        "lagBytes": None if progress is None else progress.lag_bytes,
        "healthy": progress is not None and progress.healthy,
        "problem": trouble,
    }


async def facts_for(plane: ControlPlane, verb: str, shard_map: ShardMap | None) -> JSON:
    """What the planner of `verb` needs beside the world: sizes and past times, for an estimate."""
    if verb != "reshard" or shard_map is None:
        return {}
    try:
        sizes = await plane.provider.moves.sizes(shard_map)
    except Problem:
        sizes = {}  # the planner says what is wrong; without it there is only no estimate
    past = await plane.store.operations(kinds=MOVING, limit=PAST)
    results = [
        (step.name, step.result)
        for operation in past
        for step in operation.steps
        if isinstance(step.result, dict)
    ]
    pauses = [each["pauseSeconds"] for _, each in results if each.get("pauseSeconds")]
    speeds = [
        each["rows"] / each["seconds"]
        for name, each in results
        if name == "await-copy" and each.get("rows", 0) >= 1000 and each.get("seconds")
    ]
    return {"facts": Facts(sizes, pauses, speeds)}
