"""Damage on purpose, on copies of stored objects: what a check must find, or it is worth nothing.

A backup with all that it needs is copied below a prefix of its own in the same bucket, and one
thing of the copy is damaged. The sealed objects are copied as they are, under the same names, so
that whatever finds the damage there would find it in the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infra.backups import JSON, Target
from infra.local.backups import chain, restore, verify
from infra.local.backups.chain import SEGMENT_BYTES
from infra.local.backups.index import DOCUMENT, Index, Object, Shelves
from infra.local.backups.parts import Parts, every
from infra.local.backups.restore import Meter
from infra.local.backups.store import Digests, Store, Stored, Vault
from infra.lsn import format_lsn
from runtime.errors import Problem, Refused, Unavailable

SCRATCH = "scratch"


class Copies(Store):
    """A part of another store's bucket as a store of its own: all names below `prefix`."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.region, self.bucket = store.region, store.bucket
        self._store, self._prefix = store, prefix

    async def ensure(self) -> None:
        await self._store.ensure()

    async def put(self, name: str, body: bytes, known: Digests | None = None) -> Stored:
        return self._named(await self._store.put(self._prefix + name, body, known))

    async def get(self, name: str, sha256: str = "") -> bytes:
        return await self._store.get(self._prefix + name, sha256)

    async def find(self, name: str) -> Stored | None:
        found = await self._store.find(self._prefix + name)
        return self._named(found) if found else None

    async def list(self, prefix: str = "") -> Sequence[Stored]:
        return [self._named(each) for each in await self._store.list(self._prefix + prefix)]

    async def delete(self, names: Iterable[str]) -> None:
        await self._store.delete([self._prefix + name for name in names])

    def _named(self, stored: Stored) -> Stored:
        return replace(stored, name=stored.name.removeprefix(self._prefix))


@dataclass(frozen=True)
class Planted:
    """What was damaged in the copy, and the `sign` by which a restore must tell it."""

    object: str
    sign: str


@dataclass(frozen=True)
class Copied:
    """The copy of one backup with its chain and WAL, as `parts` to work with."""

    parts: Parts
    index: Index
    id: str

    @property
    def vault(self) -> Vault:
        return next(iter(self.parts.shelves.vaults.values()))

    def piece(self, id: str, number: int) -> Object:
        name = f"/piece-{number:05}"
        return next(each for each in self.index.objects[id] if each.name.endswith(name))

    async def replace(self, found: Object, change: Callable[[bytearray], None]) -> None:
        """The stored bytes changed, as a failing disk would."""
        body = bytearray(await self.vault.store.get(found.name))
        change(body)
        await self.vault.store.put(found.name, bytes(body))


@contextlib.asynccontextmanager
async def copied(parts: Parts, id: str) -> AsyncIterator[Copied]:
    """A copy of the backup `id` with all that a restore from it needs; gone afterwards."""
    index = await parts.shelves.index(id.partition("-")[0])
    links = chain.chain_of(index.backups, id)
    wanted = [each for link in links for each in index.objects[link.id]]
    wanted += [index.segments[each] for each in chain.run(index.wal, links[-1])]
    wanted += index.histories.values()
    real = parts.shelves.vaults[links[-1].region]
    prefix = f"{SCRATCH}/{secrets.token_hex(8)}/"
    vault = Vault(Copies(real.store, prefix), real.key)

    async def copy(found: Object) -> None:
        if found.spool is None:
            body = await parts.shelves.vaults[found.region].store.get(found.name)
            await vault.store.put(found.name, body)
            return
        timeline = found.name[:8]
        name = f"{index.database}/wal/{timeline}/{found.name}"
        await vault.put(name, await parts.shelves.fetch(found))

    try:
        await every(copy, wanted)
        shelves = Shelves({links[-1].region: vault}, {})
        alone = replace(parts, given=shelves)
        yield Copied(alone, await shelves.index(index.database), id)
    finally:
        await real.store.delete([each.name for each in await real.store.list(prefix)])


async def check(parts: Parts, id: str, kind: str) -> JSON:
    """Whether a restore from a copy of backup `id`, damaged as `kind`, says so: {"kind", "object",
    "caught", "how"}. Raises `Refused` when the backup has nothing that could be so damaged.

    It is caught when what is damaged is named: an archive that is refused for another reason
    proves nothing.
    """
    async with copied(parts, id) as copy:
        planted = await KINDS[kind](copy)
        fresh = replace(copy.parts, given=Shelves(copy.parts.shelves.vaults, {}))
        said = await _said(fresh, id)
    caught = said is not None and planted.sign in said
    return {
        "kind": kind,
        "object": planted.object,
        "caught": caught,
        "how": said or "nothing was found",
    }


