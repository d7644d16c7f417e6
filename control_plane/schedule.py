"""When which backup is due, without a clock or a socket.

A database gets its first full backup a minute after the platform is up, full and incremental ones
at the topology's intervals, an incremental one when slots were moved, without which it could not be
restored in place, and a full one at once when its archive has a hole. One backup runs at a time, so
that a quiet machine stays quiet; none begins during a drill, whose measurements it would disturb.
Only a hole waits for neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.decisions import Intent
from control_plane.operations import PLATFORM
from control_plane.plans.backup import ALL
from infra.backups import Archive, Backup
from infra.topology_policies import BackupPolicy

FIRST_FULL_SECONDS = 60.0
PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
GAP_PAUSE_SECONDS = 600.0
WATCHED = ("backup", "prune", "drill")


@dataclass(frozen=True)
class Attempt:
    """An operation of one of `WATCHED`. `target` is a database or "all" (of a backup).

    `ended_at` is None while it runs or waits to.
    """

    verb: str
    target: str
    ended_at: datetime | None
    succeeded: bool = False

    def about(self, database: str) -> bool:
        return self.verb == "backup" and self.target in (database, ALL)


def backups_due(
    policy: BackupPolicy,
    backups: Sequence[Backup],
    archives: Iterable[Archive],
    now: datetime,
    up_since: datetime,
    attempts: Sequence[Attempt],
    moved_at: datetime | None = None,
) -> list[Intent]:
    """The backups and the pruning that should begin now; `attempts` newest first.

    `moved_at` is when slots changed hands for the last time, None also while they still may.
    A database whose archive does not run gets none: without WAL a backup restores nothing.
    """
    running = [each for each in attempts if each.ended_at is None]
    gaps: list[Intent] = []
    rest: list[Intent] = []
    for archive in archives:
        if not archive.running or any(each.about(archive.database) for each in running):
            continue
        mine = [each for each in backups if each.database == archive.database]
        tried = [each for each in attempts if each.about(archive.database)]
        if archive.gap is not None:
            if _rested(tried, now, GAP_PAUSE_SECONDS):
                because = f"its archive has a gap: {archive.gap}"
                gaps.append(_backup(archive.database, "full", because))
        elif (kind := _kind_due(policy, mine, now, up_since, moved_at)) and _rested(tried, now):
            rest.append(_backup(archive.database, kind, _why(kind, mine)))
    if running or gaps:
        return gaps
    return rest[:1] or _prune(policy, backups, now, attempts)


def _kind_due(
    policy: BackupPolicy,
    backups: Sequence[Backup],
    now: datetime,
    up_since: datetime,
    moved_at: datetime | None,
) -> str | None:
    """Ages are counted from when a backup began: what it surely has is of that moment."""
    full = max((each.began_at for each in backups if each.kind == "full"), default=None)
    newest = max((each.began_at for each in backups), default=None)
    if full is None:
        return "full" if now >= up_since + timedelta(seconds=FIRST_FULL_SECONDS) else None
    if now >= full + timedelta(seconds=policy.full_every_seconds):
        return "full"
    if newest and now >= newest + timedelta(seconds=policy.incremental_every_seconds):
        return "incremental"
    if newest and moved_at and newest <= moved_at:
        return "incremental"
    return None


def _rested(tried: Sequence[Attempt], now: datetime, after_success: float = PAUSE_SECONDS) -> bool:
    """Whether the pause since the newest attempt is over; it doubles with each failure in a row."""
    ended = [(each.ended_at, each.succeeded) for each in tried if each.ended_at is not None]
    if not ended:
        return True
    failures = next((n for n, (_, succeeded) in enumerate(ended) if succeeded), len(ended))
    pause = PAUSE_SECONDS * 2.0 ** min(failures - 1, 10) if failures else after_success
    return now >= ended[0][0] + timedelta(seconds=min(pause, LONGEST_PAUSE_SECONDS))


def _backup(database: str, kind: str, because: str) -> Intent:
    return Intent("backup", database, {"database": database, "kind": kind}, because)


def _why(kind: str, backups: Sequence[Backup]) -> str:
    return f"the next {kind} backup is due" if backups else "it has no backup yet"


def _prune(
    policy: BackupPolicy, backups: Iterable[Backup], now: datetime, attempts: Sequence[Attempt]
) -> list[Intent]:
    fulls = Counter(each.database for each in backups if each.kind == "full")
    over = [name for name, count in fulls.items() if count > policy.keep_full]
    tried = [each for each in attempts if each.verb == "prune"]
    if not over or not _rested(tried, now, GAP_PAUSE_SECONDS):
        return []
    because = f"{over[0]} has more than {policy.keep_full} full backups"
    return [Intent("prune", PLATFORM, {}, because)]
