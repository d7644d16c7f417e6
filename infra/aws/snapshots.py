"""Backups on AWS: Aurora's continuous one of each cluster, and snapshots copied elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.limits import refused
from infra.aws.operate import restore, snapshot
from infra.aws.site import Site
from infra.backups import Archive, Backup, BackupKind, Point, Restored, Target, Work
from runtime.errors import NotFound, Refused
from runtime.shardmap import ShardMap


class AwsBackups:
    """See `infra.backups.Backups`. Positions (LSN) are not told by AWS: 0 stands for unknown."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def working(self, on: str) -> Work | None:
        """AWS tells no share of what it has done."""
        return None

    async def archives(self) -> Sequence[Archive]:
        return await asyncio.gather(
            *(self._archive(name) for name in self._site.topology.databases)
        )

    async def _archive(self, database: str) -> Archive:
        region = await self._writer_region(database)
        document = await databases.cluster(self._site, database, region)
        latest = document.get("LatestRestorableTime")
        age = (self._site.cloud.clock.now() - latest).total_seconds() if latest else None
        gap = None if document.get("BackupRetentionPeriod") else "no continuous backup is kept"
        return Archive(database, gap is None, None, None, None, 0, age, gap)

    async def create(self, database: str, kind: BackupKind, shard_map: ShardMap) -> Backup:
        """A snapshot of the region that writes, copied to another one; always a full one."""
        site = self._site
        region = await self._writer_region(database)
        began = site.cloud.clock.now()
        id = f"{site.names.stem}-{database}-{began:%Y%m%dt%H%M%Sz}"
        made = await snapshot.snapshot(site, database, region, id=id)
        away = next(name for name in site.regions if name != region)
        await snapshot.copy(site, made["arn"], away, id=id)
        found = await snapshot.find(site, away, id)
        return self._backup(database, away, found or {}, map_version=shard_map.version)

    async def list(self) -> Sequence[Backup]:
        found: list[Backup] = []
        for region in self._site.regions:
            documents = await self._site.cloud.pages(
                "rds",
                region,
                "describe_db_cluster_snapshots",
                "DBClusterSnapshots",
                SnapshotType="manual",
            )
            for each in documents:
                database = self._database(each)
                if database is not None:
                    found.append(self._backup(database, region, each, map_version=0))
        return sorted(found, key=lambda backup: backup.began_at)

    async def verify(self, id: str) -> JSON:
        raise refused("verify", "aws backup list-restore-testing-plans")

    async def prune(self, keep_full: int) -> Sequence[str]:
        raise refused("prune")

    async def mark_point(self, name: str, shard_map: ShardMap) -> Point:
        raise refused("mark_point")

    async def points(self) -> Sequence[Point]:
        return []

    async def check_target(self, database: str, target: Target, id: str | None = None) -> Backup:
        """Raises `Refused` for a moment that AWS has not kept."""
        region = await self._writer_region(database)
        document = await databases.cluster(self._site, database, region)
        restore.check(document, _time(target))
        now = document["LatestRestorableTime"]
        whole = {"DBClusterSnapshotIdentifier": "continuous", "SnapshotCreateTime": now}
        return self._backup(database, region, whole, map_version=0)

    async def restore_aside(
        self, id: str, database: str, target: Target, backup: str | None = None
    ) -> Restored:
        region = await self._writer_region(database)
        began = self._site.cloud.clock.monotonic()
        made = await restore.restore(
            self._site, database, region, id=self._aside(id), at=_time(target)
        )
        spent = self._site.cloud.clock.monotonic() - began
        return self._restored(id, database, made, {"recover": spent})

    async def restored(self, id: str) -> Restored:
        for region in self._site.regions:
            known = await restore.find(self._site, region, self._aside(id))
            if known is not None:
                database = self._source(known)
                where = {"address": known["Endpoint"], "port": known["Port"]}
                return self._restored(id, database, where, {})
        raise NotFound(f"There is no restored cluster {id!r}.", hint="regionctl backup list")

    async def restore_into(
        self, instance: str, database: str, target: Target, backup: str | None = None
    ) -> JSON:
        raise refused("restore_into", "regionctl backup restore ID --to new")

    async def forget(self, database: str) -> None:
        raise refused("prune")

    async def discard(self, id: str) -> None:
        """Never anything but a cluster that a restore has made."""
        for region in self._site.regions:
            await restore.discard(self._site, region, self._aside(id))

    def _aside(self, id: str) -> str:
        return f"{self._site.names.stem}-restored-{id}"

    def _source(self, document: JSON) -> str:
        tags = {each["Key"]: each["Value"] for each in document.get("TagList", [])}
        return str(tags.get(restore.TAG, ""))

    async def _writer_region(self, database: str) -> str:
        known = await databases.read(self._site, database, self._site.regions[0])
        return known.writer.region

    def _database(self, document: JSON) -> str | None:
        for database in self._site.topology.databases:
            for region in self._site.regions:
                if document["DBClusterIdentifier"] == self._site.names.cluster(database, region):
                    return database
        return None

    def _backup(self, database: str, region: str, found: JSON, *, map_version: int) -> Backup:
        at = found.get("SnapshotCreateTime") or datetime.now(UTC)
        return Backup(
            id=found.get("DBClusterSnapshotIdentifier", ""),
            database=database,
            kind="full",
            parent=None,
            region=region,
            timeline=0,
            start=0,
            stop=0,
            began_at=at,
            ended_at=at,
            bytes=int(found.get("AllocatedStorage", 0)) * 2**30,
            stored=0,
            pieces=1,
            map_version=map_version,
        )

    def _restored(self, id: str, database: str, made: JSON, seconds: dict[str, float]) -> Restored:
        at = made.get("at")
        return Restored(
            id,
            database,
            made["address"],
            made["port"],
            0,
            datetime.fromisoformat(at) if at else None,
            0,
            0,
            seconds,
        )


def _time(target: Target) -> datetime | None:
    if target.lsn is not None or target.name is not None:
        raise Refused(
            "Aurora restores to a time, not to a position or a named point.", hint="--at TIME"
        )
    return target.time
