"""Whether a stored backup, what it builds on, and all WAL behind it are what was once written."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from infra.backups import JSON
from infra.local.backups import chain, restore, wal
from infra.local.backups.chain import SEGMENT_BYTES, Segment
from infra.local.backups.index import Index
from infra.local.backups.parts import Parts, every, exclusive
from infra.local.backups.restore import Meter
from infra.lsn import format_lsn
from runtime.errors import NotFound, OperationFailed, Problem, Unavailable

WAVE = 8


async def verify(parts: Parts, id: str) -> JSON:
    """See `infra.backups.Backups.verify`. Raises `NotFound`."""
    index = await parts.shelves.index(id.partition("-")[0])
    if id not in {each.id for each in index.backups}:
        raise NotFound(f"No backup is called {id}.", hint="regionctl backup list")
    scratch = parts.scratch / f"verify-{id}"
    with exclusive(parts.scratch / f"verify-{id}.lock", f"{id} is being verified"):
        try:
            return await _verify(parts, index, id, parts.folder(scratch))
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            (parts.scratch / f"verify-{id}.lock").unlink(missing_ok=True)


async def _verify(parts: Parts, index: Index, id: str, scratch: Path) -> JSON:
    problems: list[str] = []
    pieces = 0
    links = chain.chain_of(index.backups, id)
    meter = Meter(all=sum(each.bytes for each in links))
    for backup in links:
        folder = parts.folder(scratch / "input")
        pieces += backup.pieces
        try:
            with parts.working(id, meter.far):
                await restore.download(parts, index, backup.id, folder, meter)
            await restore.verify_input(parts, backup.id, folder)
        except Unavailable:
            raise
        except Problem as error:
            problems.append(error.detail)
    backup = links[-1]
    covered = chain.run(index.wal, backup)
    if not chain.on_path(index.wal, backup):
        problems.append(f"Its timeline {backup.timeline} was left before it ended.")
    hole = chain.hole_after(index.wal, covered)
    if hole is not None:
        problems.append(f"The archive has a hole: {hole}.")
    problems += await verify_wal(parts, index, covered, scratch / "wal", backup.stop)
    return {
        "pieces": pieces,
        "bytes": meter.bytes + len(covered) * SEGMENT_BYTES,
        "segments": len(covered),
        "problems": problems,
    }


async def verify_wal(
    parts: Parts, index: Index, covered: tuple[Segment, ...], folder: Path, stop: int
) -> list[str]:
    """Each segment is authentic, and its records follow upon each other up to the next segment;
    those of the last one reach `stop`, if it is in there."""
    problems: list[str] = []
    last = covered[-1] if covered else None
    for first in range(0, len(covered), WAVE):
        parts.folder(folder)
        wave = covered[first : first + WAVE]

        async def one(segment: Segment) -> str | None:
            try:
                await wal.fetch(parts, index, [segment], folder)
                extent = await wal.extent(parts, folder, segment)
            except Unavailable:
                raise
            except Problem as error:
                empty = segment == last and isinstance(error, OperationFailed)
                return None if empty and "no record" in error.detail else error.detail
            due = (segment[1] + 1) * SEGMENT_BYTES
            if extent.end < (min(stop, due) if segment == last else due):
                name = chain.segment_name(segment)
                end = format_lsn(extent.end)
                return f"The WAL segment {name} is damaged: it can be read to {end} only."
            return None

        problems += [each for each in await every(one, wave) if each is not None]
    return problems
