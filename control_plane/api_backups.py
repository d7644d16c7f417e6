"""Backups over the API: what there is, how archiving goes, what a restore could reach.

Everything that changes something is an operation; see the planners of the same names.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request

from control_plane.plans.restore import target_of
from control_plane.steps.backup import point_json
from control_plane.steps.restore import restored_json
from infra.backups import Archive, Backup
from runtime.errors import NotFound, Problem

if TYPE_CHECKING:
    from control_plane.app import ControlPlane

JSON = dict[str, Any]

router = APIRouter()


@router.get("/backups")
async def get_backups(request: Request, database: str | None = None) -> list[JSON]:
    """Oldest first."""
    found = await _plane(request).provider.backups.list()
    return [each.to_json() for each in found if database in (None, each.database)]


@router.get("/backups/{id}")
async def get_backup(request: Request, id: str) -> JSON:
    return (await _backup(_plane(request), id)).to_json()


@router.get("/archives")
async def get_archives(request: Request) -> list[JSON]:
    return [archive_json(each) for each in await _plane(request).provider.backups.archives()]


@router.get("/restore-points")
async def get_points(request: Request) -> list[JSON]:
    """Oldest first."""
    found = await _plane(request).provider.backups.points()
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
    plane = _plane(request)
    database, id = name, None
    if name not in plane.topology.databases:
        database, id = (await _backup(plane, name)).database, name
    backup = await plane.provider.backups.check_target(database, target_of(at), id)
    return {"database": database, "id": id, "at": at, "backup": backup.to_json()}


@router.get("/restored/{id}")
async def get_restored(request: Request, id: str) -> JSON:
    return restored_json(await _plane(request).provider.backups.restored(id))


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
        **{_camel(key): value for key, value in found.items()},
        "receivedLsn": lsn_text(archive.received),
        "uploadedLsn": lsn_text(archive.uploaded),
    }


def lsn_text(lsn: int | None) -> str | None:
    return None if lsn is None else f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


async def _backup(plane: ControlPlane, id: str) -> Backup:
    for each in await plane.provider.backups.list():
        if each.id == id:
            return each
    raise NotFound(f"There is no backup {id!r}.", hint="regionctl backup list")


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.plane
    return plane
