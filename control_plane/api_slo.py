"""The HTTP API under /v1 about service level objectives: as they are written, as they stand."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from control_plane import slo
from control_plane.plane import plane_of
from infra.slo import file, of_levels

JSON = dict[str, Any]

router = APIRouter()


@router.get("/slo")
async def get_slo(request: Request) -> JSON:
    """How each objective of the topology stands; see `control_plane.slo`."""
    plane = plane_of(request)
    objectives = of_levels(plane.topology.service_levels, plane.topology.name)
    seen = await plane.sampler.seen(slo.lengths(objectives))
    return slo.document(plane.topology.name, slo.standings(objectives, seen), seen)


@router.get("/slo/file")
async def get_slo_file(request: Request) -> JSON:
    """The objectives as they are written: documents of OpenSLO."""
    plane = plane_of(request)
    objectives = of_levels(plane.topology.service_levels, plane.topology.name)
    return file(plane.topology.name, objectives)
