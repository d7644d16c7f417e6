"""A restored data directory becomes a server of its own: recovery, proof, checksums, start.

It can never reach a real server: it has no upstream and no archive, waits for no standby, runs no
subscription, and lets in the superuser alone, on a port of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from infra.local import faults, postgres
from infra.local import layout as files
from infra.local.backups.chain import Extent, Stop
from infra.local.backups.parts import Parts, run
from infra.local.cluster import CLOCK
from infra.local.monitor import LOST
from infra.local.ports import HOST
from infra.local.supervisor import tail
from infra.lsn import format_lsn, parse_history
from runtime.clock import wait_until
from runtime.errors import OperationFailed

RECOVERY_SECONDS = 6 * 3600.0
START_SECONDS = 120.0
STOP_SECONDS = 300.0
# How the server flushes the directory before recovery: all of it at once, where that can be done.
FLUSH = "syncfs" if sys.platform == "linux" else "fsync"
_HBA = f"host all {postgres.SUPERUSER} {HOST}/32 scram-sha-256\n"
# Whether replay is paused can only be asked while there is any.
_PRESENT = """\
SELECT pg_is_in_recovery() AS recovering, pg_last_xact_replay_timestamp() AS newest,
       CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END AS pause
"""


@dataclass(frozen=True)
class Copy:
    """A restored data directory: `name` is the instance id that its processes carry."""

    name: str
    pgdata: Path
    port: int

    @property
    def log(self) -> Path:
        return self.pgdata.parent / "postgres.log"


@dataclass(frozen=True)
class Recovered:
    """`lsn` is where replay ended, `at` the time of the last commit replayed."""

    lsn: int
    at: datetime | None
    timeline: int


def configure(parts: Parts, copy: Copy, recovery: str = "") -> None:
    """What holds for the copy also when somebody starts it by hand.

    It summarizes no WAL: a summarizer that misses a segment, which recovery has renamed, waits ten
    seconds before it looks again, and a shutdown waits for it.
    """
    user, folder = parts.site.user, copy.pgdata
    settings = f"""\
