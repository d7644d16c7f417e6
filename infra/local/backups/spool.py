"""What lies in the spool of one database, and what is to become of it. Pure.

pg_receivewal writes into the spool and finds by its files where to go on: after the whole segment
with the highest number, or at the beginning of the `.partial` one. So the newest file stays, and
files of a history that the server does not share are set aside before it is started.

Positions (LSN) are bytes; a segment is known by its timeline and number (LSN // 16 MiB).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SEGMENT = 16 << 20
PARTIAL_SECONDS = 10.0
KEPT = 2
_NAME = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_IN_4_GIB = (1 << 32) // SEGMENT


@dataclass(frozen=True, order=True)
class Place:
    """A segment: in order of its number, then of its timeline, as pg_receivewal compares them."""

    number: int
    timeline: int

    @property
    def start(self) -> int:
        return self.number * SEGMENT

    @property
    def end(self) -> int:
        return self.start + SEGMENT

    @property
    def name(self) -> str:
        """PostgreSQL's name of the file, such as "000000010000000000000002"."""
        return f"{self.timeline:08X}{self.number // _IN_4_GIB:08X}{self.number % _IN_4_GIB:08X}"


@dataclass(frozen=True)
class File:
    """One file of WAL; `whole` or still being written."""

    place: Place
    whole: bool
    size: int

    @property
    def name(self) -> str:
        return self.place.name if self.whole else f"{self.place.name}.partial"


@dataclass(frozen=True)
class Spool:
    """The files of WAL in order, and the names of history files."""

    files: tuple[File, ...] = ()
    histories: tuple[str, ...] = ()

    @property
    def newest(self) -> File | None:
        """Where pg_receivewal goes on: of one segment the newer timeline, then the whole one."""
        return max(self.files, key=lambda f: (f.place, f.whole), default=None)


@dataclass(frozen=True)
class Server:
    """What a primary says: its database system's identifier, its timeline, the earlier ones with
    where each ended, the position up to which it has written, and from where our slot keeps WAL
    for us."""

    system: int
    timeline: int
    history: tuple[tuple[int, int], ...]
    written: int
    kept: int

    def end_of(self, timeline: int) -> int | None:
        """Where `timeline` ends in this server's history; None for a timeline that it lacks."""
        return self.written if timeline == self.timeline else dict(self.history).get(timeline)


@dataclass(frozen=True)
class Gap:
    """WAL that the archive will never have. `begin` and `end` are LSN in bytes."""

    begin: int
    end: int
    timeline: int
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"begin": self.begin, "end": self.end, "timeline": self.timeline, "why": self.why}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Gap:
        """Raises `KeyError` on another document."""
        return Gap(*(document[name] for name in ("begin", "end", "timeline", "why")))


@dataclass(frozen=True)
class Mark:
    """How far the archive goes: whole segments before `following`, on `timeline`."""

    timeline: int
    following: int


@dataclass(frozen=True)
class Begin:
    """How receiving begins: these files are set aside, and an empty `seed` says where to go on."""

    aside: tuple[str, ...] = ()
    seed: str | None = None
    gap: Gap | None = None


@dataclass(frozen=True)
class Work:
    """What is to be uploaded, in this order, and what may go."""

    upload: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


