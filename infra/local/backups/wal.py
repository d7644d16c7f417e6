"""Segments of WAL on our disk: fetched from the archive, and read with pg_waldump."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from infra.local.backups import chain
from infra.local.backups.chain import SEGMENT_BYTES, Extent, Segment
from infra.local.backups.index import Index, Object
from infra.local.backups.parts import Parts, every, output
from infra.local.backups.seal import Damaged
from infra.lsn import format_lsn, parse_lsn
from runtime.errors import OperationFailed

LOOKED_BACK = 16
_RECORD = re.compile(rb"lsn: ([0-9A-F]+/[0-9A-F]+), prev")
_COMMIT = re.compile(
    rb"desc: COMMIT(?: PREPARED)?[^;\n]*? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC"
)
_END = re.compile(rb"error in WAL record at [0-9A-F/]+: [^\n]* at ([0-9A-F]+/[0-9A-F]+)[:;, \n]")


async def fetch(parts: Parts, index: Index, segments: Sequence[Segment], folder: Path) -> int:
    """These segments and all histories lie in `folder` under the names that recovery asks for.

    Each is written beside and renamed. Returns the bytes. Raises `Damaged`.
    """

    async def one(found: tuple[str, Object]) -> int:
        name, each = found
        if (folder / name).exists():
            return 0
        data = await parts.shelves.fetch(each)
        if not name.endswith(".history") and len(data) != SEGMENT_BYTES:
            raise Damaged(
                f"The backup object {each.name} is damaged: it has {len(data)} bytes.",
                extra={"object": each.name},
            )
        await asyncio.to_thread(write, parts, folder / name, data)
        return len(data)

    wanted = [(chain.segment_name(each), index.segments[each]) for each in segments]
    wanted += [(f"{timeline:08X}.history", each) for timeline, each in index.histories.items()]
    return sum(await every(one, wanted))


def write(parts: Parts, path: Path, data: bytes) -> None:
    """A file of the database user, whole or not there."""
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if parts.site.user is not None:
            os.fchown(file.fileno(), parts.site.user.uid, parts.site.user.gid)
        file.write(data)
    beside.rename(path)


async def extent(parts: Parts, folder: Path, segment: Segment) -> Extent:
    """How far this segment can be read. Raises `OperationFailed` when no record begins in it."""
    timeline, number = segment
    _, out, err = await output(
        parts.site,
        "pg_waldump",
        *("-p", str(folder), "-t", str(timeline)),
        *("-s", format_lsn(number * SEGMENT_BYTES)),
        *("-e", format_lsn((number + 1) * SEGMENT_BYTES)),
    )
    return parse(out, err, segment)


def parse(out: bytes, err: bytes, segment: Segment) -> Extent:
    """What pg_waldump said of it."""
    end = (segment[1] + 1) * SEGMENT_BYTES
    said = _END.search(err)
    if said is not None:
        end = parse_lsn(said[1].decode())
    records = out.rfind(b"lsn: ")
    found = _RECORD.match(out, records) if records >= 0 else None
    if found is None:
        raise OperationFailed(
            f"The WAL segment {chain.segment_name(segment)} has no record that can be read.",
            extra={"lines": err.decode(errors="replace").splitlines()[-4:]},
        )
    times = [each[1] for each in _COMMIT.finditer(out)]
    commit_at = None
    if times:
        text = max(times).decode()
        commit_at = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return Extent(parse_lsn(found[1].decode()), end, commit_at)


async def reach(parts: Parts, index: Index, covered: Sequence[Segment], folder: Path) -> Extent:
    """How far the run `covered` goes, from its last segments, which are fetched for it.

    The last one may have just begun and have no record yet; the newest commit may be further back.
    """
    found: Extent | None = None
    for back, segment in enumerate(reversed(covered)):
        await fetch(parts, index, [segment], folder)
        try:
            here = await extent(parts, folder, segment)
        except OperationFailed:
            if back > 0 and found is None:
                raise
            continue
        found = replace(found, commit_at=here.commit_at) if found else here
        if found.commit_at is not None or back >= LOOKED_BACK:
            break
    if found is None:
        raise OperationFailed("The archive has no WAL that can be read.")
    return found
