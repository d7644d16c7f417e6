"""A TCP relay between two regions, which can be cut or slowed.

`python -m infra.local.relay TABLE.json` listens on 127.0.0.1 for each route of the table:

    {"routes": [{"listen": PORT, "target": [HOST, PORT], "latencySeconds": 0.03,
                 "delaySeconds": 0.0, "cut": false, "expiresAt": unix seconds or null}]}

The table is read again when it changes (asked every 50 ms). A cut aborts the connections and
refuses new ones. A delay holds every byte back that long in each direction, in order and without
limiting the throughput. A fault ends at `expiresAt` also when nobody writes the table again. A
table that cannot be read leaves the routes as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
CHUNK = 1 << 16
GATHER_SECONDS = 0.01
BUFFER = 8 << 20
CONNECT_SECONDS = 5.0

log = logging.getLogger("relay")


@dataclass(frozen=True)
class Route:
    """One relayed port. `latency_seconds` is the distance, which is always there; `expires_at` is
    when `cut` and `delay_seconds`, the faults, end, in unix seconds."""

    listen: int
    target: tuple[str, int]
    delay_seconds: float = 0.0
    cut: bool = False
    expires_at: float | None = None
    latency_seconds: float = 0.0

    def at(self, now: float) -> Route:
        """The route as it holds at `now`: without its fault once that has expired."""
        if self.expires_at is not None and now >= self.expires_at:
            return Route(self.listen, self.target, latency_seconds=self.latency_seconds)
        return self


def write_table(path: Path, routes: Sequence[Route]) -> None:
    """Replace the table as a whole."""
    document = {"routes": [_document(route) for route in routes]}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
    temporary.replace(path)


def read_table(path: Path) -> tuple[Route, ...]:
    """The routes of the table. Raises `OSError`, or `ValueError` when it is not a table."""
    document = json.loads(path.read_text(encoding="utf-8"))
    try:
        return tuple(_route(entry) for entry in document["routes"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a table of routes: {error!r}") from error


def _document(route: Route) -> dict[str, Any]:
    return {
        "listen": route.listen,
        "target": list(route.target),
        "delaySeconds": route.delay_seconds,
        "cut": route.cut,
        "expiresAt": route.expires_at,
        "latencySeconds": route.latency_seconds,
    }


def _route(entry: dict[str, Any]) -> Route:
    host, port = entry["target"]
    expires = entry.get("expiresAt")
    return Route(
        int(entry["listen"]),
        (str(host), int(port)),
        float(entry.get("delaySeconds", 0.0)),
        bool(entry.get("cut", False)),
        None if expires is None else float(expires),
        float(entry.get("latencySeconds", 0.0)),
    )


class Lane:
    """One direction of a connection: bytes wait until they are due, then go out in order."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._last_due = 0.0
        self._changed = asyncio.Event()

    async def fill(self, reader: asyncio.StreamReader) -> None:
        """Take bytes in until the end; an empty chunk marks it."""
        while True:
            data = await reader.read(CHUNK)
            self._last_due = max(self._last_due, time.monotonic() + self._delay())
            self._waiting.append((self._last_due, data))
            self._held += len(data)
            self._changed.set()
            if not data:
                return
            while self._held > BUFFER:
                self._changed.clear()
                await self._changed.wait()
            if len(data) < CHUNK and self._delay() >= GATHER_SECONDS:
                # What comes meanwhile goes on as one piece: a far replica is not to be woken, and
                # to write to its disk, for every commit. Who sends much is not held up.
                await asyncio.sleep(GATHER_SECONDS)

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        """Give bytes out as they are due; then say that there are no more."""
        while True:
            while not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            due, data = self._waiting[0]
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            self._waiting.popleft()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            self._held -= len(data)
            self._changed.set()


class Port:
    """One listening port and its connections."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._complained = False

    async def become(self, route: Route) -> None:
        """Take `route` on: a cut or another target aborts the connections there are."""
        former, self.route = self.route, route
        if route.cut or route.target != former.target:
            await self.abort()
        if route.cut:
            self._unlisten()
        elif self._server is None:
            await self._listen()

    async def close(self) -> None:
        self._unlisten()
        await self.abort()

    async def abort(self) -> None:
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.route.listen)
            self._complained = False
        except OSError as error:
            if not self._complained:
                log.error("cannot listen on port %d: %s", self.route.listen, error)
                self._complained = True

    def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._relay(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until both directions have ended, or abort both sides."""
        writers = [writer]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(*self.route.target)
            writers.append(far_writer)
            out, back = Lane(self._delay), Lane(self._delay)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(out.fill(reader))
                tasks.create_task(out.drain(far_writer))
                tasks.create_task(back.fill(far_reader))
                tasks.create_task(back.drain(writer))
            for each in writers:
                each.close()
        except* (OSError, TimeoutError):
            pass
        finally:
            for each in writers:
                if not each.transport.is_closing():
                    each.transport.abort()

    def _delay(self) -> float:
        return self.route.latency_seconds + self.route.delay_seconds


async def serve(table: Path, stop: asyncio.Event) -> None:
    """Relay what `table` says until `stop` is set."""
    ports: dict[int, Port] = {}
    routes: tuple[Route, ...] = ()
    seen: tuple[int, int] | None = None
    while not stop.is_set():
        stamp = _stamp(table)
        if stamp is not None and stamp != seen:
            seen = stamp
            try:
                routes = read_table(table)
            except (OSError, ValueError) as error:
                log.error("keeping the former routes: %s", error)
        await _apply(ports, routes)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_SECONDS)
    for port in ports.values():
        await port.close()


async def _apply(ports: dict[int, Port], routes: Sequence[Route]) -> None:
    now = time.time()
    wanted = {route.listen: route.at(now) for route in routes}
    for listen in set(ports) - set(wanted):
        await ports.pop(listen).close()
    for listen, route in wanted.items():
        port = ports.setdefault(listen, Port(route))
        await port.become(route)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


async def _main(table: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(table, stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_main(Path(sys.argv[1])))
