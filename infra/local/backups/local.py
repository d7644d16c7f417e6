"""The backups of the platform on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import asyncpg

from infra.backups import JSON, Archive, Backup, BackupKind, Point, Restored, Target, Work
from infra.local.backups import archives, base, points, restore, restored, verify
from infra.local.backups.parts import Parts
from infra.local.cluster import Cluster
from infra.local.monitor import Monitor
from infra.local.site import Site
from runtime.errors import Invalid, Problem
from runtime.shardmap import ShardMap


class LocalBackups:
    """See `infra.backups.Backups` for what each verb promises."""

    def __init__(self, site: Site, monitor: Monitor, cluster: Cluster) -> None:
        self.parts = Parts(site, monitor, cluster)

    async def working(self, on: str) -> Work | None:
        asked = self.parts.work.get(on)
        with contextlib.suppress(Problem, asyncpg.PostgresError):
            return None if asked is None else await asked()
        return None

    async def archives(self) -> Sequence[Archive]:
        return await asyncio.to_thread(archives.archives, self.parts.site)

    async def create(self, database: str, kind: BackupKind, shard_map: ShardMap) -> Backup:
        return await base.create(self.parts, database, kind, shard_map)

    async def list(self) -> Sequence[Backup]:
        databases = await self.parts.shelves.databases()
        indexes = await asyncio.gather(*(self.parts.shelves.index(each) for each in databases))
        found = [backup for index in indexes for backup in index.backups]
        return sorted(found, key=lambda each: (each.began_at, each.id))

    async def verify(self, id: str) -> JSON:
        return await verify.verify(self.parts, id)

    async def prune(self, keep_full: int) -> Sequence[str]:
        if keep_full < 1:
            raise Invalid("At least one full backup is kept.", hint="--keep-full 1")
        databases = await self.parts.shelves.databases()
        gone = [await base.prune(self.parts, each, keep_full) for each in databases]
        return [id for ids in gone for id in ids]

    async def mark_point(self, name: str, shard_map: ShardMap) -> Point:
        return await points.mark(self.parts, name, shard_map)

    async def points(self) -> Sequence[Point]:
        return await points.listed(self.parts)

    async def check_target(self, database: str, target: Target, id: str | None = None) -> Backup:
        return (await restore.check(self.parts, database, target, id)).backup

    async def restore_aside(
        self, id: str, database: str, target: Target, backup: str | None = None
    ) -> Restored:
        return await restored.aside(self.parts, id, database, target, backup)

    async def restored(self, id: str) -> Restored:
        return await restored.find(self.parts, id)

    async def restore_into(
        self, instance: str, database: str, target: Target, backup: str | None = None
    ) -> JSON:
        return await restored.into(self.parts, instance, database, target, backup)

    async def forget(self, database: str) -> None:
        await base.forget(self.parts, database)

    async def discard(self, id: str) -> None:
        await restored.discard(self.parts, id)
