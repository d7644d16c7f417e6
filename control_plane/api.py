"""The HTTP API under /v1: parse, call, answer. Who may ask is decided before (`gate`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from control_plane import (
    access,
    api_access,
    api_backups,
    api_events,
    api_overview,
    api_scaling,
    api_shards,
    api_slo,
    arguments,
    drills,
    report,
    status,
)
from control_plane.events import FINAL, Event, follow
from control_plane.gate import Gate, actor_of, asked_of, problem_answer
from control_plane.guards import check_generation, digest
from control_plane.operations import Operation
from control_plane.plan import Plan
from control_plane.plane import ControlPlane, plane_of
from control_plane.plans import PLANNERS
from control_plane.schemas import OperationRequest, PlanRequest, ReasonRequest
from control_plane.store import Store
from infra.local import doctor
from infra.local.supervisor import tail
from runtime.errors import Invalid, NotFound, Problem

log = logging.getLogger(__name__)

JSON = dict[str, Any]
IDLE_SECONDS = 10.0
CONTROL_PLANE = "control-plane"

VERBS: dict[str, Callable[..., Plan]] = {**PLANNERS, "drill": drills.plan}
"""What may be asked for, and which pure function plans it."""


public = APIRouter()
v1 = APIRouter(prefix="/v1")
LastEventId = Annotated[int, Header(alias="last-event-id", ge=0, lt=2**63)]


@public.get("/health/live")
async def live(request: Request) -> JSON:
    settings = plane_of(request).settings
    return {"status": "live", "pid": os.getpid(), "stateDir": str(settings.state_dir)}


@v1.get("/status")
async def get_status(request: Request) -> JSON:
    plane = plane_of(request)
    return status.document(
        plane.topology,
        await plane.provider.observe(),
        await plane.store.shard_map(),
        archives=await api_backups.archives_or_none(plane),
        settling=plane.settling,
        entry_url=plane.provider.entry_url(),
        pid=os.getpid(),
        address=plane.settings.address,
    )


@v1.get("/topology")
async def get_topology(request: Request) -> JSON:
    topology = plane_of(request).topology
    return {**asdict(topology), "digest": topology.digest()}


@v1.get("/shard-map")
async def get_shard_map(request: Request) -> JSON:
    shard_map = await plane_of(request).store.shard_map()
    if shard_map is None:
        raise NotFound("There is no shard map yet.", hint="regionctl up makes the first.")
    return shard_map.to_json()


async def make_plan(plane: ControlPlane, verb: str, asked: PlanRequest) -> Plan:
    """The plan of `verb` for the world as it is now.

    Raises `NotFound` for an unknown verb, `Invalid` for arguments that it does not take, and what
    the planner itself raises.
    """
    planner = VERBS.get(verb)
    if planner is None:
        raise NotFound(f"There is no verb {verb!r}.", hint=f"One of: {', '.join(VERBS)}")
    args = arguments.check(verb, planner, {**asked.args, "reason": asked.reason})
    observed = await plane.provider.observe()
    shard_map = await plane.store.shard_map()
    args.update(await api_shards.facts_for(plane, verb, shard_map))
    return planner(plane.topology, observed, shard_map, **args)


@v1.post("/plans/{verb}")
async def post_plan(request: Request, verb: str, asked: PlanRequest) -> JSON:
    """What the verb would do, with its digest and the generation to expect (`OperationRequest`)."""
    plane = plane_of(request)
    generation = await plane.store.generation()
    plan = await make_plan(plane, verb, asked)
    return {**plan.to_json(), "digest": plan.digest(), "generation": generation}


@v1.post("/operations", status_code=202)
async def post_operation(request: Request, asked: OperationRequest) -> JSON:
    plane, actor = plane_of(request), actor_of(request)
    access.check(actor, access.needed_for(asked.verb), asked.verb)
    wanted = digest(asked.verb, asked.args)
    if asked.idempotency_key is not None:
        # Before planning: the operation itself may have made its own plan impossible by now.
        earlier = await plane.store.operation_by_key(asked.idempotency_key, wanted)
        if earlier is not None:
            return earlier.to_json()
    if asked.expect_generation is not None:
        # The plan is another one then, or none: that is not what is to be told.
        check_generation(asked.expect_generation, await plane.store.generation())
    plan = await make_plan(plane, asked.verb, asked)
    operation = await plane.store.create_operation(
        plan,
        asked.reason,
        asked.idempotency_key,
        actor.name,
        role=actor.role,
        generation=asked.expect_generation,
        request=wanted,
    )
    return operation.to_json()


@v1.get("/operations")
async def get_operations(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> list[JSON]:
    operations = await plane_of(request).store.operations(limit=limit)
    return [operation.to_json() for operation in operations]


async def _operation(request: Request, id: str) -> Operation:
    return await plane_of(request).store.operation(id)


@v1.get("/operations/{id}")
async def get_operation(operation: Annotated[Operation, Depends(_operation)]) -> JSON:
    return operation.to_json()


@v1.post("/operations/{id}/resume", status_code=202)
async def resume_operation(
    request: Request,
    operation: Annotated[Operation, Depends(_operation)],
    asked: ReasonRequest,
) -> JSON:
    """It needs the role that the operation itself needed."""
    access.check(actor_of(request), access.needed_for(operation.kind), operation.kind)
    return (await plane_of(request).store.resume(operation.id, asked_of(request))).to_json()


@v1.post("/operations/{id}/abort", status_code=202)
async def abort_operation(request: Request, id: str, asked: ReasonRequest) -> JSON:
    store = plane_of(request).store
    return (await store.abort(id, asked.reason, asked_of(request))).to_json()


@v1.get("/operations/{id}/events", response_class=EventSourceResponse)
async def follow_operation(
    request: Request,
    operation: Annotated[Operation, Depends(_operation)],
    last_event_id: LastEventId = 0,
) -> AsyncIterator[ServerSentEvent]:
    """The operation's events as they happen; ends when it has ended."""
    async for event in _follow(request, last_event_id, operation.id):
        yield event


