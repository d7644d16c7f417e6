"""The WAL of one database on its way into the object store: received, uploaded, watched.

Three tasks that fail separately: `receive` keeps a pg_receivewal running, `upload` empties the
spool, `watch` asks the primary how far it is, which tells how old the archive is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

from infra.local.backups import spool
from infra.local.backups.receive import ASIDE, LOST, Receiver, Tools, listing, sync_folder
from infra.local.backups.seal import seal
from infra.local.backups.spool import Gap, Mark
from infra.local.backups.store import Vault
from runtime.errors import Problem

STATE = "state.json"
REMOVED = "has already been removed"
TICK_SECONDS = 1.0
LOOK_SECONDS = 10.0
DOCUMENT = "/backup.json"
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)

log = logging.getLogger("archiver")


class Stream:
    """`held`: too much waits for the storage, and nothing more is received."""

    def __init__(self, database: str, folder: Path, tools: Tools, vault: Vault) -> None:
        self.database = database
        self.waiting = 0
        self.held = False
        self._folder = folder
        self._tools = tools
        self._vault = vault
        self._receiver = Receiver(tools, folder)
        self._source: tuple[str, int] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._mark: Mark | None = None
        self._mark_known = False
        self._system: int | None = None
        self._gap: Gap | None = None
        self._uploaded: set[str] = set()
        self._uploaded_to: int | None = None
        self._looked = float("-inf")
        self._partial: tuple[float, int] = (0.0, -1)
        self._samples: deque[tuple[float, int]] = deque(maxlen=600)
        self._current: float | None = None
        self._trouble: dict[str, str] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._load()

    async def follow(self, instance: str, port: int) -> None:
        """Receives from this primary; begins anew when it is another one than before."""
        if self._source == (instance, port):
            return
        log.info("%s: receiving from %s", self.database, instance)
        await self.stop()
        self._source = (instance, port)
        self._samples.clear()
        self._tasks = [
            self._task("receive", self._receive(port)),
            self._task("upload", self._upload()),
            self._task("watch", self._watch(port)),
        ]

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._source = None

    def hold(self) -> None:
        """The spool is full: the server need keep no WAL for us any longer."""
        if not self.held:
            log.error("%s: the spool is full; its WAL is no longer received", self.database)
            self.held = True
            self._begin_receiving()

    def release(self) -> None:
        log.info("%s: receiving again", self.database)
        self.held = False
        self._begin_receiving()

    def _begin_receiving(self) -> None:
        if self._source and self._tasks:
            former = self._tasks[0]
            former.cancel()
            self._tasks[0] = self._task("receive", self._receive(self._source[1], former))

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=f"{name} {self.database}")

    # Receiving.

    async def _receive(self, port: int, former: asyncio.Task[None] | None = None) -> None:
        if former is not None:
            await asyncio.gather(former, return_exceptions=True)
        failures, lost = 0, False
        while True:
            try:
                if self.held:
                    await self._tools.drop_slot(port)
                    return
                server = await self._receiver.meet(port, anew=lost)
                self._recognise(server.system)
                await self._load_mark()
                begin = self._receiver.prepare(server, self._mark, lost=lost)
                if begin.gap is not None:
                    self._note_gap(begin.gap)
                    self._mark = Mark(server.timeline, begin.gap.end // spool.SEGMENT)
                    self._save()
                began = time.monotonic()
                self._trouble.pop("receive", None)
                complaint = await self._receiver.run(port)
                lost = REMOVED in complaint
                if time.monotonic() - began > PAUSES[-1]:
                    failures = 0
                self._complain("receive", complaint or "the server ended the stream")
            except (Problem, *LOST) as error:
                self._complain("receive", str(error) or repr(error))
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    def _recognise(self, system: int) -> None:
        """What lies in the folder is of this database; of another one of its name nothing stays."""
        if self._system not in (None, system):
            log.warning("%s: it is another database now; the spool begins anew", self.database)
            self.forget()
        self._system = system

    def forget(self) -> None:
        """Nothing is left in the folder. Nobody may be receiving into it."""
        shutil.rmtree(self._folder)
        self._folder.mkdir(mode=0o700)
        self._mark, self._mark_known, self._gap = None, True, None
        self._uploaded, self._uploaded_to = set(), None

    def _note_gap(self, gap: Gap) -> None:
        log.error("%s: the archive has a hole: %s", self.database, gap)
        self._gap = gap

    def _complain(self, where: str, what: str) -> None:
        if where not in self._trouble:
            log.warning("%s: %s: %s", self.database, where, what)
        self._trouble[where] = what

    # Uploading.

    async def _upload(self) -> None:
        failures = 0
        while True:
            try:
                await self._load_mark(required=True)
                await self._upload_aside()
                await self._upload_spool()
                await self._close_gap()
                self._trouble.pop("upload", None)
                failures = 0
            except (Problem, OSError) as error:
                reason = error.extra.get("reason", "") if isinstance(error, Problem) else ""
                self._complain("upload", f"{error} {reason}".strip())
                failures += 1
            self.waiting = self._measure()
            await asyncio.sleep(max(TICK_SECONDS, PAUSES[min(failures, len(PAUSES) - 1)]))

    async def _upload_spool(self) -> None:
        due = time.monotonic() - self._partial[0] >= spool.PARTIAL_SECONDS
        filled = self._receiver.written() if due else None
        found = spool.read(listing(self._folder))
        work = spool.work(
            found,
            self._uploaded,
            partial_due=filled is not None and filled[1] != self._partial[1],
            receiving=not self.held,
        )
        for name in work.upload:
            await self._send(self._folder / name)
            self.waiting = self._measure()  # what the bound is kept by, also while this goes slowly
            parsed = spool.parse(name)
            if found.newest and name == found.newest.name and not found.newest.whole and filled:
                self._partial = (time.monotonic(), filled[1])
                self._uploaded_to = filled[1]
                continue
            self._uploaded.add(name)
            if parsed is not None and parsed[1]:
                await self._archived(parsed[0])
        for name in work.drop:
            (self._folder / name).unlink(missing_ok=True)
        self._uploaded &= {*found.histories, *(file.name for file in found.files)}

    async def _close_gap(self) -> None:
        """A full backup that began behind the hole needs nothing from before it."""
        now = time.monotonic()
        if self._gap is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for stored in await self._vault.store.list(f"{self.database}/"):
            if stored.name.endswith(DOCUMENT):
                document = json.loads(await self._vault.get(stored.name))["backup"]
                if document["kind"] == "full" and document["start"] >= self._gap.end:
                    log.info("%s: %s ends the hole", self.database, document["id"])
                    self._gap = None
                    self._save()
                    return

    async def _archived(self, place: spool.Place) -> None:
        """A whole segment is in the store: what was there of it before goes, the mark advances."""
        mark, gap = spool.advance(self._mark, place)
        if gap is not None:
            self._note_gap(gap)
        if mark != self._mark or gap is not None:
            self._mark = mark
            self._save()
        self._uploaded_to = max(self._uploaded_to or 0, place.end)
        name = spool.object_name(self.database, f"{place.name}.partial")
        await self._vault.store.delete([name])

    async def _upload_aside(self) -> None:
        """Files of a history that the server does not share are kept too, then forgotten."""
        for name, _ in listing(self._folder / ASIDE):
            if spool.parse(name) is not None:
                await self._send(self._folder / ASIDE / name)
            (self._folder / ASIDE / name).unlink(missing_ok=True)

    async def _send(self, path: Path) -> None:
        name = spool.object_name(self.database, path.name)
        try:
            body = await asyncio.to_thread(self._seal, path, name)
        except FileNotFoundError:
            return  # a .partial file that became whole meanwhile
        await self._vault.store.put(name, body)

    def _seal(self, path: Path, name: str) -> bytes:
        return seal(self._vault.key, name, path.read_bytes())

    def _measure(self) -> int:
        """Bytes that wait for the storage."""
        found = spool.read(listing(self._folder))
        final = [f for f in found.files if f.whole or f != found.newest]
        waits = sum(f.size for f in final if f.name not in self._uploaded)
        waits += sum(size for _, size in listing(self._folder / ASIDE))
        if found.newest is not None and not found.newest.whole:
            filled = self._receiver.written()
            start = max(found.newest.place.start, self._uploaded_to or 0)
            waits += max(0, filled[1] - start) if filled else 0
        return waits

    # Watching.

    async def _watch(self, port: int) -> None:
        connection = None
        while True:
            try:
                if connection is None:
                    connection = await self._tools.connect(port)
                asked = time.monotonic()
                self._samples.append((asked, await self._tools.written(connection)))
                self._trouble.pop("watch", None)
            except LOST as error:
                self._complain("watch", str(error) or repr(error))
                if connection is not None:
                    connection.terminate()
                connection = None
            except asyncio.CancelledError:
                if connection is not None:
                    connection.terminate()
                raise
            await asyncio.sleep(TICK_SECONDS)

    def status(self) -> dict[str, Any]:
        """What `status.json` says of this database. `ageSeconds`: commits older than that are all
        on this disk; none when that was never known."""
        filled = None
        with contextlib.suppress(OSError):
            filled = self._receiver.written()
        received = filled[1] if filled else None
        while self._samples and received is not None and self._samples[0][1] <= received:
            self._current = self._samples.popleft()[0]
        age = None if self._current is None else round(time.monotonic() - self._current, 3)
        return {
            "source": self._source[0] if self._source else None,
            "running": self._receiver.pid is not None,
            "pid": self._receiver.pid,
            "timeline": filled[0] if filled else None,
            "received": received,
            "uploaded": self._uploaded_to,
            "spoolBytes": self.waiting,
            "ageSeconds": age,
            "held": self.held,
            "gap": self._gap.to_json() if self._gap else None,
            "trouble": dict(self._trouble),
        }

    # What outlives the process.

    def _load(self) -> None:
        try:
            raw = json.loads((self._folder / STATE).read_text(encoding="utf-8"))
            self._mark = Mark(raw["timeline"], raw["following"])
            self._gap = Gap.from_json(raw["gap"]) if raw["gap"] else None
            self._system = raw.get("system")
        except (OSError, ValueError, KeyError, TypeError):
            return
        self._mark_known = True
        self._uploaded_to = self._mark.following * spool.SEGMENT

    async def _load_mark(self, *, required: bool = False) -> None:
        """When the folder was lost, the store knows how far the archive goes.

        Raises `Unavailable` when that cannot be asked and it is `required`.
        """
        if self._mark_known:
            return
        try:
            stored = await self._vault.store.list(f"{self.database}/wal")
        except Problem:
            if required:
                raise
            return
        self._learn(each.name.rpartition("/")[2] for each in stored)

    def _learn(self, names: Iterable[str]) -> None:
        if self._mark_known:
            return
        parsed = (spool.parse(name) for name in names)
        whole = [place for place, is_whole in filter(None, parsed) if is_whole]
        if whole:
            newest = max(whole, key=lambda place: (place.timeline, place.number))
            self._mark = Mark(newest.timeline, newest.number + 1)
            self._uploaded_to = newest.end
        self._mark_known = True

    def _save(self) -> None:
        if self._mark is None:
            return
        document = {
            "timeline": self._mark.timeline,
            "following": self._mark.following,
            "system": self._system,
            "gap": self._gap.to_json() if self._gap else None,
        }
        temporary = self._folder / f".{STATE}"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / STATE)
        sync_folder(self._folder)
