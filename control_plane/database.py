"""The control plane's database: one transaction a change, committed at the edge of `write`.

All writers take turns: inside the process by a lock, between processes by the database's own
(`BEGIN IMMEDIATE` in SQLite, the schema row in PostgreSQL). What a write transaction read is
therefore still true when it commits, so compare-and-set needs no retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine, event, select
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from control_plane.records import SCHEMA_VERSION, metadata, schema
from runtime.errors import Refused

SCHEMA_ROW = "control-plane"
# Version 2 has more tables than version 1 and is otherwise the same.
GROWN_FROM = 1
T = TypeVar("T")


class Database:
    """`quick` opens the same file without a thread for each connection."""

    def __init__(self, engine: AsyncEngine, quick: Engine | None = None) -> None:
        self.engine = engine
        self._writing = engine.execution_options(writing=True)
        self._quick = None if quick is None else quick.execution_options(writing=True)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One snapshot: everything read inside belongs to the same moment (SQLite)."""
        async with self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, durable on disk when the block has ended without an error."""
        async with self._turn, self._writing.begin() as connection:
            if self.engine.dialect.name != "sqlite":
                await connection.execute(select(schema.c.version).with_for_update())
            yield connection

    async def write_at_once(self, work: Callable[[Connection], T]) -> T:
        """`write`, for what writers of users' data wait for: `work` runs without interruption.

        A statement of `write` goes to SQLite's thread and back three or four times, each time
        behind whatever else this process does.
        """
        if self._quick is None:
            async with self.write() as connection:
                return await connection.run_sync(work)
        async with self._turn:
            return await asyncio.to_thread(_in_one_go, self._quick, work)

    async def prepare(self) -> None:
        """Makes the tables that are missing. Raises `Refused` when another version of the program
        made the others."""
        async with self._turn, self._writing.begin() as connection:
            await connection.run_sync(metadata.create_all)
            version = await connection.scalar(select(schema.c.version))
            if version is None:
                row = schema.insert().values(name=SCHEMA_ROW, version=SCHEMA_VERSION)
                await connection.execute(row)
            elif version == GROWN_FROM:
                await connection.execute(schema.update().values(version=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise Refused(
                    f"The control plane's database has schema version {version}; this program "
                    f"needs {SCHEMA_VERSION}.",
                    hint="Use the regionctl version that made it, or another --state-dir.",
                )

    async def close(self) -> None:
        await self.engine.dispose()
        if self._quick is not None:
            self._quick.dispose()


def _in_one_go(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def connect(url: str, *, durable: bool = True) -> Database:
    """The database at `url` (sqlite+aiosqlite or postgresql+asyncpg).

    `durable=False` skips fsync in SQLite: for tests only, it loses commits at a power cut.
    """
    engine = create_async_engine(url)
    if engine.dialect.name != "sqlite":
        return Database(engine)
    synchronous = "FULL" if durable else "OFF"
    _keep_private(engine.url.database)
    _tune_sqlite(engine.sync_engine, synchronous)
    file = make_url(url).set(drivername="sqlite")
    if file.database in (None, ":memory:"):
        return Database(engine)
    quick = create_engine(file)
    _tune_sqlite(quick, synchronous)
    return Database(engine, quick)


def _keep_private(file: str | None) -> None:
    """Nobody else reads the records; SQLite gives its other files the mode of the first."""
    if file and file != ":memory:":
        path = Path(file)
        path.touch(mode=0o600)
        path.chmod(0o600)


def _tune_sqlite(engine: Engine, synchronous: str) -> None:
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not by the driver's guess
        cursor = connection.cursor()
        for pragma in (
            "busy_timeout = 5000",
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    def undo(connection: Any, _record: Any, _exception: Any) -> None:
        # A writer was cancelled. Closing alone leaves the transaction open, and the file locked,
        # for as long as a cursor of it exists, and the exception's traceback holds one
        # (sqlite.org/c3ref/close.html: "zombie").
        connection.rollback()

    event.listen(engine, "connect", configure)
    event.listen(engine, "invalidate", undo)
    event.listen(engine, "begin", begin)
