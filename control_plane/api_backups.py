"""Backups over the API: what there is, how archiving goes, what a restore could reach.

Everything that changes something is an operation; see the planners of the same names.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic.alias_generators import to_camel

from control_plane.plane import ControlPlane, plane_of
from control_plane.plans.restore import target_of
from control_plane.steps.backup import point_json
from control_plane.steps.restore import restored_json
from infra.backups import Archive, Backup
from infra.lsn import format_lsn
from runtime.errors import NotFound, Problem

JSON = dict[str, Any]

router = APIRouter()


@router.get("/backups")
async def get_backups(request: Request, database: str | None = None) -> list[JSON]:
    """Oldest first."""
    found = await plane_of(request).provider.backups.list()
    return [each.to_json() for each in found if database in (None, each.database)]


@router.get("/backups/{id}")
async def get_backup(request: Request, id: str) -> JSON:
    return (await _backup(plane_of(request), id)).to_json()


@router.get("/archives")
async def get_archives(request: Request) -> list[JSON]:
    return [archive_json(each) for each in await plane_of(request).provider.backups.archives()]


@router.get("/restore-points")
async def get_points(request: Request) -> list[JSON]:
    """Oldest first."""
    found = await plane_of(request).provider.backups.points()
    return [
        point_json(each.name, each.at.isoformat(), dict(each.lsns), each.map["version"])
        for each in sorted(found, key=lambda point: point.at)
    ]


@router.get("/restorable/{name}")
async def get_restorable(
    request: Request, name: str, at: Annotated[str | None, Query()] = None
) -> JSON:
    """Whether `name`, a database or a backup's id, can be restored to `at`: from which backup.

    Raises what `check_target` raises when it cannot be.
    """
    plane = plane_of(request)
    database, id = name, None
    if name not in plane.topology.databases:
        database, id = (await _backup(plane, name)).database, name
    backup = await plane.provider.backups.check_target(database, target_of(at), id)
    return {"database": database, "id": id, "at": at, "backup": backup.to_json()}


@router.get("/restored/{id}")
async def get_restored(request: Request, id: str) -> JSON:
    return restored_json(await plane_of(request).provider.backups.restored(id))


async def archives_or_none(plane: ControlPlane) -> list[JSON] | None:
    """For the status, which must not fail because nobody can say how archiving goes."""
    try:
        return [archive_json(each) for each in await plane.provider.backups.archives()]
    except Problem:
        return None


def archive_json(archive: Archive) -> JSON:
    """camelCase; LSN in bytes, and as PostgreSQL writes them."""
    found = asdict(archive)
    return {
        **{to_camel(key): value for key, value in found.items()},
        "receivedLsn": None if archive.received is None else format_lsn(archive.received),
        "uploadedLsn": None if archive.uploaded is None else format_lsn(archive.uploaded),
    }


async def _backup(plane: ControlPlane, id: str) -> Backup:
    for each in await plane.provider.backups.list():
        if each.id == id:
            return each
    raise NotFound(f"There is no backup {id!r}.", hint="regionctl backup list")
