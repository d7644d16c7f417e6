"""Backups in memory: for tests of plans and drills beside `infra/memory.py`.

An archive is the list of writes that a database's primary had when it was last looked at (call
`receive` after every change of the world), each with its time and timeline. A backup is a length of
that list; a restored server is a copy of it. Damage is planted by name: an object in `damaged` (a
backup's id or "DATABASE/wal") is found by whoever reads it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from infra.backups import JSON, Archive, Backup, BackupKind, Point, Restored, Target, Work
from infra.memory_world import SEGMENT, MemoryWorld, Node
from runtime.errors import Invalid, NotFound, OperationFailed, Refused, Unavailable
from runtime.shardmap import ShardMap

POINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
FIRST_PORT = 9000


@dataclass
class Received:
    """What the archive has of one database: writes, when each was archived, and the timeline.

    `forks` says after how many writes each older timeline was left.
    """

    wal: list[str] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    timeline: int = 1
    forks: dict[int, int] = field(default_factory=dict)


class MemoryBackups:
    """See `infra.backups.Backups` for what each verb promises."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        self.received: defaultdict[str, Received] = defaultdict(Received)
        self.backups: dict[str, Backup] = {}
        self.marked: dict[str, Point] = {}
        self.servers: dict[str, tuple[Restored, Sequence[str]]] = {}
        self.damaged: dict[str, str] = {}  # object → what is wrong with it
        self.gaps: dict[str, str] = {}  # database → why its archive has a hole
        self.works: dict[str, Work] = {}
        self.store_answers = True
        self._into: dict[str, tuple[Target, JSON]] = {}

    def receive(self) -> None:
        """The archivers get what the primaries have by now."""
        for database in self.world.topology.databases:
            node = self._primary(database)
            if node is None:
                continue
            known = self.received[database]
            if not known.wal:
                known.timeline = node.timeline
            same = next(
                (n for n, (a, b) in enumerate(zip(known.wal, node.wal, strict=False)) if a != b),
                min(len(known.wal), len(node.wal)),
            )
            if node.timeline != known.timeline:
                known.forks[known.timeline] = same
                known.timeline = node.timeline
            known.wal = list(node.wal)
            fresh = [self.world.clock.now()] * (len(node.wal) - same)
            known.times = [*known.times[:same], *fresh]

    # Backups.

    async def working(self, on: str) -> Work | None:
        return self.works.get(on)

    async def archives(self) -> Sequence[Archive]:
        self.receive()
        return [self._archive(database) for database in self.world.topology.databases]

    async def create(self, database: str, kind: BackupKind, shard_map: ShardMap) -> Backup:
        self._need_store()
        self.receive()
        source, node = self._source(database, shard_map)
        older = [each for each in self._of(database) if each.timeline == node.timeline]
        parent = older[-1] if kind == "incremental" and older else None
        began = self.world.clock.now()
        stem = f"{database}-{began:%Y%m%dT%H%M%SZ}-{'incremental' if parent else 'full'}"
        taken = sum(id == stem or id.startswith(f"{stem}-") for id in self.backups)
        lsn = len(node.wal) * SEGMENT
        backup = Backup(
            id=f"{stem}-{taken + 1}" if taken else stem,
            database=database,
            kind="incremental" if parent else "full",
            parent=parent.id if parent else None,
            region=self.world.topology.instance(source).region,
            timeline=node.timeline,
            start=lsn,
            stop=lsn,
            began_at=began,
            ended_at=self.world.clock.now(),
            bytes=lsn,
            stored=lsn // 2,
            pieces=1,
            map_version=shard_map.version,
        )
        self.backups[backup.id] = backup
        self.gaps.pop(database, None)
        return backup

    async def list(self) -> Sequence[Backup]:
        self._need_store()
        return list(self.backups.values())

    async def verify(self, id: str) -> JSON:
        self._need_store()
        chain = self._chain(id)
        names = [*(each.id for each in chain), f"{chain[0].database}/wal"]
        return {
            "pieces": sum(each.pieces for each in chain),
            "bytes": sum(each.bytes for each in chain),
            "segments": len(self.received[chain[0].database].wal),
            "problems": [f"{n}: {self.damaged[n]}" for n in names if n in self.damaged],
        }

    async def prune(self, keep_full: int) -> Sequence[str]:
        if keep_full < 1:
            raise Invalid("At least one full backup is kept.", hint="--keep-full 1")
        gone = []
        for database in self.world.topology.databases:
            fulls = [each.id for each in self._of(database) if each.kind == "full"]
            old = set(fulls[:-keep_full])
            gone += [each.id for each in self._of(database) if self._chain(each.id)[0].id in old]
        for id in gone:
            del self.backups[id]
        return gone

    # Restore points.

    async def mark_point(self, name: str, shard_map: ShardMap) -> Point:
        if not POINT_NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name for a restore point.", hint="before-release-7")
        self._need_store()
        if name not in self.marked:
            lsns = {}
            for database in shard_map.shards:
                node = self._primary(database)
                if node is None:
                    raise Unavailable(f"{database} does not answer.", hint="regionctl status")
                lsns[database] = len(node.wal) * SEGMENT
            self.receive()
            self.marked[name] = Point(name, self.world.clock.now(), lsns, shard_map.to_json())
        return self.marked[name]

    async def points(self) -> Sequence[Point]:
        self._need_store()
        return list(self.marked.values())

    # Restoring.

    async def check_target(self, database: str, target: Target, id: str | None = None) -> Backup:
        self._need_store()
        self.receive()
        chosen = [self._chain(id)[-1]] if id is not None else self._of(database)
        if chosen and chosen[-1].database != database:
            raise Refused(f"{id} is a backup of {chosen[-1].database}, not of {database}.")
        if not chosen:
            raise Refused(f"{database} has no backup.", hint="regionctl backup create")
        known, length = self.received[database], self._length(database, target)
        if database in self.gaps:
            raise Refused(f"The archive of {database} has a hole: {self.gaps[database]}.")
        usable = [
            each
            for each in chosen
            if each.stop // SEGMENT <= min(length, known.forks.get(each.timeline, length))
        ]
        if not usable or length > len(known.wal):
            raise Refused(
                f"{database} cannot be restored to that: its archive reaches from "
                f"LSN {chosen[0].stop} to {len(known.wal) * SEGMENT}.",
                hint="regionctl backup list",
            )
        return usable[-1]

    async def restore_aside(
        self, id: str, database: str, target: Target, backup: str | None = None
    ) -> Restored:
        if id not in self.servers:
            rows = await self._recovered(database, target, backup)
            times = self.received[database].times
            restored = Restored(
                id=id,
                database=database,
                host="127.0.0.1",
                port=FIRST_PORT + len(self.servers),
                reached_lsn=len(rows) * SEGMENT,
                reached_at=times[len(rows) - 1] if rows else None,
                timeline=self.received[database].timeline,
                bytes=len(rows) * SEGMENT,
                seconds=dict.fromkeys(("download", "verify", "combine", "recover", "checksums"), 0),
            )
            self.servers[id] = restored, rows
        return self.servers[id][0]

    async def restored(self, id: str) -> Restored:
        if id not in self.servers:
            raise NotFound(f"No restored server is called {id}.", hint="regionctl op list")
        return self.servers[id][0]

    async def restore_into(
        self, instance: str, database: str, target: Target, backup: str | None = None
    ) -> JSON:
        node = self.world.nodes.get(instance)
        done, answer = self._into.get(instance, (None, {}))
        if node is not None and node.running:
            if done == target and node.primary and node.timeline == answer["timeline"]:
                return answer
            raise Refused(f"{instance} runs.", hint="It must be stopped before it is replaced.")
        rows = await self._recovered(database, target, backup)
        known = self.received[database]
        timelines = [each.timeline for each in self.world.nodes.values()]
        fresh = Node(
            running=True,
            primary=True,
            timeline=1 + max([known.timeline, *known.forks, *timelines]),
            wal=[*rows],
            epoch=node.epoch if node else 0,
        )
        self.world.nodes[instance] = fresh
        answer = {"lsn": len(rows) * SEGMENT, "timeline": fresh.timeline, "seconds": 0.0}
        self._into[instance] = target, answer
        return answer

    async def forget(self, database: str) -> None:
        self._need_store()
        self.backups = {id: each for id, each in self.backups.items() if each.database != database}
        self.received.pop(database, None)
        self.gaps.pop(database, None)

    async def discard(self, id: str) -> None:
        self.servers.pop(id, None)

    # How it is known.

    async def _recovered(self, database: str, target: Target, id: str | None) -> Sequence[str]:
        backup = await self.check_target(database, target, id)
        for name in (*(each.id for each in self._chain(backup.id)), f"{database}/wal"):
            if name in self.damaged:
                raise OperationFailed(f"{name} is damaged: {self.damaged[name]}.")
        return self.received[database].wal[: self._length(database, target)]

    def _length(self, database: str, target: Target) -> int:
        """After how many writes the target is; more than there are when it is in the future."""
        known = self.received[database]
        if target.name is not None:
            if target.name not in self.marked:
                raise NotFound(f"No restore point is called {target.name}.")
            return self.marked[target.name].lsns[database] // SEGMENT
        if target.lsn is not None:
            return -(-target.lsn // SEGMENT)
        if target.time is not None:
            if not known.times or target.time > known.times[-1]:
                return len(known.wal) + 1
            return sum(at <= target.time for at in known.times)
        return len(known.wal)

    def _of(self, database: str) -> Sequence[Backup]:
        return [each for each in self.backups.values() if each.database == database]

    def _chain(self, id: str) -> Sequence[Backup]:
        """The full backup that `id` builds on, up to itself."""
        if id not in self.backups:
            raise NotFound(f"No backup is called {id}.", hint="regionctl backup list")
        backup = self.backups[id]
        return [*(self._chain(backup.parent) if backup.parent else []), backup]

    def _archive(self, database: str) -> Archive:
        known, node = self.received.get(database), self._primary(database)
        length = len(known.wal) * SEGMENT if known else None
        return Archive(
            database=database,
            running=node is not None,
            timeline=known.timeline if known else None,
            received=length,
            uploaded=length if self.store_answers else None,
            spool_bytes=0,
            age_seconds=0.0 if node else None,
            gap=self.gaps.get(database),
        )

    def _primary(self, database: str) -> Node | None:
        """The answering primary by the newest map; None when there is none."""
        maps = self.world.maps.values()
        newest = max(maps, key=lambda each: each.version, default=None)
        if newest is None or database not in newest.shards:
            return None
        node = self.world.nodes.get(newest.shards[database].primary.instance)
        return node if node is not None and node.answers and node.primary else None

    def _source(self, database: str, shard_map: ShardMap) -> tuple[str, Node]:
        """Who is copied: a replica of another region when one answers, else the primary."""
        shard = shard_map.shards[database]
        remote = [end.instance for end in shard.replicas if end.region != shard.home]
        for instance in (*remote, shard.primary.instance):
            node = self.world.nodes.get(instance)
            if node is not None and node.answers:
                return instance, node
        raise Unavailable(f"No node of {database} answers.", hint="regionctl status")

    def _need_store(self) -> None:
        if not self.store_answers:
            raise Unavailable("No object storage answers.", hint="regionctl status")
