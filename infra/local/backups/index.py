"""What the object stores of all regions, and the archivers' spools, have of a database.

A database's backups and WAL lie in the regions that were not its home at the time, so after a
failover of the region they are in two; here they are one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from infra.backups import DATABASE, Backup
from infra.local.backups import chain
from infra.local.backups.chain import SEGMENT_BYTES, Segment, Wal
from infra.local.backups.seal import Damaged, Key
from infra.local.backups.store import Store, Vault
from infra.local.ports import HOST
from infra.local.site import Site
from infra.lsn import parse_history
from runtime.errors import NotFound, Unavailable

T = TypeVar("T")
JSON = dict[str, Any]
DOCUMENT = "backup.json"
_ID = re.compile(r"[a-z0-9]+-\d{8}T\d{6}Z-(full|incremental)(-\d+)?")


@dataclass(frozen=True)
class Object:
    """An object in the store of `region`, or a file of the archiver's spool there."""

    region: str
    name: str
    size: int
    spool: Path | None = None


@dataclass(frozen=True)
class Index:
    """Everything of one database. `leftovers` are objects of backups that were never finished."""

    database: str
    backups: tuple[Backup, ...] = ()
    wal: Wal = field(default_factory=Wal)
    segments: Mapping[Segment, Object] = field(default_factory=dict)
    histories: Mapping[int, Object] = field(default_factory=dict)
    objects: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)

    @property
    def leftovers(self) -> tuple[Object, ...]:
        listed = {each.id for each in self.backups}
        return tuple(
            each for id, objects in self.objects.items() if id not in listed for each in objects
        )


