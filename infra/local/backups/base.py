"""Base backups: taken, verified, packed, uploaded, listed; and removed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.backups import Backup, BackupKind, Work
from infra.local import postgres
from infra.local.backups import chain, pieces
from infra.local.backups.index import DOCUMENT, Index
from infra.local.backups.parts import Parts, end_programs, every, exclusive
from infra.local.backups.seal import seal
from infra.local.backups.store import Digests, Vault, digests
from infra.local.cluster import CLOCK
from infra.local.ports import HOST
from infra.local.site import LARGE_WORK_NICE
from infra.lsn import format_lsn, parse_lsn
from runtime.clock import wait_until
from runtime.errors import (
    Invalid,
    NotFound,
    OperationFailed,
    Problem,
    Refused,
    TimedOut,
    Unavailable,
)
from runtime.shardmap import ShardMap

JSON = dict[str, Any]
FORMAT = 1
UPLOADS = 1
REPLAY_SECONDS = 30.0
ARCHIVE_SECONDS = 60.0
COPY_SECONDS = 6 * 3600.0
_COPIED = """
SELECT coalesce((SELECT max(backup_streamed) FROM pg_stat_progress_basebackup), 0)::bigint,
    (SELECT sum(pg_database_size(oid)) FROM pg_database)::bigint