# A restored copy, apart from the platform. Written by regionctl.
port = {copy.port}
cluster_name = '{copy.name}'
synchronous_standby_names = ''
primary_conninfo = ''
primary_slot_name = ''
archive_mode = off
archive_command = ''
archive_library = ''
restore_command = ''
max_logical_replication_workers = 0
summarize_wal = off
default_transaction_read_only = on
{recovery}"""
    files.replace_file(folder / "postgresql.conf", postgres.common(parts.site.topology), owner=user)
    files.replace_file(folder / "regionctl.conf", settings, owner=user)
    files.replace_file(folder / "postgresql.auto.conf", "", owner=user)
    files.replace_file(folder / "pg_hba.conf", _HBA, owner=user)
    for name in ("standby.signal", "recovery.signal", "pgpass", "backup_manifest"):
        (folder / name).unlink(missing_ok=True)
    if recovery:
        files.replace_file(folder / "recovery.signal", "", owner=user)


def recovery_settings(wal: Path, timeline: int, stop: Stop) -> str:
    """Recovery along `timeline` to `stop`, from the segments that lie in `wal`.

    It pauses at the stop, where it is looked at; a stop that is not reached ends the server.
    """
    command = f"cp {shlex.quote(str(wal).replace('%', '%%'))}/%f %p"
    command = command.replace("\\", "\\\\").replace("'", "''")
    lines = [
        f"restore_command = '{command}'",
        f"recovery_init_sync_method = {FLUSH}",
        f"recovery_target_timeline = '{timeline}'",
        "recovery_target_action = pause",
    ]
    if stop.lsn is not None:
        lines += [f"recovery_target_lsn = '{format_lsn(stop.lsn)}'"]
        lines += ["recovery_target_inclusive = off"]
    elif stop.time is not None:
        lines += [f"recovery_target_time = '{stop.time.isoformat()}'"]
    return "\n".join(lines) + "\n"


async def recover(
    parts: Parts, copy: Copy, wal: Path, timeline: int, stop: Stop, extent: Extent
) -> Recovered:
    """Replays to `stop`, proves that it got there and not less far, and is a primary then.

    It was stopped cleanly when this returns. Raises `OperationFailed`.
    """
    configure(parts, copy, recovery_settings(wal, timeline, stop))
    await start(parts, copy)
    try:
        reached = await _await_end(parts, copy, stop)
        if stop == Stop() and reached.lsn <= extent.last:
            raise OperationFailed(
                f"Recovery ended at {format_lsn(reached.lsn)}, though the archive goes on to "
                f"{format_lsn(extent.end)}: WAL between them is damaged.",
                extra=evidence(copy),
            )
        await _loosen(parts, copy)
    finally:
        await halt(copy)
    return reached


async def _await_end(parts: Parts, copy: Copy, stop: Stop) -> Recovered:
    """At its stop, or at the end of the WAL, and promoted there."""
    found: Any = None

    async def ended() -> bool:
        nonlocal found
        try:
            connection = await connect(parts, copy)
        except LOST as error:
            require_alive(copy, error)
            return False
        try:
            found = await connection.fetchrow(_PRESENT)
            if found["recovering"] and found["pause"] == "paused":
                if stop == Stop():
                    raise OperationFailed(
                        "Recovery paused: the restored server's limits are lower than those of "
                        "the original.",
                        extra=evidence(copy),
                    )
                await connection.execute("SELECT pg_wal_replay_resume()")
                return True
            return not found["recovering"]
        except LOST as error:
            require_alive(copy, error)
            return False
        finally:
            connection.terminate()

    what = f"{copy.name} to recover"
    await wait_until(CLOCK, ended, what=what, seconds=RECOVERY_SECONDS, every=0.02)

    async def promoted() -> int | None:
        connection = await connect(parts, copy)
        try:
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                return None
            name = await connection.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn())")
            return int(name[:8], 16)
        finally:
            connection.terminate()

    timeline = await wait_until(CLOCK, promoted, what=what, seconds=60, every=0.02)
    return Recovered(_left(copy, timeline), found["newest"], timeline)


def _left(copy: Copy, timeline: int) -> int:
    """Where the new timeline began: what was replayed ends there."""
    history = copy.pgdata / "pg_wal" / f"{timeline:08X}.history"
    return parse_history(history.read_text(encoding="utf-8"))[-1][1]


async def _loosen(parts: Parts, copy: Copy) -> None:
    """What the original had to do with other servers is gone: subscriptions and slots."""
    connection = await connect(parts, copy)
    try:
        await connection.execute("SET default_transaction_read_only = off")
        for row in await connection.fetch(
            "SELECT quote_ident(subname) AS name FROM pg_subscription s "
            "JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()"
        ):
            await connection.execute(f"ALTER SUBSCRIPTION {row['name']} DISABLE")
            await connection.execute(f"ALTER SUBSCRIPTION {row['name']} SET (slot_name = NONE)")
            await connection.execute(f"DROP SUBSCRIPTION {row['name']}")
        await connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
        )
    finally:
        connection.terminate()


async def connect(parts: Parts, copy: Copy) -> Any:
    return await asyncpg.connect(
        host=HOST,
        port=copy.port,
        user=postgres.SUPERUSER,
        password=parts.site.secrets.superuser,
        database=postgres.DATABASE,
        timeout=5,
        ssl=False,
        command_timeout=120,
    )


async def start(parts: Parts, copy: Copy) -> None:
    """Running, and answering as soon as it can. It outlives whoever started it."""
    postgres.clear_lock(copy.pgdata)
    with contextlib.suppress(OperationFailed):  # what came of it is looked at by `connect`
        await run(
            parts,
            "pg_ctl",
            *("start", "-D", str(copy.pgdata), "-l", str(copy.log), "-w", "-s"),
            *("-t", f"{RECOVERY_SECONDS:.0f}"),
            seconds=RECOVERY_SECONDS,
            name=copy.name,
        )


async def serve(parts: Parts, copy: Copy) -> None:
    """Runs, read-only, and answers; also when it was ended since it was made."""
    if running(copy) is None:
        configure(parts, copy)
        await start(parts, copy)

    async def answers() -> bool:
        try:
            (await connect(parts, copy)).terminate()
        except LOST as error:
            require_alive(copy, error)
            return False
        return True

    await wait_until(CLOCK, answers, what=f"{copy.name} to answer", seconds=START_SECONDS)


async def halt(copy: Copy) -> None:
    """Stopped cleanly, when it runs. Raises `TimedOut`."""
    pid = running(copy)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        os.kill(pid, signal.SIGINT)  # a fast shutdown

    async def ended() -> bool:
        return running(copy) is None

    await wait_until(CLOCK, ended, what=f"{copy.name} to stop", seconds=STOP_SECONDS, every=0.01)


def kill(copy: Copy) -> None:
    """No server runs in the directory, which is about to be removed."""
    pid = running(copy)
    if pid is not None:
        faults.kill_tree([pid])


def running(copy: Copy) -> int | None:
    """The pid of the server that runs in this directory."""
    try:
        text = (copy.pgdata / "postmaster.pid").read_text(encoding="ascii")
        pid = int(text.split("\n", 1)[0])
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return pid if Path(process.cwd()) == copy.pgdata.resolve() else None
    except (OSError, ValueError, psutil.Error):
        return None


async def check_pages(parts: Parts, copy: Copy) -> None:
    """Every page has its checksum. Raises `OperationFailed`, naming the files."""
    try:
        check = ("pg_checksums", "--check", "-D", str(copy.pgdata))
        await run(parts, *check, seconds=RECOVERY_SECONDS)
    except OperationFailed as error:
        raise OperationFailed(
            "Pages of the restored server are damaged: the backup cannot be trusted.",
            hint="Use another backup: regionctl backup list; then take a full one.",
            extra=error.extra,
        ) from error


def require_alive(copy: Copy, error: BaseException) -> None:
    """Raises `OperationFailed`, with the end of its log, when the server has ended."""
    if running(copy) is not None:
        return
    lines = [line for line in tail(copy.log, 30) if re.search("FATAL|PANIC|ERROR|HINT", line)]
    raise OperationFailed(
        f"The restored server ended: {lines[0].partition('FATAL:')[2].strip() if lines else error}",
        hint="Another backup or an earlier target may do: regionctl backup list.",
        extra=evidence(copy),
    )


def evidence(copy: Copy) -> dict[str, object]:
    return {"instance": copy.name, "log": str(copy.log), "lines": tail(copy.log, 8)}