async def _said(parts: Parts, id: str) -> str | None:
    """What is said against a restore from backup `id`, by everything that comes before recovery,
    and by the check of all WAL."""
    work = parts.folder(parts.scratch / f"damage-{secrets.token_hex(6)}")
    try:
        way = await restore.find_way(parts, id.partition("-")[0], Target(), id, work)
        await restore.prepare(parts, way, work, Meter())
        problems = await verify.verify_wal(
            parts, way.index, way.covered, work / "check", way.backup.stop
        )
    except Unavailable:
        raise
    except Problem as error:
        return error.detail
    finally:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    return problems[0] if problems else None


async def _flip_piece(copy: Copied, id: str) -> Planted:
    found = copy.piece(id, 2)
    await copy.replace(found, _flip)
    return Planted(found.name, found.name)


async def flip_full(copy: Copied) -> Planted:
    return await _flip_piece(copy, _links(copy)[0])


async def flip_incremental(copy: Copied) -> Planted:
    return await _flip_piece(copy, _incremental(copy))


async def flip_wal(copy: Copied) -> Planted:
    found = copy.index.segments[_first_segment(copy)]
    await copy.replace(found, _flip)
    return Planted(found.name, found.name)


async def forge_full(copy: Copied) -> Planted:
    return await _forge(copy, _links(copy)[0])


async def forge_incremental(copy: Copied) -> Planted:
    return await _forge(copy, _incremental(copy))


async def _forge(copy: Copied, id: str) -> Planted:
    """A bit flipped before it was sealed: seal and listing agree, only the manifest does not."""
    [listing] = [each for each in copy.index.objects[id] if each.name.endswith(f"/{DOCUMENT}")]
    document = json.loads(await copy.vault.get(listing.name))
    found = copy.piece(id, 2)
    data = bytearray(await copy.vault.get(found.name))
    _flip(data)
    stored = await copy.vault.put(found.name, bytes(data))
    document["pieces"][1] |= {"sha256": stored.sha256, "stored": stored.size}
    await copy.vault.put(listing.name, json.dumps(document).encode())
    return Planted(found.name, id)


async def forge_wal(copy: Copied) -> Planted:
    """A bit of the record at which recovery begins is another, sealed as if it belonged."""
    segment = _first_segment(copy)
    found = copy.index.segments[segment]
    data = bytearray(await copy.vault.get(found.name))
    start = next(each.start for each in copy.index.backups if each.id == copy.id)
    data[start - segment[1] * SEGMENT_BYTES + 20] ^= 1
    await copy.vault.put(found.name, bytes(data))
    return Planted(found.name, chain.segment_name(segment))


async def drop_segment(copy: Copied) -> Planted:
    found = copy.index.segments[_first_segment(copy)]
    await copy.vault.store.delete([found.name])
    return Planted(found.name, "has a hole")


async def truncate_manifest(copy: Copied) -> Planted:
    found = copy.piece(copy.id, 1)
    data = await copy.vault.get(found.name)
    await copy.vault.put(found.name, data[: len(data) // 2])
    return Planted(found.name, found.name)


async def wrong_timeline(copy: Copied) -> Planted:
    """The archive goes on along another timeline, which left ours before the backup."""
    [backup] = [each for each in copy.index.backups if each.id == copy.id]
    other, number = backup.timeline + 1, backup.start // SEGMENT_BYTES
    left = format_lsn(number * SEGMENT_BYTES)
    earlier = copy.index.wal.histories.get(backup.timeline, ())
    lines = [f"{t}\t{format_lsn(lsn)}\tforged\n" for t, lsn in earlier]
    lines.append(f"{backup.timeline}\t{left}\tforged\n")
    folder = f"{copy.index.database}/wal/{other:08X}"
    data = await copy.vault.get(copy.index.segments[_first_segment(copy)].name)
    await copy.vault.put(f"{folder}/{chain.segment_name((other, number))}", data)
    await copy.vault.put(f"{folder}/{other:08X}.history", "".join(lines).encode())
    return Planted(f"{folder}/{other:08X}.history", "was left earlier")


def _flip(data: bytearray) -> None:
    data[len(data) * 2 // 3] ^= 1


def _links(copy: Copied) -> list[str]:
    return [each.id for each in chain.chain_of(copy.index.backups, copy.id)]


def _incremental(copy: Copied) -> str:
    links = _links(copy)
    if len(links) == 1:
        raise Refused(f"{copy.id} has no incremental backup.", hint="Choose an incremental one.")
    return links[1]


def _first_segment(copy: Copied) -> chain.Segment:
    [backup] = [each for each in copy.index.backups if each.id == copy.id]
    return chain.run(copy.index.wal, backup)[0]


KINDS: dict[str, Callable[[Copied], Coroutine[Any, Any, Planted]]] = {
    "flip-full": flip_full,
    "flip-incremental": flip_incremental,
    "flip-wal": flip_wal,
    "drop-segment": drop_segment,
    "truncate-manifest": truncate_manifest,
    "wrong-timeline": wrong_timeline,
    "forge-full": forge_full,
    "forge-incremental": forge_incremental,
    "forge-wal": forge_wal,
}
