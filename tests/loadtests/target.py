"""A shop to shoot at: answers every request of the journeys after a fixed delay, and can freeze.

It runs in a thread of the test; what it answers is just enough for a journey to go on.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

JSON = dict[str, Any]
TEA = {"sku": "tea-1", "name": "Tea", "stock": 9}


class Target:
    """`delay` seconds pass before each answer; all of them wait while it is frozen.

    `freeze_at` is the number of the request, from 1, that freezes it for so many seconds.
    """

    def __init__(self, delay: float, tls: ssl.SSLContext | None = None) -> None:
        self.delay = delay
        self.tls = tls
        self.count: Counter[str] = Counter()
        self.limit_after: int | None = None
        self.freeze_at: tuple[int, float] | None = None
        self.asked = 0
        self.url = ""
        self._thawed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def freeze(self, seconds: float) -> None:
        """From now on, for so long, nothing is answered."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._freeze, seconds)

    def _freeze(self, seconds: float) -> None:
        assert self._thawed is not None
        assert self._loop is not None
        self._thawed.clear()
        self._loop.call_later(seconds, self._thawed.set)

    async def serve(self, ready: Callable[[], None], over: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._thawed = asyncio.Event()
        self._thawed.set()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self.tls)
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready()
        await over.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await _head(reader):
                first, *fields = head.split("\r\n")
                method, path, _ = first.split(" ", 2)
                length = re.search(r"content-length: *(\d+)", "\n".join(fields).lower())
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.asked += 1
                if self.freeze_at is not None and self.asked == self.freeze_at[0]:
                    self._freeze(self.freeze_at[1])
                await asyncio.sleep(self.delay)
                assert self._thawed is not None
                await self._thawed.wait()
                status, document = self._answer(method, path, body)
                text = json.dumps(document).encode()
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"
                    b"X-Regionctl-Shard: s%d\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, 1 + self.count["users"] % 2, len(text), text)
                )
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the server goes
        finally:
            writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, JSON]:
        what = path.partition("?")[0].removeprefix("/api/v1/").split("/")
        self.count[what[0]] += 1
        number = str(1000 + self.count[what[0]])
        if self.limit_after is not None and self.count["orders"] > self.limit_after:
            return 429, {"title": "Too many requests"}
        match [method, *what]:
            case ["POST", "users"]:
                return 201, {"id": number}
            case ["POST", "orders"]:
                return 201, {"id": number, "user_id": json.loads(body)["user_id"]}
            case ["POST", "orders", id, "cancel"]:
                return 200, {"id": id, "status": "cancelled"}
            case ["GET", "orders", id, "payment"]:
                return 200, {"order_id": id, "status": "captured"}
            case ["GET", "products"]:
                return 200, {"products": [TEA], "next": None}
            case ["GET", "products", sku]:
                return 200, {"sku": sku}
            case ["GET", "orders"] | ["GET", "orders", "search"]:
                return 200, {"orders": [], "next": None}
            case ["GET", "users" | "orders", id]:
                return 200, {"id": id}
        return 404, {"title": "Not found"}


async def _head(reader: asyncio.StreamReader) -> str:
    """Up to the empty line; "" when the client has gone."""
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
    except asyncio.IncompleteReadError:
        return ""


@contextmanager
def open_target(delay: float = 0.005, tls: ssl.SSLContext | None = None) -> Iterator[Target]:
    target, started = Target(delay, tls), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(target.serve(started.set, over))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert started.wait(10)
        yield target
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
