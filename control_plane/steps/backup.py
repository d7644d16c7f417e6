"""Effects of backups: taken, read back, removed; restore points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.steps.backup_watch import told
from control_plane.steps.provision import newest
from control_plane.world import World
from infra.backups import BackupKind
from runtime.errors import OperationFailed, Refused

JSON = dict[str, Any]
TOLD_PROBLEMS = 3


async def take_backup(world: World, *, database: str, kind: BackupKind) -> JSON:
    """Verified piece by piece and uploaded before it is listed. Of a shard that has ended since
    there is nothing to take: the result is empty."""
    shard_map = await newest(world)
    if database not in shard_map.shards:
        return {}
    making = world.provider.backups.create(database, kind, shard_map)
    backup = await told(world, database, making)
    return backup.to_json()


async def verify_backup(world: World, *, id: str) -> JSON:
    """Raises `OperationFailed`, naming what is damaged or missing."""
    found = await told(world, id, world.provider.backups.verify(id))
    problems = found["problems"]
    if problems:
        more = f" and {len(problems) - TOLD_PROBLEMS} more" * (len(problems) > TOLD_PROBLEMS)
        raise OperationFailed(
            f"{id} cannot be trusted: {'; '.join(problems[:TOLD_PROBLEMS])}{more}.",
            hint="regionctl backup create --kind full, and look at the object storage's disk",
            runbook="restore",
            extra=found,
        )
    return {"id": id, **found}


async def forget_backups(world: World, *, databases: Sequence[str]) -> JSON:
    """Of former databases of these names. Raises `Refused` for one that is in use."""
    known = (await newest(world)).shards
    for database in databases:
        if database in known:
            raise Refused(f"{database} is in the shard map: its backups are needed.")
        await world.provider.backups.forget(database)
    return {"databases": list(databases)}


async def prune_backups(world: World, *, keep_full: int) -> JSON:
    return {"removed": list(await world.provider.backups.prune(keep_full))}


async def mark_point(world: World, *, name: str) -> JSON:
    point = await world.provider.backups.mark_point(name, await newest(world))
    return point_json(point.name, point.at.isoformat(), dict(point.lsns), point.map["version"])


def point_json(name: str, at: str, lsns: JSON, map_version: int) -> JSON:
    """A restore point on the wire; its map is told by its version."""
    return {"name": name, "at": at, "lsns": lsns, "mapVersion": map_version}
