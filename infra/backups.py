"""Backups of every database, and restoring from them.

Base backups and WAL lie, compressed and encrypted, in the object storage of a region other than
the database's home. Everything is verified when it is written and again when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from runtime.shardmap import ShardMap

JSON = dict[str, Any]
BackupKind = Literal["full", "incremental"]
DATABASE = re.compile(r"catalog|s[1-9][0-9]*")


@dataclass(frozen=True)
class Backup:
    """One base backup. `id` such as "s1-20261123T041500Z-full"; `parent` of an incremental one.

    `start` and `stop` are LSN in bytes on `timeline`; a restore needs WAL from `start` on and
    reaches `stop` at least. `bytes` is its size before compression, `stored` after.
    """

    id: str
    database: str
    kind: BackupKind
    parent: str | None
    region: str
    timeline: int
    start: int
    stop: int
    began_at: datetime
    ended_at: datetime
    bytes: int
    stored: int
    pieces: int
    map_version: int

    def to_json(self) -> JSON:
        """camelCase keys, times in ISO 8601."""
        return {
            "id": self.id,
            "database": self.database,
            "kind": self.kind,
            "parent": self.parent,
            "region": self.region,
            "timeline": self.timeline,
            "start": self.start,
            "stop": self.stop,
            "beganAt": self.began_at.isoformat(),
            "endedAt": self.ended_at.isoformat(),
            "bytes": self.bytes,
            "stored": self.stored,
            "pieces": self.pieces,
            "mapVersion": self.map_version,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Backup:
        """Raises `KeyError`, `ValueError`, `TypeError` on another document."""
        return Backup(
            document["id"],
            document["database"],
            document["kind"],
            document["parent"],
            document["region"],
            document["timeline"],
            document["start"],
            document["stop"],
            datetime.fromisoformat(document["beganAt"]),
            datetime.fromisoformat(document["endedAt"]),
            document["bytes"],
            document["stored"],
            document["pieces"],
            document["mapVersion"],
        )


@dataclass(frozen=True)
class Target:
    """How far a restore goes: exactly one of these, or none: everything that was archived.

    `lsn` in bytes; `name` of a restore point.
    """

    time: datetime | None = None
    lsn: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Point:
    """A restore point over all databases: name → LSN (bytes), and the shard map of that moment."""

    name: str
    at: datetime
    lsns: Mapping[str, int]
    map: JSON


@dataclass(frozen=True)
class Archive:
    """How the WAL of one database is being archived.

    `received` is the LSN (bytes) that is on the archiver's disk, in another region; `uploaded` what
    the object storage has; `spool_bytes` what waits for it. `alarm`: more waits than half of what
    may. `gap`: the archive has a hole, and a new full backup is due.
    """

    database: str
    running: bool
    timeline: int | None
    received: int | None
    uploaded: int | None
    spool_bytes: int
    age_seconds: float | None
    gap: str | None = None
    alarm: bool = False


@dataclass(frozen=True)
class Restored:
    """A restored server that runs beside the platform, read-only for everybody but us.

    `reached` is the LSN and the time of the last commit that it has. `seconds` has each phase
    (download, verify, combine, recover, checksums), `bytes` what was downloaded (uncompressed).
    Who connects does so as `user` to `dbname`, with the password in `passfile` (absolute path,
    mode 0600).
    """

    id: str
    database: str
    host: str
    port: int
    reached_lsn: int
    reached_at: datetime | None
    timeline: int
    bytes: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    user: str = ""
    dbname: str = ""
    passfile: str = ""


@dataclass(frozen=True)
class Work:
    """How far a backup or a restore is: `done` of `all` bytes of this phase; 0 of 0: unknown."""

    phase: str
    done: int = 0
    all: int = 0


class Backups(Protocol):
    async def working(self, on: str) -> Work | None:
        """How far this process is with the backup of the database `on`, the check of the backup
        `on`, or the restore of the server or instance `on`; None when it is not at it."""
        ...

    async def archives(self) -> Sequence[Archive]:
        """One for each database."""
        ...

    async def create(self, database: str, kind: BackupKind, shard_map: ShardMap) -> Backup:
        """A base backup is taken, verified piece by piece, uploaded, and listed.

        An incremental one builds on the newest backup of the same timeline; without one it is a
        full one. A backup that was half uploaded by somebody who died is not listed, and removed.
        """
        ...

    async def list(self) -> Sequence[Backup]:
        """Oldest first. Raises `Unavailable` when no object storage answers."""
        ...

    async def verify(self, id: str) -> JSON:
        """Downloads the backup with all that it builds on and every WAL segment since, and checks
        each: {"pieces", "bytes", "segments", "problems": [str]}. Raises `NotFound`."""
        ...

    async def prune(self, keep_full: int) -> Sequence[str]:
        """Removes chains (a full backup with its incrementals) beyond the newest `keep_full` of
        each database, and WAL that no kept backup needs. Returns the ids."""
        ...

    async def mark_point(self, name: str, shard_map: ShardMap) -> Point:
        """A consistent restore point: every slot held for some ms, one LSN for each database."""
        ...

    async def points(self) -> Sequence[Point]: ...

    async def check_target(self, database: str, target: Target, id: str | None = None) -> Backup:
        """The backup from which `target` can be reached, proven from the archive.

        Raises `Refused`: before the first backup, after the last archived commit, on another
        timeline, or a hole in the archive. Raises `NotFound` for an unknown id or point.
        """
        ...

    async def restore_aside(
        self, id: str, database: str, target: Target, backup: str | None = None
    ) -> Restored:
        """A server named `id` of its own, outside the topology, with the database as it was then.

        It is built on the backup of that id, or on the newest one from which `target` is reached.

        Downloads in parallel, verifies every input before it is used, recovers, and checks every
        page. Called again with the same id it returns the one that runs. Raises `OperationFailed`,
        naming the object that is damaged.
        """
        ...

    async def restored(self, id: str) -> Restored:
        """Raises `NotFound`."""
        ...

    async def restore_into(
        self, instance: str, database: str, target: Target, backup: str | None = None
    ) -> JSON:
        """The stopped node `instance` gets the restored data and runs as a primary on a timeline
        of its own: {"lsn", "timeline", "seconds"}. What it had before is kept beside until then."""
        ...

    async def forget(self, database: str) -> None:
        """No backup and no WAL of a database that is gone is left, so that another one may have
        its name. Raises `Unavailable` when one of the object storages cannot be asked."""
        ...

    async def discard(self, id: str) -> None:
        """The restored server `id` and its files are gone."""
        ...
