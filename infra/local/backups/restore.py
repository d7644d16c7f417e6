"""From stored objects to a data directory that is ready for recovery, every input verified.

A corrupted incremental backup passes pg_combinebackup, and what comes of it passes pg_verifybackup;
so each input is verified by itself, before it is used, and all pages are checked afterwards.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from infra.backups import Backup, Target, Work
from infra.local import layout as files
from infra.local.backups import chain, pieces, points, recover, wal
from infra.local.backups.chain import Extent, Segment, Stop
from infra.local.backups.index import Index
from infra.local.backups.parts import Parts, every, run
from infra.local.backups.recover import Copy, Recovered
from infra.local.backups.seal import Damaged
from infra.lsn import format_lsn
from runtime.errors import NotFound, OperationFailed, Refused

WORK_SECONDS = 6 * 3600.0
WAVE = 8


@dataclass(frozen=True)
class Way:
    """How a target is reached: a chain of backups, the WAL behind it, and where to stop."""

    index: Index
    backup: Backup
    covered: tuple[Segment, ...]
    extent: Extent
    stop: Stop

    @property
    def links(self) -> tuple[Backup, ...]:
        return chain.chain_of(self.index.backups, self.backup.id)

    @property
    def timeline(self) -> int:
        return self.covered[-1][0]


PHASES = ("download", "verify", "combine", "recover", "checksums")


@dataclass
class Meter:
    """Seconds of each phase, and bytes that were downloaded, of `all`."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    all: int = 0
    _since: float = field(default_factory=time.monotonic)

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(now - self._since, 3)
        self._since = now

    async def far(self) -> Work:
        """How far the restore is."""
        phase = next((each for each in PHASES if each not in self.seconds), PHASES[-1])
        return Work(phase, self.bytes, self.all) if phase == PHASES[0] else Work(phase)


async def find_way(
    parts: Parts, database: str, target: Target, id: str | None, scratch: Path
) -> Way:
    """Proves that `target` can be reached, from the backup `id` or the newest one that can.

    Raises `Refused` saying what is possible, `NotFound` for an unknown id or point.
    """
    index = await parts.shelves.index(database)
    target = await points.resolve(parts, database, target)
    if id is not None:
        if id not in {each.id for each in index.backups}:
            raise NotFound(f"{database} has no backup {id}.", hint="regionctl backup list")
        index_backups: Sequence[Backup] = chain.chain_of(index.backups, id)[-1:]
    else:
        index_backups = chain.whole(index.backups)
    reached: list[tuple[Backup, Extent]] = []
    extents: dict[Segment, Extent] = {}
    hole: str | None = None
    for backup in sorted(index_backups, key=lambda each: (-each.stop, each.id)):
        if not chain.on_path(index.wal, backup):
            hole = hole or f"{backup.id} is of timeline {backup.timeline}, which was left earlier"
            continue
        covered = chain.run(index.wal, backup)
        hole = hole or chain.hole_after(index.wal, covered)
        if not covered:
            continue
        if covered[-1] not in extents:
            extents[covered[-1]] = await wal.reach(parts, index, covered, scratch)
        extent = extents[covered[-1]]
        if extent.end < backup.stop:
            name, end = chain.segment_name(covered[-1]), format_lsn(extent.end)
            hole = hole or f"{name} can be read to {end} only, where {backup.id} is not yet whole"
        reached.append((backup, extent))
        stop = chain.judge(backup, extent, target)
        if stop is not None and not (target == Target() and chain.hole_after(index.wal, covered)):
            return Way(index, backup, covered, extent, stop)
    raise chain.refuse(database, target, reached, hole=hole)


async def check(parts: Parts, database: str, target: Target, id: str | None) -> Way:
    """As `find_way`, in a scratch folder that is gone afterwards."""
    scratch = parts.folder(parts.scratch / f"look-{secrets.token_hex(6)}")
    try:
        return await find_way(parts, database, target, id, scratch)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def prepare(parts: Parts, way: Way, work: Path, meter: Meter) -> Path:
    """The data directory before recovery, in `work`; the WAL for it lies in `work`/wal."""
    require_room(way, work)
    folders = [parts.folder(work / f"input-{n}") for n in range(len(way.links))]
    meter.all = sum(backup.bytes for backup in way.links)
    for folder, backup in zip(folders, way.links, strict=True):
        await download(parts, way.index, backup.id, folder, meter)
    meter.bytes += await fetch_wal(parts, way, work / "wal")
    meter.lap("download")
    for folder, backup in zip(folders, way.links, strict=True):
        await verify_input(parts, backup.id, folder)
    meter.lap("verify")
    pgdata = work / "pgdata"
    await asyncio.to_thread(shutil.rmtree, pgdata, ignore_errors=True)
    # The server flushes all of it before recovery, as after a crash (recovery_init_sync_method).
    await run(
        parts,
        *("pg_combinebackup", "--link", "--no-sync", "--no-manifest", "-o", str(pgdata)),
        *(str(folder) for folder in folders),
        seconds=WORK_SECONDS,
    )
    for folder in folders:
        await asyncio.to_thread(shutil.rmtree, folder)
    meter.lap("combine")
    return pgdata


