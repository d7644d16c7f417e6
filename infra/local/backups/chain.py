"""What backups and archived WAL allow: chains, what a target needs, what may be removed.

Pure. Positions (LSN) are bytes; a segment is (timeline, number) with number = LSN // 16 MiB. The
archive's *path* is the history of its newest timeline: other timelines ended somewhere and are
reachable only up to where the path left them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from infra.backups import Backup, Target
from infra.lsn import format_lsn
from runtime.errors import NotFound, OperationFailed, Refused

SEGMENT_BYTES = 16 * 1024 * 1024
Segment = tuple[int, int]
_NAME = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True)
class Wal:
    """What the archive of one database has.

    `segments` are whole; of `partial` ones the rest is missing. `histories[timeline]` has the
    earlier timelines and where each was left, oldest first.
    """

    segments: frozenset[Segment] = frozenset()
    partial: frozenset[Segment] = frozenset()
    histories: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Extent:
    """How far a run of WAL can be read: its last record begins at `last` and ends at `end`.

    `commit_at` is the time of the newest commit in what was looked at.
    """

    last: int
    end: int
    commit_at: datetime | None = None


@dataclass(frozen=True)
class Stop:
    """Where recovery stops: before the first record at or after `lsn`, or before the first commit
    later than `time`; neither: at the end of the WAL that it is given."""

    lsn: int | None = None
    time: datetime | None = None


def segment_name(segment: Segment) -> str:
    """PostgreSQL's file name: (1, 259) is "000000010000000100000003"."""
    timeline, number = segment
    per_file = 0x1_0000_0000 // SEGMENT_BYTES
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