@v1.get("/events", response_class=EventSourceResponse)
async def follow_all(
    request: Request, last_event_id: LastEventId = 0
) -> AsyncIterator[ServerSentEvent]:
    """Every event as it happens, for as long as the token is good."""
    async for event in _follow(request, last_event_id, None):
        yield event


async def _follow(
    request: Request, after: int, operation_id: str | None
) -> AsyncIterator[ServerSentEvent]:
    plane, actor = plane_of(request), actor_of(request)
    store = plane.store

    async def read(after: int) -> list[Event]:
        if not await plane.tokens.still_good(actor):
            raise _Revoked
        return await store.events(after=after, operation_id=operation_id)

    if operation_id is not None and await _ended(store, operation_id, after):
        return
    with contextlib.suppress(_Revoked):
        async for event in follow(read, store.bell, after=after, idle_seconds=IDLE_SECONDS):
            if event is not None:
                after = event.sequence
                yield ServerSentEvent(id=str(after), event=event.kind, data=event.to_json())
            pause = event is None or event.kind in FINAL
            if pause and operation_id is not None and await _ended(store, operation_id, after):
                return


class _Revoked(Exception):
    """The token that the stream was asked for with is good no more."""


async def _ended(store: Store, id: str, after: int) -> bool:
    """The operation has ended and nothing is left to tell. (One that was resumed failed before.)"""
    operation = await store.operation(id)
    return operation.finished and not await store.events(after=after, operation_id=id, limit=1)


@v1.get("/events/past")
async def get_events(
    request: Request,
    operation: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
) -> list[JSON]:
    events = await plane_of(request).store.past_events(limit=limit, operation_id=operation)
    return [event.to_json() for event in events]


@v1.get("/drills")
async def get_drills(request: Request) -> list[JSON]:
    objectives = {each.scenario: each for each in plane_of(request).topology.objectives}
    return [
        {
            "name": drill.name,
            "title": drill.title,
            "scenario": drill.scenario,
            "hypothesis": drill.hypothesis,
            "faults": list(drill.faults),
            "lossless": drill.lossless,
            "unharmed": drill.unharmed,
            "runbook": drill.runbook,
            "objective": asdict(objectives[drill.scenario])
            if drill.scenario in objectives
            else None,
        }
        for drill in drills.DRILLS.values()
    ]


@v1.get("/drills/history")
async def get_history(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[JSON]:
    return await plane_of(request).store.reports(limit)


@v1.get("/dr")
async def get_dr(request: Request) -> JSON:
    """The disaster-recovery table beside what was measured."""
    plane = plane_of(request)
    reports = await plane.store.reports()
    found = await asyncio.to_thread(doctor.versions)
    versions = {name: version for name, version in found.items() if version is not None}
    return {
        "apiVersion": "regionctl/v1",
        "kind": "VerdictSheet",
        "name": plane.topology.name,
        "items": report.verdict_sheet(plane.topology, reports, versions),
    }


@v1.get("/reports/{id}")
async def get_report(request: Request, id: str) -> JSON:
    return await plane_of(request).store.report(id)


@v1.get("/failovers")
async def get_failovers(request: Request, database: str | None = None) -> list[JSON]:
    found = await plane_of(request).store.failovers(database)
    return [{**each, "at": each["at"].isoformat()} for each in found]


@v1.post("/failovers/{database}/acknowledge")
async def acknowledge(request: Request, database: str, asked: ReasonRequest) -> JSON:
    plane = plane_of(request)
    if database not in plane.topology.databases:
        known = ", ".join(plane.topology.databases)
        raise NotFound(f"There is no database {database!r}.", hint=f"One of: {known}")
    count = await plane.store.acknowledge(database, asked.reason, asked_of(request))
    return {"database": database, "acknowledged": count}


@v1.get("/logs")
async def get_logs(
    request: Request,
    instance: Annotated[list[str] | None, Query()] = None,
    lines: Annotated[int, Query(ge=1, le=10_000)] = 20,
) -> dict[str, list[str]]:
    """The last lines of these instances' logs, or of all; "control-plane" is one of them."""
    plane = plane_of(request)
    names = instance or [*plane.topology.by_id, CONTROL_PLANE]
    servers = [plane.topology.instance(name).id for name in names if name != CONTROL_PLANE]
    found = await plane.provider.logs(servers, lines)
    if CONTROL_PLANE in names:
        found[CONTROL_PLANE] = await asyncio.to_thread(tail, plane.settings.log_file, lines)
    return found


v1.include_router(api_access.router)
v1.include_router(api_events.router)
v1.include_router(api_backups.router)
v1.include_router(api_overview.router)
v1.include_router(api_scaling.router)
v1.include_router(api_shards.router)
v1.include_router(api_slo.router)


def add_routes(app: FastAPI) -> None:
    """All routes behind the gate, and the one renderer of errors."""
    app.add_middleware(Gate)
    app.include_router(public)
    app.include_router(api_overview.metrics)
    app.include_router(v1)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    request.state.problem = error
    return problem_answer(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return await _problem(request, Invalid("; ".join(faults)))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = NotFound if error.status_code == 404 else Problem
    problem = request.state.problem = kind(str(error.detail))
    document = {**problem.document(), "status": error.status_code}
    return JSONResponse(document, error.status_code, media_type="application/problem+json")


async def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    problem = Problem(
        f"{type(error).__name__}: {error}",
        hint="This is a defect of regionctl; the traceback is in: regionctl logs control-plane",
    )
    return await _problem(request, problem)
