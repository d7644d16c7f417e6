"""The HTTP API about the platform as a whole: the page that dashboards show, and its metrics."""

from __future__ import annotations

import asyncio
import json
import os

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from control_plane import api_backups, api_shards, exposition, overview
from control_plane.glances import glances
from control_plane.plane import ControlPlane, plane_of

router = APIRouter()
metrics = APIRouter()


@router.get("/overview")
async def get_overview(request: Request) -> Response:
    """See `control_plane.overview`. Dashboards that ask at the same time get the same page."""
    return Response(await _newest(plane_of(request)), media_type="application/json")


@metrics.get("/metrics")
async def get_metrics(request: Request) -> Response:
    """For Prometheus, which needs a token too; see `control_plane.exposition`."""
    plane = plane_of(request)
    page = json.loads(await _newest(plane))
    moved = [(each["database"], each["kind"], each["at"]) for each in await plane.store.failovers()]
    return Response(exposition.text(page, moved), media_type=CONTENT_TYPE_LATEST)


async def _newest(plane: ControlPlane) -> bytes:
    return await plane.pages.get(lambda: _page(plane))


async def _page(plane: ControlPlane) -> bytes:
    # First the generation: what changes meanwhile makes it an old one, and what is planned by this
    # page is refused.
    generation = await plane.store.generation()
    shard_map = await plane.store.shard_map()
    operations, observed, moves, archives = await asyncio.gather(
        glances(plane.store.database, overview.SHOWN_OPERATIONS),
        plane.provider.observe(),
        api_shards.moves(plane, shard_map),
        api_backups.archives_or_none(plane),
    )
    document = overview.document(
        plane.topology,
        observed,
        shard_map,
        generation=generation,
        operations=operations,
        measured=plane.sampler.measured,
        archives=archives,
        moves=moves,
        entry_url=plane.provider.entry_url(),
        pid=os.getpid(),
        address=plane.settings.address,
        settling=plane.settling,
    )
    return json.dumps(document, separators=(",", ":")).encode()