def parse_segment(name: str) -> tuple[Segment, bool] | None:
    """The segment that a file name means, and whether it is whole; None for another name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    per_file = 0x1_0000_0000 // SEGMENT_BYTES
    number = int(found[2], 16) * per_file + int(found[3], 16)
    return (int(found[1], 16), number), found[4] is None


def parse_history_name(name: str) -> int | None:
    """The timeline whose history file is called that."""
    found = _HISTORY.fullmatch(name)
    return int(found[1], 16) if found else None


# Chains.


def chain_of(backups: Iterable[Backup], id: str) -> tuple[Backup, ...]:
    """The full backup that `id` builds on, then each incremental one, up to `id` itself.

    Raises `NotFound` for an unknown id and `OperationFailed` when a link of it is missing.
    """
    by_id = {each.id: each for each in backups}
    if id not in by_id:
        raise NotFound(f"No backup is called {id}.", hint="regionctl backup list")
    links = [by_id[id]]
    while (parent := links[0].parent) is not None:
        if parent not in by_id or len(links) > len(by_id):
            raise OperationFailed(
                f"{id} builds on {parent}, which is not there.",
                hint="regionctl backup create --kind full",
            )
        links.insert(0, by_id[parent])
    return tuple(links)


def whole(backups: Sequence[Backup]) -> tuple[Backup, ...]:
    """Those of which every link is there."""
    by_id = {each.id: each for each in backups}
    good: dict[str, bool] = {}

    def is_whole(backup: Backup) -> bool:
        if backup.id not in good:
            good[backup.id] = False  # a circle is not whole
            parent = by_id.get(backup.parent) if backup.parent else None
            good[backup.id] = backup.parent is None or (parent is not None and is_whole(parent))
        return good[backup.id]

    return tuple(each for each in backups if is_whole(each))


def doomed(backups: Sequence[Backup], keep_full: int) -> tuple[str, ...]:
    """Ids of chains beyond the newest `keep_full` of each database; children before parents.

    The newest `keep_full` are counted among chains; what has lost a link of its chain goes as well.
    """
    keep_full = max(1, keep_full)
    good = whole(backups)
    roots: dict[str, list[Backup]] = {}
    for each in sorted(good, key=lambda backup: backup.began_at):
        if each.parent is None:
            roots.setdefault(each.database, []).append(each)
    kept = {root.id for of_one in roots.values() for root in of_one[-keep_full:]}
    gone = [
        each for each in backups if each not in good or chain_of(backups, each.id)[0].id not in kept
    ]
    depth = {each.id: _depth(backups, each) for each in gone}
    return tuple(each.id for each in sorted(gone, key=lambda each: (-depth[each.id], each.id)))


def _depth(backups: Sequence[Backup], backup: Backup) -> int:
    by_id = {each.id: each for each in backups}
    depth, parent = 0, backup.parent
    while parent in by_id and depth <= len(by_id):
        depth, parent = depth + 1, by_id[parent].parent
    return depth


def spare(segments: Iterable[Segment], kept: Sequence[Backup]) -> frozenset[Segment]:
    """WAL that no backup in `kept` (of the same database) can need. Without backups: none.

    A backup needs its own timeline from its start on, and any later timeline from there on; one
    that is being written starts after all of these.
    """
    if not kept:
        return frozenset()
    first = [(each.timeline, each.start // SEGMENT_BYTES) for each in kept]
    return frozenset(
        (timeline, number)
        for timeline, number in segments
        if not any(timeline >= t and number >= n for t, n in first)
    )


# What a target needs.


def newest_timeline(wal: Wal) -> int | None:
    """The newest one of which there is WAL and whose history is known."""
    known = {timeline for timeline, _ in wal.segments | wal.partial}
    return max((t for t in known if t == 1 or t in wal.histories), default=None)


def path(wal: Wal) -> tuple[tuple[int, int, int | None], ...]:
    """(timeline, first LSN, LSN at which it was left or None), oldest first."""
    newest = newest_timeline(wal)
    if newest is None:
        return ()
    steps: list[tuple[int, int, int | None]] = []
    begin = 0
    for timeline, end in wal.histories.get(newest, ()):
        steps.append((timeline, begin, end))
        begin = end
    return (*steps, (newest, begin, None))


def on_path(wal: Wal, backup: Backup) -> bool:
    """Whether the newest timeline is a continuation of what `backup` has."""
    return any(
        timeline == backup.timeline and (end is None or backup.stop <= end)
        for timeline, _, end in path(wal)
    )


def run(wal: Wal, backup: Backup) -> tuple[Segment, ...]:
    """The segments from the start of `backup` on along the path, up to the first one missing.

    Of a segment in which a timeline was left, the newer one has everything. A partial one, or the
    older one of such a segment, is the last.
    """
    steps = [step for step in path(wal) if step[2] is None or step[2] > backup.start]
    found: list[Segment] = []
    number = backup.start // SEGMENT_BYTES
    while True:
        here = [t for t, begin, _ in steps if begin // SEGMENT_BYTES <= number]
        wanted = (here[-1], number) if here else None
        if wanted in wal.segments:
            assert wanted is not None
            found.append(wanted)
            number += 1
            continue
        for timeline in reversed(here):
            if (timeline, number) in wal.segments | wal.partial:
                found.append((timeline, number))
                break
        return tuple(found)


def judge(backup: Backup, extent: Extent, target: Target) -> Stop | None:
    """Where recovery from `backup` must stop for `target`; None when it cannot get there.

    `target.name` must have become an LSN before. A stop is only set where a record follows at
    which recovery can stop; what ends exactly with the WAL is recovered to the end.
    """
    if extent.end < backup.stop:
        return None
    if target.lsn is not None:
        if not backup.stop <= target.lsn <= extent.end:
            return None
        return Stop(lsn=target.lsn) if target.lsn <= extent.last else Stop()
    if target.time is not None:
        if extent.commit_at is None or not backup.ended_at <= target.time <= extent.commit_at:
            return None
        return Stop(time=target.time) if target.time < extent.commit_at else Stop()
    return Stop()


def refuse(
    database: str, target: Target, reach: Sequence[tuple[Backup, Extent]], *, hole: str | None
) -> Refused:
    """The error that says what is possible instead."""
    said = "everything that was archived"
    if target.time is not None:
        said = target.time.isoformat()
    elif target.lsn is not None:
        said = f"LSN {format_lsn(target.lsn)}"
    possible = [
        f"from {backup.ended_at.isoformat(timespec='milliseconds')} "
        f"(LSN {format_lsn(backup.stop)}) to "
        f"{extent.commit_at.isoformat() if extent.commit_at else 'no commit'} "
        f"(LSN {format_lsn(extent.end)})"
        for backup, extent in reach
        if extent.end >= backup.stop
    ]
    why = f" The archive has a hole: {hole}." if hole else ""
    can = f" Possible is {'; '.join(possible)}." if possible else " Nothing is possible yet."
    return Refused(
        f"{database} cannot be restored to {said}.{why}{can}",
        hint="regionctl backup list" if possible else f"regionctl backup create {database}",
        extra={"possible": possible},
    )


def hole_after(wal: Wal, covered: Sequence[Segment]) -> str | None:
    """What is missing behind a run, when the archive goes on later; None when it does not."""
    if not covered:
        return "not one segment of it is there"
    later = [
        each
        for each in wal.segments | wal.partial
        if each[1] > covered[-1][1] and each[0] >= covered[-1][0]
    ]
    if not later:
        return None
    missing = (max(each[0] for each in covered), covered[-1][1] + 1)
    return f"{segment_name(missing)} is missing"
