"""The HTTP API under /v1 about access: tokens, the audit log, and who the caller is."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from control_plane.gate import actor_of, asked_of
from control_plane.plane import plane_of
from control_plane.schemas import ReasonRequest, TokenRequest

JSON = dict[str, Any]

router = APIRouter()


@router.get("/whoami")
async def who_am_i(request: Request) -> JSON:
    """The name, role and token (an id; null: the root token) that this request came with."""
    return asdict(actor_of(request))


@router.get("/tokens")
async def get_tokens(request: Request) -> list[JSON]:
    """Oldest first, those too that are good no more. No secret is among it."""
    plane = plane_of(request)
    now = plane.clock.now()
    return [token.to_json(now) for token in await plane.tokens.list()]


@router.post("/tokens", status_code=201)
async def post_token(request: Request, asked: TokenRequest) -> JSON:
    """A new token; its text ("token") is in this answer and nowhere else."""
    plane = plane_of(request)
    seconds = asked.lifetime_seconds
    lifetime = None if seconds is None else timedelta(seconds=seconds)
    token, text = await plane.tokens.create(asked.name, asked.role, lifetime, asked_of(request))
    return {**token.to_json(plane.clock.now()), "token": text}


@router.post("/tokens/{id}/revoke")
async def revoke_token(request: Request, id: str, asked: ReasonRequest) -> JSON:
    """It is refused from now on, and streams that were begun with it end."""
    plane = plane_of(request)
    token = await plane.tokens.revoke(id, asked_of(request))
    plane.store.bell.ring()
    return token.to_json(plane.clock.now())


@router.get("/audit")
async def get_audit(
    request: Request,
    operation: str | None = None,
    actor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
) -> list[JSON]:
    """The last entries of the audit log that fit, oldest first."""
    found = await plane_of(request).audit.entries(operation=operation, actor=actor, limit=limit)
    return [entry.to_json() for entry in found]


@router.get("/audit/verify")
async def verify_audit(request: Request) -> JSON:
    """Whether the whole log is as it was written; "broken" names the first entry that is not."""
    return asdict(await plane_of(request).audit.verify())