def require_room(way: Way, work: Path) -> None:
    """Raises `Refused` when the disk has no room for what will be downloaded, twice."""
    needed = 2 * sum(each.bytes for each in way.links)
    needed += chain.SEGMENT_BYTES * (WAVE + len(way.covered))
    files.make_folder(work)
    free = shutil.disk_usage(work).free
    if free < needed:
        raise Refused(
            f"A restore needs {needed >> 20} MB below {work}, where {free >> 20} MB are free.",
            hint=f"Free space: df -h {work}",
        )


async def download(parts: Parts, index: Index, id: str, folder: Path, meter: Meter) -> None:
    """All files of one backup, each piece being what backup.json says."""
    document = await parts.shelves.document_of(index, id)
    by_name = {each.name.rpartition("/")[2]: each for each in index.objects[id]}
    for name in document["folders"]:
        files.make_folder(folder / name, owner=parts.site.user, mode=0o700)

    async def one(number: int) -> None:
        name = f"piece-{number + 1:05}"
        if name not in by_name:
            raise Damaged(
                f"The backup {id} is damaged: {name} is missing.",
                hint="Use another backup: regionctl backup list; then take a full one.",
                extra={"object": f"{index.database}/{id}/{name}"},
            )
        found, known = by_name[name], document["pieces"][number]
        wanted = pieces.parts_of(found.name, known)

        def write(blocks: Iterator[memoryview]) -> int:
            return pieces.write(folder, found.name, wanted, blocks, parts.site.user)

        vault = parts.shelves.vaults[found.region]
        meter.bytes += await vault.use(found.name, known["sha256"], write)
        flusher.submit(pieces.flush, folder, wanted)

    # The disk works meanwhile, and nobody waits for it.
    flusher = ThreadPoolExecutor(1, "flusher")
    try:
        await every(one, range(len(document["pieces"])))
    finally:
        flusher.shutdown(wait=False, cancel_futures=True)


async def verify_input(parts: Parts, id: str, folder: Path) -> None:
    """The files are those of its manifest. Raises `Damaged`."""
    try:
        await run(parts, "pg_verifybackup", "-n", "-q", str(folder), seconds=WORK_SECONDS)
    except OperationFailed as error:
        raise Damaged(
            f"The backup {id} is damaged: {error.extra['lines'][0]}.",
            hint="Use another backup: regionctl backup list; then take a full one.",
            extra={**error.extra, "object": id},
        ) from error


async def fetch_wal(parts: Parts, way: Way, folder: Path) -> int:
    """WAL from the backup's start until the stop lies behind, or all of it. Returns the bytes."""
    parts.folder(folder)
    fetched = 0
    for first in range(0, len(way.covered), WAVE):
        wave = way.covered[first : first + WAVE]
        fetched += await wal.fetch(parts, way.index, wave, folder)
        if wave[-1] == way.covered[-1] or way.stop == Stop():
            continue
        try:
            here = await wal.extent(parts, folder, wave[-1])
        except OperationFailed:
            continue
        if way.stop.lsn is not None and here.last >= max(way.stop.lsn, way.backup.stop):
            break
        if way.stop.time is not None and here.commit_at and here.commit_at > way.stop.time:
            break
    return fetched


async def build(
    parts: Parts,
    way: Way,
    copy: Copy,
    meter: Meter,
    *,
    histories: Mapping[str, bytes] | None = None,
) -> Recovered:
    """The server `copy`, whose data directory is made here: recovered, stopped, all pages checked.

    `histories` are those of timelines that must not be used again, beside the archived ones. Raises
    `OperationFailed`, naming what is damaged.
    """
    work = copy.pgdata.parent
    await prepare(parts, way, work, meter)
    for name, text in (histories or {}).items():
        if not (work / "wal" / name).exists():
            wal.write(parts, work / "wal" / name, text)
    reached = await recover.recover(parts, copy, work / "wal", way.timeline, way.stop, way.extent)
    meter.lap("recover")
    await recover.check_pages(parts, copy)
    meter.lap("checksums")
    await asyncio.to_thread(shutil.rmtree, work / "wal")
    return reached
