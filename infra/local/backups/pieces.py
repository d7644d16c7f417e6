"""How a base backup's files lie in pieces of about 16 MB, and back.

A piece is the concatenation of parts of files: several small files, or a part of a large one. The
plan is made from the files' sizes alone, and is kept in backup.json with the SHA-256 of each piece
as it is stored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.backups.seal import Damaged
from infra.local.layout import SystemUser

JSON = dict[str, Any]
PIECE_BYTES = 16 * 1024 * 1024
MANIFEST = "backup_manifest"
LARGE = 1 << 20


@dataclass(frozen=True)
class Part:
    """`size` bytes of the file `path` (relative) from `offset` on."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Plan:
    """Folders and pieces of a backup; the first piece is the manifest alone."""

    folders: tuple[str, ...]
    pieces: tuple[tuple[Part, ...], ...]

    @property
    def size(self) -> int:
        return sum(part.size for piece in self.pieces for part in piece)


def plan(folder: Path) -> Plan:
    """Of everything below `folder`. Raises `ValueError` for what is no file and no folder."""
    folders, files = [], []
    for path in sorted(folder.rglob("*")):
        name, found = str(path.relative_to(folder)), path.lstat()
        if stat.S_ISDIR(found.st_mode):
            folders.append(name)
        elif stat.S_ISREG(found.st_mode):
            files.append((name, found.st_size))
        else:
            raise ValueError(f"{name} is neither a file nor a folder")
    manifest = [each for each in files if each[0] == MANIFEST]
    others = [each for each in files if each[0] != MANIFEST]
    return Plan(tuple(folders), (*deal(manifest), *deal(others)))


def deal(files: Iterable[tuple[str, int]]) -> tuple[tuple[Part, ...], ...]:
    """Files, as (path, size), dealt into pieces in their order."""
    pieces: list[list[Part]] = []
    room = 0
    for path, size in files:
        offset = 0
        while offset < size or size == offset == 0:
            if room <= 0:
                pieces.append([])
                room = PIECE_BYTES
            taken = min(size - offset, room)
            pieces[-1].append(Part(path, offset, taken))
            offset, room = offset + taken, room - taken
            if size == 0:
                break
    return tuple(tuple(piece) for piece in pieces)


def read(folder: Path, piece: Iterable[Part]) -> bytes:
    """The bytes of a piece."""
    found = bytearray()
    for part in piece:
        with (folder / part.path).open("rb") as file:
            file.seek(part.offset)
            data = file.read(part.size)
        if len(data) != part.size:
            raise OSError(f"{part.path} has become shorter")
        found += data
    return bytes(found)


def write(
    folder: Path,
    name: str,
    piece: Iterable[Part],
    blocks: Iterator[memoryview],
    owner: SystemUser | None,
) -> int:
    """The bytes of the piece `name` are in its files, which other pieces may be writing to as well.
    Returns how many. Raises `Damaged` when they are not as many as the piece has."""
    block, written = memoryview(b""), 0
    for part in piece:
        descriptor = os.open(folder / part.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if owner is not None:
                os.fchown(descriptor, owner.uid, owner.gid)
            offset, end = part.offset, part.offset + part.size
            while offset < end:
                block = block or next(blocks, block)
                if not block:
                    raise _other(name)
                done = os.pwrite(descriptor, block[: end - offset], offset)
                block, offset = block[done:], offset + done
            written += part.size
        finally:
            os.close(descriptor)
    if block or next(blocks, block):
        raise _other(name)
    return written


def flush(folder: Path, piece: Iterable[Part]) -> None:
    """What was written of it is on the disk, when it is enough to be worth it."""
    for part in piece:
        if part.size >= LARGE:
            descriptor = os.open(folder / part.path, os.O_WRONLY)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)


def to_json(piece: Iterable[Part], stored: int, sha256: str) -> JSON:
    """A piece in backup.json: `stored` bytes with this SHA-256."""
    return {
        "bytes": sum(part.size for part in piece),
        "stored": stored,
        "sha256": sha256,
        "parts": [[part.path, part.offset, part.size] for part in piece],
    }


def parts_of(name: str, known: Mapping[str, Any]) -> tuple[Part, ...]:
    """Where the bytes of the piece `name` belong, as backup.json says. Raises `Damaged`."""
    parts = tuple(Part(*part) for part in known["parts"])
    for part in parts:
        if part.path.startswith("/") or ".." in Path(part.path).parts:
            raise Damaged(f"The backup {name} names a file outside of itself: {part.path}.")
    return parts


def check(name: str, known: Mapping[str, Any], data: bytes) -> None:
    """It is as large as backup.json says. Raises `Damaged`."""
    if len(data) != known["bytes"]:
        raise _other(name)


def _other(name: str) -> Damaged:
    return Damaged(
        f"The backup object {name} is damaged: it is not what backup.json says.",
        hint="Use another backup: regionctl backup list; then take a full one.",
        extra={"object": name},
    )