class Shelves:
    """The vault of each region that has an object store."""

    def __init__(self, vaults: Mapping[str, Vault], spools: Mapping[str, Path]) -> None:
        """`spools[region]` is where the archiver of the region keeps a folder a database."""
        self.vaults = dict(vaults)
        self.spools = dict(spools)
        self._known: dict[tuple[str, str], JSON] = {}

    async def index(self, database: str) -> Index:
        """Raises `Unavailable` when no object storage answers; one of several may be away."""
        objects = await self._list(database)
        backups: list[Backup] = []
        by_id: dict[str, list[Object]] = {}
        segments: dict[tuple[Segment, bool], Object] = {}
        histories: dict[int, Object] = {}
        for each in objects:
            folder, _, rest = each.name.removeprefix(f"{database}/").partition("/")
            if folder == "wal":
                _note_wal(each, rest.rpartition("/")[2], segments, histories)
            elif _ID.fullmatch(folder):
                by_id.setdefault(folder, []).append(each)
                if rest == DOCUMENT:
                    backups.append(Backup.from_json((await self.document(each))["backup"]))
        for region, spool in self.spools.items():
            for path in _files(spool / database):
                each = Object(region, path.name, path.stat().st_size, path)
                # A segment that is only just begun has not its full size yet.
                if each.size == SEGMENT_BYTES or path.name.endswith(".history"):
                    _note_wal(each, path.name, segments, histories)
        whole = {key: each for (key, complete), each in segments.items() if complete}
        partial = {key: each for (key, complete), each in segments.items() if not complete}
        texts = {t: (await self.fetch(each)).decode() for t, each in histories.items()}
        return Index(
            database=database,
            backups=tuple(sorted(backups, key=lambda each: (each.began_at, each.id))),
            wal=Wal(
                frozenset(whole),
                frozenset(partial) - frozenset(whole),
                {timeline: parse_history(text) for timeline, text in texts.items()},
            ),
            segments=partial | whole,
            histories=histories,
            objects={id: tuple(found) for id, found in by_id.items()},
        )

    async def databases(self) -> Sequence[str]:
        """Those of which anything is stored, also when they were given up since."""

        async def one(region: str, vault: Vault) -> Sequence[str]:
            return [each for each in await vault.store.folders() if DATABASE.fullmatch(each)]

        return sorted(set(await self._of_all(one)))

    async def _list(self, database: str) -> list[Object]:
        async def one(region: str, vault: Vault) -> Sequence[Object]:
            found = await vault.store.list(f"{database}/")
            return [Object(region, each.name, each.size) for each in found]

        return await self._of_all(one)

    async def _of_all(
        self, one: Callable[[str, Vault], Coroutine[Any, Any, Sequence[T]]]
    ) -> list[T]:
        """What all stores that answer say. Raises `Unavailable` when none does."""
        answers = await asyncio.gather(
            *(one(region, vault) for region, vault in self.vaults.items()), return_exceptions=True
        )
        silent = [each for each in answers if isinstance(each, Unavailable)]
        broken = [e for e in answers if isinstance(e, BaseException) and e not in silent]
        if broken:
            raise broken[0]
        if len(silent) == len(answers):
            raise silent[0] if silent else Unavailable("This platform has no object storage.")
        return [each for found in answers if not isinstance(found, BaseException) for each in found]

    async def document(self, found: Object) -> JSON:
        """backup.json: what the backup is, and which file lies in which piece."""
        key = (found.region, found.name)
        if key not in self._known:
            text = await self.fetch(found)
            try:
                document: JSON = json.loads(text)
                Backup.from_json(document["backup"])
            except (ValueError, KeyError, TypeError) as error:
                raise Damaged(
                    f"The backup object {found.name} is damaged: {error}.",
                    hint="Use another backup: regionctl backup list; then take a full one.",
                    extra={"object": found.name},
                ) from error
            self._known[key] = document
        return self._known[key]

    async def document_of(self, index: Index, id: str) -> JSON:
        """Raises `NotFound`."""
        for each in index.objects.get(id, ()):
            if each.name.endswith(f"/{DOCUMENT}"):
                return await self.document(each)
        raise NotFound(f"No backup is called {id}.", hint="regionctl backup list")

    async def fetch(self, found: Object, sha256: str = "") -> bytes:
        """Its content, authenticated. Raises `Damaged`, `NotFound`, `Refused` (another key)."""
        if found.spool is None:
            return await self.vaults[found.region].get(found.name, sha256)
        return await asyncio.to_thread(_read_spool, found.spool)

    async def delete(self, objects: Iterable[Object]) -> None:
        by_region: dict[str, list[str]] = {}
        for each in objects:
            if each.spool is None:
                by_region.setdefault(each.region, []).append(each.name)
        for region, names in by_region.items():
            await self.vaults[region].store.delete(names)


def shelves(site: Site) -> Shelves:
    """Of the platform's own object stores and archivers."""
    secrets, vaults, spools = site.secrets, {}, {}
    key = Key.from_hex(secrets.backupKey)
    for spec in site.topology.instances(kind="objects"):
        url = f"http://{HOST}:{site.port(spec.id)}"
        store = Store(spec.region, url, secrets.objectsKey, secrets.objectsSecret)
        vaults[spec.region] = Vault(store, key)
        spools[spec.region] = site.layout.data(spec.region, f"archiver.{spec.region}")
    return Shelves(vaults, spools)


def _note_wal(
    found: Object,
    name: str,
    segments: dict[tuple[Segment, bool], Object],
    histories: dict[int, Object],
) -> None:
    """Whole ones are taken from a store when it has them; of partial ones the spool is newer."""
    timeline = chain.parse_history_name(name)
    if timeline is not None:
        histories.setdefault(timeline, found)
    parsed = chain.parse_segment(name)
    if parsed is not None and (parsed not in segments or not parsed[1]):
        segments[parsed] = found


def _files(folder: Path) -> Sequence[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []


def _read_spool(path: Path) -> bytes:
    """A segment may be finished, and so lose its suffix, at any time."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return path.with_name(path.name.removesuffix(".partial")).read_bytes()
