"""One connection to a Valkey server that many requests share.

Commands of one turn of the event loop are written together and answered in order, so 64 requests
cost one system call each way instead of 64. hiredis packs and parses; there is no lock, task or
timer a command. Meant for quick commands: one that blocks would hold up all others.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

from hiredis import Reader, ReplyError, pack_command

Argument = str | bytes | int | float
_NOTHING = object()
# A late answer may lie in the socket while this process was not scheduled: one more look.
GRACE_SECONDS = 0.002


class ServerError(Exception):
    """The server's own words about a command: it lives, and was asked something wrong."""


def _packed(command: tuple[Argument, ...]) -> bytes:
    # Its annotation says "a tuple of one".
    packed: bytes = pack_command(command)  # type: ignore[arg-type]
    return packed


class Valkey:
    """Connects when it is first used, and again after the connection was lost.

    `timeout` in seconds holds for connecting and for every answer. One answer too late loses the
    connection: everything that is under way fails with `OSError` or `TimeoutError`.
    With `trust` the server is asked by TLS.
    """

    def __init__(
        self,
        address: tuple[str, int],
        password: str,
        timeout: float,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._trust = trust
        self._password = password
        self._timeout = timeout
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._scheduled = False

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """The answer to `command`. Raises `ServerError`, `OSError` or `TimeoutError`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((_packed(command), answer))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        return answer

    async def close(self) -> None:
        if self._connecting:
            self._connecting.cancel()
        if self._wire:
            self._wire.lose(ConnectionAbortedError("closed"))
            self._wire = None

    def _flush(self) -> None:
        self._scheduled = False
        if self._wire and self._wire.alive:
            waiting, self._waiting = self._waiting, []
            self._wire.send(waiting)
        elif self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                loop = asyncio.get_running_loop()
                _, wire = await loop.create_connection(
                    lambda: _Wire(self._timeout), *self._address, ssl=self._trust
                )
                if self._password:
                    greeting: asyncio.Future[Any] = loop.create_future()
                    wire.send([(_packed(("AUTH", self._password)), greeting)])
                    await greeting
            self._wire = wire
            self._flush()
        except (OSError, TimeoutError, ServerError) as error:
            waiting, self._waiting = self._waiting, []
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(ConnectionError(repr(error)))


class _Wire(asyncio.Protocol):
    """The socket: what was asked and not yet answered, in order, with the time it was asked."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._parser = Reader(notEnoughData=_NOTHING)
        self._asked: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.alive = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.alive = True

    def send(self, commands: list[tuple[bytes, asyncio.Future[Any]]]) -> None:
        if not self.alive or self._transport is None:
            for _, answer in commands:
                if not answer.done():
                    answer.set_exception(ConnectionAbortedError("the connection was lost"))
            return
        now = self._loop.time()
        self._asked.extend((answer, now) for _, answer in commands)
        self._transport.write(b"".join([packed for packed, _ in commands]))
        if self._watch is None:
            self._watch = self._loop.call_at(now + self._timeout, self._look)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not _NOTHING:
            if not self._asked:
                self.lose(ConnectionAbortedError("an answer to nothing"))
                return
            answer, _ = self._asked.popleft()
            if answer.done():
                continue
            if isinstance(reply, ReplyError):
                answer.set_exception(ServerError(str(reply)))
            else:
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc or ConnectionResetError("the server closed the connection"))

    def lose(self, error: Exception) -> None:
        """Everything that is under way fails with `error`."""
        self.alive = False
        if self._watch:
            self._watch.cancel()
            self._watch = None
        if self._transport:
            self._transport.abort()
        asked, self._asked = self._asked, deque()
        for answer, _ in asked:
            if not answer.done():
                answer.set_exception(error)

    def _look(self) -> None:
        """One timer for all: looks at the oldest question."""
        self._watch = None
        if not self._asked:
            return
        oldest, at = self._asked[0]
        due = at + self._timeout
        if self._loop.time() < due:
            self._watch = self._loop.call_at(due, self._look)
        else:
            self._watch = self._loop.call_later(GRACE_SECONDS, self._judge, oldest)

    def _judge(self, oldest: asyncio.Future[Any]) -> None:
        self._watch = None
        if self._asked and self._asked[0][0] is oldest:
            self.lose(TimeoutError("no answer"))
        else:
            self._look()
