"""A client that writes at fixed times, whatever the servers do, and journals what it was told.

Open loop: attempt n starts at n x 20 ms even when earlier ones still wait, so an outage is seen by
as many attempts as it lasted, not by the one that happened to be in flight. Each attempt tries all
nodes and takes the one that accepts writes, as libpq's target_session_attrs=read-write does.
Times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import asyncpg
from asyncpg.connect_utils import SessionAttribute

INTERVAL_SECONDS = 0.020
CONNECT_SECONDS = 2
REFUSALS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)
IN_FLIGHT_LIMIT = 64
TABLE = "bench_writes"


@dataclass(frozen=True)
class Login:
    user: str
    password: str
    database: str


@dataclass(frozen=True)
class Ack:
    id: int
    started: float
    acknowledged: float


@dataclass
class OpenLoopWriter:
    """Inserts one row an attempt. `acks` has every row that a server said is committed."""

    ports: list[int]
    login: Login
    acks: list[Ack] = field(default_factory=list)
    attempted: int = 0
    _idle: list[asyncpg.Connection] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    async def first_ack_of_attempts_after(self, moment: float, deadline_seconds: float) -> Ack:
        """The earliest acknowledgement of an attempt that started after `moment`."""
        until = time.monotonic() + deadline_seconds
        while time.monotonic() < until:
            later = [ack for ack in self.acks[-500:] if ack.started > moment]
            if later:
                return min(later, key=lambda ack: ack.acknowledged)
            await asyncio.sleep(0.01)
        raise TimeoutError(f"no write was acknowledged within {deadline_seconds:.0f} s")

    async def _tick(self) -> None:
        began = time.monotonic()
        for number in range(10**9):
            await asyncio.sleep(max(0.0, began + number * INTERVAL_SECONDS - time.monotonic()))
            if len(self._running) < IN_FLIGHT_LIMIT:
                self.attempted += 1
                task = asyncio.create_task(self._attempt(self.attempted))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _attempt(self, id: int) -> None:
        started = time.monotonic()
        connection: asyncpg.Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else await connect(self.ports, self.login)
            await connection.execute(f"insert into {TABLE} (id) values ($1)", id)
        except REFUSALS:
            if connection is not None:
                connection.terminate()
            return
        except asyncio.CancelledError:
            if connection is not None:
                connection.terminate()
            raise
        self.acks.append(Ack(id, started, time.monotonic()))
        self._idle.append(connection)


async def connect(ports: list[int], login: Login) -> asyncpg.Connection:
    """A connection to the node that accepts writes. Raises when there is none."""
    return await asyncpg.connect(
        host=["127.0.0.1"] * len(ports),
        port=ports,
        user=login.user,
        password=login.password,
        database=login.database,
        target_session_attrs=SessionAttribute.read_write,
        timeout=CONNECT_SECONDS,
        ssl=False,
    )


async def read_back(ports: list[int], login: Login) -> set[int]:
    """The ids that the present primary has."""
    connection = await connect(ports, login)
    try:
        return {row["id"] for row in await connection.fetch(f"select id from {TABLE}")}
    finally:
        await connection.close()
