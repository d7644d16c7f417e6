"""An HTTP/1.1 client for load: little work for each request, so that the servers are measured.

Closed loop: each connection sends its next request when the last was answered; the sum is the
ceiling. Open loop: requests leave at planned times (Poisson) whatever became of earlier ones, and
time counts from the planned moment, so a server that stalls cannot hide it.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

ADDRESSES = 32
# The bytes of the next request.
Source = Callable[[], bytes]


@dataclass
class Outcome:
    """`seconds` of each answered request, in the order of the answers; `statuses` how often each
    status came. A request that was not answered counts under status 0."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    lasted: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers (2xx) a second."""
        return sum(n for status, n in self.statuses.items() if 200 <= status < 300) / self.lasted

    @property
    def bad(self) -> dict[int, int]:
        return {status: n for status, n in self.statuses.items() if not 200 <= status < 300}

    def percentile(self, share: float) -> float:
        """Seconds, by nearest rank."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def record(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status:
            self.seconds.append(seconds)


class Connection(asyncio.Protocol):
    """One request at a time. `body` is of the last answer, `status` 0 when the server hung up."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.closed = False
        self._done: asyncio.Future[int] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    async def ask(self, request: bytes) -> int:
        """The status of the answer; 0 when there was none."""
        if self.closed or self._transport is None:
            return 0
        self._done = asyncio.get_running_loop().create_future()
        self.body = b""
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._finish(0)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        self._finish(status)

    def _finish(self, status: int) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(status)


@dataclass
class Target:
    """A server on the loopback. Connections come from many addresses, as those of many clients
    do: the edge's guard against floods counts by address."""

    host: str
    port: int
    tls: ssl.SSLContext
    connections: int = 0

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self.connections += 1
        made: Any = await loop.create_connection(
            Connection,
            self.host,
            self.port,
            ssl=self.tls,
            server_hostname=self.host,
            local_addr=(f"127.0.0.{2 + self.connections % ADDRESSES}", 0),
        )
        return cast(Connection, made[1])


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def closed(target: Target, source: Source, *, width: int, seconds: float) -> Outcome:
    """`width` connections, each as fast as it is answered, for `seconds`."""
    outcome = Outcome()
    connections = await asyncio.gather(*(target.connect() for _ in range(width)))
    began = time.perf_counter()
    until = began + seconds

    async def run(connection: Connection) -> None:
        while (sent := time.perf_counter()) < until:
            status = await connection.ask(source())
            outcome.record(status, time.perf_counter() - sent)
            if status == 0:
                connection = await target.connect()
        connection.close()

    await asyncio.gather(*(run(connection) for connection in connections))
    outcome.lasted = time.perf_counter() - began
    return outcome


async def opened(target: Target, source: Source, *, rate: float, seconds: float) -> Outcome:
    """Poisson arrivals, `rate` a second, each timed from its planned moment."""
    outcome = Outcome()
    idle = deque(await asyncio.gather(*(target.connect() for _ in range(64))))
    dice = random.Random(1)
    flying: set[asyncio.Task[None]] = set()
    began = time.perf_counter()
    due = began

    async def one(planned: float) -> None:
        connection = idle.pop() if idle else await target.connect()
        status = await connection.ask(source())
        outcome.record(status, time.perf_counter() - planned)
        if status:
            idle.append(connection)

    while due < began + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(one(due))
        flying.add(task)
        task.add_done_callback(flying.discard)
        due += dice.expovariate(rate)
    await asyncio.gather(*flying)
    outcome.lasted = time.perf_counter() - began
    for connection in idle:
        connection.close()
    return outcome