def parse(name: str) -> tuple[Place, bool] | None:
    """(segment, whether whole) of a file's name; None for a file that is no WAL."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    timeline, high, low = (int(part, 16) for part in found.groups()[:3])
    return Place(high * _IN_4_GIB + low, timeline), found[4] is None


def read(listing: Iterable[tuple[str, int]]) -> Spool:
    """The spool from (name, size) of everything in its folder."""
    files, histories = [], []
    for name, size in listing:
        known = parse(name)
        if known is not None:
            files.append(File(*known, size))
        elif _HISTORY.fullmatch(name):
            histories.append(name)
    files.sort(key=lambda f: (f.place, f.whole))
    return Spool(tuple(files), tuple(sorted(histories)))


def object_name(database: str, name: str) -> str:
    """Where a file of WAL, or a history, lies in the bucket."""
    return f"{database}/wal/{name[:8]}/{name}"


def broken(spool: Spool) -> tuple[str, ...]:
    """Files that a full disk or a crash left half made, which pg_receivewal would stumble over."""
    return tuple(
        file.name for file in spool.files if file.size != SEGMENT and (file.whole or file.size != 0)
    )


def begin(spool: Spool, server: Server, mark: Mark | None, *, lost: bool = False) -> Begin:
    """How to go on with `server`; `lost` when it no longer has the WAL that was asked for.

    What lies on the server's history stays. When nothing is left of that, receiving goes on where
    the archive ends, as far as the server's history goes with it, or else where the slot begins.
    """
    stays = [] if lost else [file for file in spool.files if _shared(file, server)]
    aside = tuple(file.name for file in spool.files if file not in stays)
    if stays:
        return Begin(aside)
    reached = _reached(spool, server, mark)
    wanted = None if lost or mark is None else _onward(mark, server)
    if wanted is not None:
        return Begin(aside, f"{wanted.name}.partial")
    fork = server.history[-1][1] if server.history else 0
    first = Place(max(server.kept, fork) // SEGMENT, server.timeline)
    gap = None
    if reached is not None and first.start > reached:
        why = "the server no longer has it" if lost else "the server has another history"
        gap = Gap(reached, first.start, server.timeline, why)
    return Begin(aside, f"{first.name}.partial", gap)


def _shared(file: File, server: Server) -> bool:
    end = server.end_of(file.place.timeline)
    return end is not None and (file.place.end if file.whole else file.place.start) <= end


def _onward(mark: Mark, server: Server) -> Place | None:
    """Where the archive's end continues on the server's history."""
    end = server.end_of(mark.timeline)
    return None if end is None else Place(min(mark.following, end // SEGMENT), mark.timeline)


def _reached(spool: Spool, server: Server, mark: Mark | None) -> int | None:
    """Up to where archive and spool together have the server's history, in whole segments."""
    ends = [file.place.end for file in spool.files if file.whole and _shared(file, server)]
    if mark is not None:
        end = server.end_of(mark.timeline)
        follows = mark.following * SEGMENT
        ends.append(follows if end is None else min(follows, end // SEGMENT * SEGMENT))
    return max(ends, default=None)


def work(
    spool: Spool,
    uploaded: Collection[str],
    *,
    partial_due: bool,
    receiving: bool = True,
) -> Work:
    """What to upload and what to drop; `uploaded` has what the storage confirmed.

    Histories first, without which the segments after them cannot be placed. The newest `.partial`
    file goes when it is due and never counts as uploaded; older ones are final. The newest files
    stay for pg_receivewal, while it is to go on here.
    """
    newest = spool.newest
    final = [file for file in spool.files if file.whole or file != newest]
    upload = [name for name in spool.histories if name not in uploaded]
    upload += [file.name for file in final if file.name not in uploaded]
    if newest is not None and not newest.whole and partial_due:
        upload.append(newest.name)
    done = [file.name for file in final if file.name in uploaded]
    kept = [file.name for file in spool.files[-KEPT:]] if receiving else []
    return Work(tuple(upload), tuple(name for name in done if name not in kept))


def advance(mark: Mark | None, place: Place) -> tuple[Mark, Gap | None]:
    """The archive's mark after the whole segment `place` was uploaded, and the hole before it."""
    after = Mark(place.timeline, place.number + 1)
    if mark is None:
        return after, None
    if place.timeline < mark.timeline or (
        place.timeline == mark.timeline and place.number < mark.following
    ):
        return mark, None
    if place.number <= mark.following:
        return after, None
    why = "it was received and then lost before it was uploaded"
    return after, Gap(mark.following * SEGMENT, place.start, place.timeline, why)


@dataclass(frozen=True)
class Bound:
    """How much may wait for the storage, in bytes, of all databases together."""

    limit: int

    def alarms(self, waiting: int) -> bool:
        return waiting > self.limit // 2

    def gives_up(self, waiting: Mapping[str, int], total: int) -> str | None:
        """Which of the databases that are being received is no longer, when too much waits in
        `total`: that of which most waits."""
        if total <= self.limit:
            return None
        return max(waiting, key=lambda name: (waiting[name], name), default=None)

    def resumes(self, waiting: int) -> bool:
        return waiting <= self.limit // 2