"""
SENDER = "SELECT pid FROM pg_stat_replication WHERE application_name = 'pg_basebackup'"


@dataclass(frozen=True)
class Taken:
    """A base backup on our disk. `start` and `stop` are those of its manifest."""

    folder: Path
    parent: Backup | None
    timeline: int
    start: int
    stop: int
    began_at: datetime
    ended_at: datetime


async def create(parts: Parts, database: str, kind: BackupKind, shard_map: ShardMap) -> Backup:
    """See `infra.backups.Backups.create`. Raises `Refused` while another one is being taken."""
    if database not in shard_map.shards:
        raise NotFound(f"There is no database {database}.", hint="regionctl status")
    if kind not in ("full", "incremental"):
        raise Invalid(f"A backup is full or incremental, not {kind}.")
    with exclusive(parts.scratch / f"{database}.lock", f"{database} is being backed up"):
        index = await parts.shelves.index(database)
        await parts.shelves.delete(index.leftovers)
        await asyncio.to_thread(_sweep, parts, database)
        region = await _shelf(parts, shard_map, database)
        id = _name(index, database, kind)
        try:
            taken = await _take(parts, index, id, kind, shard_map, region)
            await _await_wal(parts, database, taken)
            if taken.parent is None and kind == "incremental":
                id = _name(index, database, "full")
            return await _upload(parts, taken, id, region, database, shard_map.version)
        finally:
            await asyncio.to_thread(_sweep, parts, database)


def _sweep(parts: Parts, database: str) -> None:
    """Nothing is left of backups that were being made here; we hold the database's lock."""
    for folder in parts.scratch.glob(f"{database}-*"):
        end_programs(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _name(index: Index, database: str, kind: str) -> str:
    stem = f"{database}-{CLOCK.now():%Y%m%dT%H%M%SZ}-{kind}"
    known = {each.id for each in index.backups}
    count = sum(id == stem or id.startswith(f"{stem}-") for id in known)
    return f"{stem}-{count + 1}" if count else stem


async def _shelf(parts: Parts, shard_map: ShardMap, database: str) -> str:
    """The region whose object store takes the backup; it answers."""
    problem: Problem = Unavailable("This platform has no object storage.")
    for region in parts.archivers(shard_map, database):
        try:
            await parts.shelves.vaults[region.name].store.ensure()
        except Unavailable as error:
            problem = error
        else:
            return region.name
    raise problem


async def _take(
    parts: Parts, index: Index, id: str, kind: BackupKind, shard_map: ShardMap, region: str
) -> Taken:
    """From the replica in the archive's region, else from the primary; an incremental one that
    neither can give (no summaries, another timeline) becomes a full one."""
    shard = shard_map.shards[index.database]
    near = [end.instance for end in shard.replicas if end.region == region]
    sources = [*near, shard.primary.instance]
    tries: list[tuple[str, Backup | None]] = [(source, None) for source in sources]
    if kind == "incremental":
        timeline = (await _any(parts, sources))["timeline"]
        good = [each for each in chain.whole(index.backups) if each.timeline == timeline]
        tries = [*((source, good[-1]) for source in sources if good), *tries]
    problem: Problem | None = None
    for source, parent in tries:
        try:
            return await _copy(parts, index, source, parent, id, shard.primary.instance, region)
        except (OperationFailed, Unavailable) as error:
            problem = problem or error
    assert problem is not None
    raise problem


async def _await_wal(parts: Parts, database: str, taken: Taken) -> None:
    """The archive has the WAL from which the backup becomes whole. Raises `OperationFailed`."""
    numbers = range(taken.start // chain.SEGMENT_BYTES, taken.stop // chain.SEGMENT_BYTES + 1)
    wanted = {(taken.timeline, number) for number in numbers}

    async def archived() -> bool:
        return wanted <= set((await parts.shelves.index(database)).segments)

    what = f"the WAL of the backup of {database}"
    try:
        await wait_until(CLOCK, archived, what=what, seconds=ARCHIVE_SECONDS, every=0.5)
    except TimedOut as error:
        raise OperationFailed(
            f"The archive of {database} has not the WAL that its backup needs, from "
            f"{format_lsn(taken.start)} on: nothing could be restored from it.",
            hint="regionctl backup status; regionctl logs of the archiver",
        ) from error


async def _any(parts: Parts, instances: Sequence[str]) -> Any:
    problem: Problem | None = None
    for instance in instances:
        try:
            return await parts.cluster.where(instance)
        except Problem as error:
            problem = error
    assert problem is not None
    raise problem


async def _copy(
    parts: Parts,
    index: Index,
    source: str,
    parent: Backup | None,
    id: str,
    primary: str,
    region: str,
) -> Taken:
    site = parts.site
    if source != primary:
        await _refresh(parts, source, primary)
    folder = await asyncio.to_thread(parts.folder, parts.scratch / id)
    extra: list[str] = []
    if parent is not None:
        manifest = folder / "parent_manifest"
        await asyncio.to_thread(_put, parts, manifest, await manifest_of(parts, index, parent.id))
        extra = ["--incremental", str(manifest)]
    began = CLOCK.now()
    port = site.dial_port(region, source)
    patience = asyncio.ensure_future(_have_sender_give_way(parts, source))
    copied = functools.partial(_copied, parts, source, parent)
    try:
        with parts.working(index.database, copied):
            await site.run(
                "pg_basebackup",
                *("-D", str(folder / "data"), "-X", "none", "--checkpoint", "fast", "--no-sync"),
                *("--manifest-checksums", "CRC32C", "--label", id, *extra),
                *("-d", f"host={HOST} port={port} user={postgres.REPLICATION} dbname=replication"),
                instance=source,
                password=site.secrets.replication,
                seconds=COPY_SECONDS,
            )
    finally:
        patience.cancel()
        await asyncio.gather(patience, return_exceptions=True)
    ended = CLOCK.now()
    await site.run(
        "pg_verifybackup", "-n", "-q", str(folder / "data"), instance=source, seconds=COPY_SECONDS
    )
    ranges = json.loads((folder / "data" / pieces.MANIFEST).read_bytes())["WAL-Ranges"]
    if len(ranges) != 1:
        raise OperationFailed(f"{source} changed its timeline while it was copied.")
    return Taken(
        folder / "data",
        parent,
        ranges[0]["Timeline"],
        parse_lsn(ranges[0]["Start-LSN"]),
        parse_lsn(ranges[0]["End-LSN"]),
        began,
        ended,
    )


async def _copied(parts: Parts, source: str, parent: Backup | None) -> Work:
    """How much of it increments will be is not known before."""
    async with parts.monitor.session(source) as session:
        done, size = await session.fetchrow(_COPIED)
    return Work("copy", done, 0 if parent else max(done, size))


async def _have_sender_give_way(parts: Parts, source: str) -> None:
    """The server's own process that reads the copy and sends it is as patient as who receives it;
    a copy is none the worse when this fails."""
    with contextlib.suppress(Problem, OSError):
        async with parts.monitor.session(source) as session:

            async def sender() -> int | None:
                pid: int | None = await session.fetchval(SENDER)
                return pid

            pid = await wait_until(CLOCK, sender, what="the copy to begin", seconds=REPLAY_SECONDS)
        os.setpriority(os.PRIO_PROCESS, pid, LARGE_WORK_NICE)


async def _refresh(parts: Parts, source: str, primary: str) -> None:
    """The standby makes a restart point of now: a backup begins at its last one, and from there on
    WAL is needed, which for an incremental one must be later than its parent's end."""
    with contextlib.suppress(Problem):
        async with parts.monitor.session(primary) as session:
            await session.execute("CHECKPOINT")
            position = await session.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")

        async def replayed() -> bool:
            where = await parts.cluster.where(source)
            return bool(where["position"] >= position)

        await wait_until(CLOCK, replayed, what=f"{source} to follow", seconds=REPLAY_SECONDS)
    async with parts.monitor.session(source) as session:
        await session.execute("CHECKPOINT")


def _put(parts: Parts, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    if parts.site.user is not None:
        shutil.chown(path, parts.site.user.uid, parts.site.user.gid)


async def manifest_of(parts: Parts, index: Index, id: str) -> bytes:
    """The manifest of a stored backup: its first piece."""
    document = await parts.shelves.document_of(index, id)
    [found] = [each for each in index.objects[id] if each.name.endswith("/piece-00001")]
    known = document["pieces"][0]
    data = await parts.shelves.fetch(found, known["sha256"])
    pieces.check(found.name, known, data)
    return data


async def _upload(
    parts: Parts, taken: Taken, id: str, region: str, database: str, map_version: int
) -> Backup:
    """Pieces in parallel, then backup.json, by which the backup is listed."""
    vault = parts.shelves.vaults[region]
    plan = await asyncio.to_thread(pieces.plan, taken.folder)
    loop = asyncio.get_running_loop()

    def pack(name: str, piece: Sequence[pieces.Part]) -> tuple[bytes, Digests]:
        sealed = seal(vault.key, name, pieces.read(taken.folder, piece))
        return sealed, digests(sealed)

    uploaded = 0

    async def one(number: int) -> JSON:
        nonlocal uploaded
        name, piece = f"{database}/{id}/piece-{number + 1:05}", plan.pieces[number]
        sealed, known = await loop.run_in_executor(packers, pack, name, piece)
        stored = await vault.store.put(name, sealed, known)
        uploaded += sum(part.size for part in piece)
        return pieces.to_json(piece, stored.size, stored.sha256)

    async def far() -> Work:
        return Work("upload", uploaded, plan.size)

    packers = ThreadPoolExecutor(UPLOADS, "packer", initializer=_give_way)
    try:
        with parts.working(database, far):
            listed = await every(one, range(len(plan.pieces)), at_once=UPLOADS)
    finally:
        packers.shutdown(wait=False)
    backup = Backup(
        id=id,
        database=database,
        kind="incremental" if taken.parent else "full",
        parent=taken.parent.id if taken.parent else None,
        region=region,
        timeline=taken.timeline,
        start=taken.start,
        stop=taken.stop,
        began_at=taken.began_at,
        ended_at=taken.ended_at,
        bytes=plan.size,
        stored=sum(each["stored"] for each in listed),
        pieces=len(listed),
        map_version=map_version,
    )
    await _list(vault, backup, plan, listed)
    return backup


def _give_way() -> None:
    """This thread is as patient as the programs that copy and check."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LARGE_WORK_NICE)


async def _list(vault: Vault, backup: Backup, plan: pieces.Plan, listed: Sequence[JSON]) -> None:
    document = {
        "format": FORMAT,
        "backup": backup.to_json(),
        "folders": list(plan.folders),
        "pieces": list(listed),
    }
    await vault.put(f"{backup.database}/{backup.id}/{DOCUMENT}", json.dumps(document).encode())


async def prune(parts: Parts, database: str, keep_full: int) -> Sequence[str]:
    """Chains beyond the newest `keep_full`, and WAL that nothing kept needs, are gone.

    A backup that is being written needs only WAL that is newer than all kept ones, and builds on
    the newest chain, which is kept. Each backup is first unlisted, then its pieces are removed.
    """
    index = await parts.shelves.index(database)
    gone = chain.doomed(index.backups, keep_full)
    for id in gone:
        objects = index.objects[id]
        listing = [each for each in objects if each.name.endswith(f"/{DOCUMENT}")]
        await parts.shelves.delete(listing)
        await parts.shelves.delete(each for each in objects if each not in listing)
    kept = [each for each in index.backups if each.id not in gone]
    spare = chain.spare(index.wal.segments | index.wal.partial, kept)
    await parts.shelves.delete(index.segments[segment] for segment in spare)
    lock = exclusive(parts.scratch / f"{database}.lock", f"{database} is being backed up")
    with contextlib.suppress(Refused), lock:  # whoever is writing one now does this himself
        fresh = await parts.shelves.index(database)
        await parts.shelves.delete(fresh.leftovers)
    return gone


async def forget(parts: Parts, database: str) -> None:
    """See `infra.backups.Backups.forget`."""
    with exclusive(parts.scratch / f"{database}.lock", f"{database} is being backed up"):
        for vault in parts.shelves.vaults.values():
            found = await vault.store.list(f"{database}/")
            await vault.store.delete(each.name for each in found)
        for spool in parts.shelves.spools.values():
            await asyncio.to_thread(shutil.rmtree, spool / database, ignore_errors=True)
