"""One pg_receivewal: from which server, from where on, and how far it has come.

It is asked to flush what it receives at once. It ends by itself when its server goes; whoever runs
it begins anew, then perhaps at another server. What an earlier archiver left running is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from infra.local.backups import spool
from infra.local.backups.spool import SEGMENT, Begin, Mark, Server
from runtime.errors import OperationFailed, Unavailable

HOST = "127.0.0.1"
ROLE = "replicator"
CONNECT_SECONDS = 3
ASIDE = "aside"
LOST = (
    *(OSError, TimeoutError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
)
_PAGE = 8192
# Of a page: magic, flags, timeline, its own address, how much of the former page's last record
# follows. Of a record, which begins at a multiple of 8: its length.
_PAGE_HEADER = struct.Struct("<HHIQI")
_LENGTH = struct.Struct("<I")
_CONTINUED, _LONG_HEADER = 1, 2
_SERVER = """
SELECT pg_is_in_recovery() AS standby,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       CASE WHEN pg_is_in_recovery() THEN 0
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END AS timeline
"""
_SLOT = """
SELECT restart_lsn - '0/0'::pg_lsn AS kept, wal_status, active_pid
FROM pg_replication_slots WHERE slot_name = $1
"""
_FREE = """
SELECT pg_terminate_backend(active_pid, 2000)
FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL
"""
_DROP = """
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1
"""
_WRITTEN = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"


def slot_name(region: str) -> str:
    return f"archive_{re.sub('[^a-z0-9]', '_', region)}"


@dataclass(frozen=True)
class Tools:
    """`bin` has PostgreSQL's programs, `passfile` the password of the role for replication."""

    bin: Path
    passfile: Path
    slot: str

    def conninfo(self, port: int, database: str) -> str:
        return (
            f"host={HOST} port={port} user={ROLE} dbname={database} application_name={self.slot} "
            f"passfile={self.passfile} connect_timeout={CONNECT_SECONDS} keepalives_idle=5 "
            "keepalives_interval=2 keepalives_count=3 tcp_user_timeout=6000"
        )

    async def connect(self, port: int) -> Any:
        """Raises one of `LOST`."""
        return await asyncpg.connect(
            host=HOST,
            port=port,
            user=ROLE,
            passfile=str(self.passfile),
            database="postgres",
            timeout=CONNECT_SECONDS,
            command_timeout=CONNECT_SECONDS,
            ssl=False,
            server_settings={"application_name": self.slot},
        )

    async def written(self, connection: Any) -> int:
        """Up to where the server has flushed its WAL."""
        return int(await connection.fetchval(_WRITTEN))

    async def drop_slot(self, port: int) -> None:
        """The server at `port` keeps no WAL for us. Raises one of `LOST`."""
        connection = await self.connect(port)
        try:
            await self._drop(connection)
        finally:
            connection.terminate()

    async def server(self, port: int, *, anew: bool = False) -> Server:
        """What the primary there says; our slot exists afterwards and is free, with `anew` one
        that begins now: one that asked for WAL that is gone stands there for ever.

        Raises `Unavailable` when it does not answer or is no primary.
        """
        try:
            connection = await self.connect(port)
            try:
                row = await connection.fetchrow(_SERVER)
                if row["standby"]:
                    raise Unavailable(f"The server on port {port} is not a primary yet.")
                kept = await self._slot(connection, anew)
                written = await self.written(connection)
            finally:
                connection.terminate()
        except LOST as error:
            raise Unavailable(f"The server on port {port}: {error or 'silence'}.") from error
        history = await self._history(port, row["timeline"]) if row["timeline"] > 1 else ()
        return Server(row["system"], row["timeline"], history, written, kept)

    async def _slot(self, connection: Any, anew: bool) -> int:
        row = await connection.fetchrow(_SLOT, self.slot)
        if row is not None and (anew or row["wal_status"] == "lost" or row["kept"] is None):
            await self._drop(connection)
            row = None
        if row is None:
            make = "SELECT pg_create_physical_replication_slot($1, true)"
            await connection.fetchrow(make, self.slot)
            row = await connection.fetchrow(_SLOT, self.slot)
        await self._free_slot(connection)
        return int(row["kept"])

    async def _free_slot(self, connection: Any) -> None:
        """Nobody streams by our slot: a receiver that outlived its archiver is sent away."""
        await connection.fetch(_FREE, self.slot)

    async def _drop(self, connection: Any) -> None:
        await self._free_slot(connection)
        await connection.fetch(_DROP, self.slot)

    async def _history(self, port: int, timeline: int) -> tuple[tuple[int, int], ...]:
        """(timeline, where it ended) of the earlier timelines, by the replication protocol."""
        process = await asyncio.create_subprocess_exec(
            *(str(self.bin / "psql"), "-XAtq", "-c", f"TIMELINE_HISTORY {timeline}"),
            self.conninfo(port, "postgres") + " replication=1",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(10):
                output, _ = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise Unavailable(f"The server on port {port} does not answer.") from error
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise Unavailable(f"The server on port {port}: {text.strip()[-200:]}")
        found = re.findall(
            r"^(?:[0-9A-F]{8}\.history\|)?(\d+)\t([0-9A-F]+)/([0-9A-F]+)", text, re.M
        )
        return tuple((int(t), (int(high, 16) << 32) + int(low, 16)) for t, high, low in found)


def listing(folder: Path) -> list[tuple[str, int]]:
    """(name, size) of the files of a folder; none when there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []


class Receiver:
    """pg_receivewal of one database into `folder`."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self._tools = tools
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._place: tuple[str, int] = ("", 0)

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def meet(self, port: int, *, anew: bool) -> Server:
        """As `Tools.server`; nothing of a former archiver receives into the folder any more."""
        self._end_former()
        return await self._tools.server(port, anew=anew)

    def prepare(self, server: Server, mark: Mark | None, *, lost: bool) -> Begin:
        """The folder says where to go on. Raises `OSError` for a full disk."""
        for name in spool.broken(spool.read(listing(self.folder))):
            (self.folder / name).unlink(missing_ok=True)
        begin = spool.begin(spool.read(listing(self.folder)), server, mark, lost=lost)
        if begin.aside:
            (self.folder / ASIDE).mkdir(mode=0o700, exist_ok=True)
        for name in begin.aside:
            (self.folder / name).replace(self.folder / ASIDE / name)
        if begin.seed:
            (self.folder / begin.seed).touch(mode=0o600)
        sync_folder(self.folder)
        return begin

    async def run(self, port: int) -> str:
        """Receives until the server or the program ends. Returns what it complained about."""
        self._process = await asyncio.create_subprocess_exec(
            *(str(self._tools.bin / "pg_receivewal"), "--directory", str(self.folder)),
            *("--slot", self._tools.slot, "--synchronous", "--no-loop", "--no-password"),
            *("--dbname", self._tools.conninfo(port, "postgres")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        self._pid_file.write_text(str(self._process.pid), encoding="ascii")
        try:
            _, complaint = await self._process.communicate()
            return complaint.decode(errors="replace").strip()[-500:]
        finally:
            await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(2):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @property
    def _pid_file(self) -> Path:
        return self.folder / "receiver.pid"

    def _end_former(self) -> None:
        """Ends the receiver that a killed archiver left, if it still is one."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if command[0].endswith(b"pg_receivewal") and str(self.folder).encode() in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def written(self) -> tuple[int, int] | None:
        """(timeline, LSN in bytes) up to which the newest file is filled; None without files.

        Pages are filled in order and each says its own address, so the last one is searched for.
        """
        newest = spool.read(listing(self.folder)).newest
        if newest is None:
            return None
        if newest.whole:
            return newest.place.timeline, newest.place.end
        name, known = self._place
        path = self.folder / newest.name
        try:
            pages = filled_pages(path, newest.place.start, known if name == newest.name else 0)
            filled = filled_bytes(path, pages)
        except FileNotFoundError:
            return newest.place.timeline, newest.place.end  # whole, and renamed, by now
        self._place = (newest.name, max(0, pages - 1))
        return newest.place.timeline, newest.place.start + filled


def filled_pages(path: Path, start: int, known: int = 0) -> int:
    """How many pages from the beginning on have been written; at least `known` have."""
    low, high = known, SEGMENT // _PAGE
    with path.open("rb") as file:
        while low < high:
            middle = (low + high) // 2
            header = os.pread(file.fileno(), _PAGE_HEADER.size, middle * _PAGE)
            told = _PAGE_HEADER.unpack(header)[3] if len(header) == _PAGE_HEADER.size else None
            if told == start + middle * _PAGE and any(header):
                low = middle + 1
            else:
                high = middle
    return low


def filled_bytes(path: Path, pages: int) -> int:
    """Up to where the first `pages` pages are filled: the end of the last record in them, which
    may be a whole page's end when it goes on in the next one."""
    if pages == 0:
        return 0
    with path.open("rb") as file:
        page = os.pread(file.fileno(), _PAGE, (pages - 1) * _PAGE)
    _, info, _, _, remaining = _PAGE_HEADER.unpack_from(page)
    position = 40 if info & _LONG_HEADER else 24
    if info & _CONTINUED:
        position += (remaining + 7) // 8 * 8
    while position + 4 <= len(page):
        (length,) = _LENGTH.unpack_from(page, position)
        if length == 0:
            break
        position += (length + 7) // 8 * 8
    return (pages - 1) * _PAGE + min(position, _PAGE)


def sync_folder(folder: Path) -> None:
    """What was renamed in the folder stays renamed after a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OperationFailed(f"Cannot write to {folder}: {error.strerror}.") from error
    finally:
        os.close(descriptor)
