"""The HTTP API under /v1 about customers' events: how far their consumers are, and dead letters.

A region that is not named is the one that serves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from control_plane.gate import asked_of
from control_plane.plane import ControlPlane, plane_of
from control_plane.schemas import LettersRequest
from runtime.errors import Unavailable

JSON = dict[str, Any]

router = APIRouter()


@router.get("/event-lag")
async def get_lag(request: Request, region: str | None = None) -> JSON:
    """Each consumer group: events not yet handed to it, and not yet acknowledged by it."""
    plane = plane_of(request)
    name = await _region(plane, region)
    groups = await plane.provider.event_lag(name)
    dead = await plane.provider.dead_letters(name)
    return {
        "region": name,
        "items": [{"group": group, **figures} for group, figures in sorted(groups.items())],
        "deadLetters": len(dead),
    }


@router.get("/dead-letters")
async def get_letters(request: Request, region: str | None = None) -> JSON:
    plane = plane_of(request)
    name = await _region(plane, region)
    return {"region": name, "items": list(await plane.provider.dead_letters(name))}


@router.post("/dead-letters/replay")
async def replay(request: Request, asked: LettersRequest) -> JSON:
    """These are handled once more by the group that set them aside."""
    return await _act(request, asked, "replayed", plane_of(request).provider.replay_dead)


@router.post("/dead-letters/drop")
async def drop(request: Request, asked: LettersRequest) -> JSON:
    """These are forgotten."""
    return await _act(request, asked, "dropped", plane_of(request).provider.drop_dead)


@router.get("/invariants")
async def get_invariants(request: Request) -> JSON:
    """What the databases say together, now."""
    return {"items": [dict(each) for each in await plane_of(request).provider.invariants()]}


async def _act(
    request: Request,
    asked: LettersRequest,
    done: str,
    act: Callable[[str, Sequence[str]], Awaitable[int]],
) -> JSON:
    """The act, and the record of who wanted it and why: what is dropped is told there in full."""
    plane = plane_of(request)
    region = await _region(plane, asked.region)
    letters = {each["id"]: each for each in await plane.provider.dead_letters(region)}
    await plane.store.ask(asked_of(request).about(region))
    count = await act(region, asked.ids)
    found = [dict(letters[id]) for id in asked.ids if id in letters]
    message = f"{count} dead letters of {region} {done}"
    data = {"region": region, "count": count, "letters": found, "reason": asked.reason}
    if asked.reason:
        message += f": {asked.reason}"
    await plane.store.append_event(f"dead-letters-{done}", {"message": message, **data}, None)
    return {"region": region, done: count, "ids": [letter["id"] for letter in found]}


async def _region(plane: ControlPlane, asked: str | None) -> str:
    """Raises `NotFound` for an unknown region, `Unavailable` when none is named and none serves."""
    if asked is not None:
        return plane.topology.region(asked).name
    serving = (await plane.provider.observe([])).route
    if serving is None:
        raise Unavailable("No region serves customers.", hint="say which one is meant: --region")
    return serving
