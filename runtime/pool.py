"""Connections to one PostgreSQL server: a few, kept open, cut at once when told.

asyncpg's own pool sends a reset query after each use, forgets log listeners, and cannot abort a
connection that is still being made. This one does none of that; nothing here sets session state,
so there is nothing to reset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from runtime.telemetry import CONNECTION_LIMIT, CONNECTIONS

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]
else:
    Driver = asyncpg.Connection


class Connection(Driver):
    """A connection that remembers whether its last commit was not confirmed by the standby.

    A cancelled wait for synchronous replication reports success with a warning; such a commit
    must not be acknowledged.
    """

    unreplicated = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Slot → epoch that the server's fence was seen to have, and when (monotonic).
        self.owned: dict[int, int] = {}
        self.owned_at: float | None = None

    @staticmethod
    def watch(connection: Any, message: Any) -> None:
        if "wait for synchronous replication" in str(message):
            connection.unreplicated = True


REST_SECONDS = 0.05


class DialFailed(ConnectionError):
    """The server was dialled a moment ago, in vain."""


class PoolClosed(ConnectionError):
    """The server of this pool is no longer the one to use."""


class Pool:
    """At most `size` connections, the last used first."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self.name = name
        self.closed = False
        self._connect = connect
        self._size = size
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._dials: set[asyncio.Task[Connection]] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._failed_at = float("-inf")
        CONNECTION_LIMIT.labels(name).set(size)

    async def acquire(self) -> Connection:
        """A connection that was open a moment ago. Raises `PoolClosed`, or what dialling raised.

        A server that is away is not dialled by everybody who waits for it: who comes within
        `REST_SECONDS` of a failure gets `DialFailed`.
        """
        while not self.closed:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._all.discard(connection)
            if len(self._all) + len(self._dials) < self._size:
                if asyncio.get_running_loop().time() < self._failed_at + REST_SECONDS:
                    raise DialFailed(self.name)
                return await self._dial()
            await self._wait()
        raise PoolClosed(self.name)

    def release(self, connection: Connection) -> None:
        if self.closed or connection.is_closed() or connection.is_in_transaction():
            self._all.discard(connection)
            connection.terminate()
        else:
            self._idle.append(connection)
        self._wake()

    def terminate(self) -> None:
        """Cuts everything now: whoever uses or waits for a connection gets an error."""
        self.closed = True
        for connection in self._all:
            connection.terminate()
        for task in self._dials:
            task.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._all.clear()
        self._idle.clear()
        self._waiters.clear()
        # What is said of a pool that is no more would be said for ever.
        CONNECTION_LIMIT.remove_by_labels({"server": self.name})
        CONNECTIONS.remove_by_labels({"server": self.name})

    def report(self) -> None:
        """Sets the gauges."""
        CONNECTIONS.labels(self.name, "idle").set(len(self._idle))
        CONNECTIONS.labels(self.name, "used").set(len(self._all) - len(self._idle))

    async def _dial(self) -> Connection:
        task = asyncio.ensure_future(self._connect())
        self._dials.add(task)
        try:
            connection = await task
        except asyncio.CancelledError:
            task.cancel()
            if self.closed:
                raise PoolClosed(self.name) from None
            raise
        except Exception:
            self._failed_at = asyncio.get_running_loop().time()
            raise
        finally:
            self._dials.discard(task)
            self._wake()
        if self.closed:
            connection.terminate()
            raise PoolClosed(self.name)
        self._all.add(connection)
        return connection

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
