"""A small real shop over HTTP that keeps the public contract, and breaks it where a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

PAGE = 5


@contextmanager
def open_shop() -> Iterator[Shop]:
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Shop(ThreadingHTTPServer):
    """Keeps the public contract, and breaks it where a test says so."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.orders: dict[str, dict[str, Any]] = {}
        self.by_key: dict[str, str] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.down = False
        self.answers_lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlparse(self.path)
        kind, _, id = url.path.removeprefix("/api/v1/").partition("/")
        if kind == "products":
            self.answer(200, {"items": [{"sku": "tea"}, {"sku": "ink"}]})
        elif kind == "orders" and not id:
            user = parse_qs(url.query)["user_id"][0]
            mine = [o for o in self.server.orders.values() if o["user_id"] == user]
            start = int(parse_qs(url.query).get("cursor", ["0"])[0])
            following = str(start + PAGE) if len(mine) > start + PAGE else None
            self.answer(200, {"orders": mine[start : start + PAGE], "next": following})
        else:
            found = {"orders": self.server.orders, "users": self.server.users}[kind].get(id)
            self.answer(200, found) if found else self.answer(404, {"title": "Not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if self.server.down:
            self.answer(503, {"title": "Unavailable"})
            return
        with self.server.lock:
            replayed = key in self.server.by_key
            id = self.server.by_key.setdefault(key, str(1000 + len(self.server.by_key)))
            if self.path.endswith("users"):
                document = self.server.users.setdefault(id, {"id": id, **body})
            else:
                amount = f"{body['items'][0]['quantity'] * 2}.50"
                total = {"amount": amount, "currency": "USD"}
                fresh = {"id": id, "user_id": body["user_id"], "total": total}
                document = self.server.orders.setdefault(id, fresh)
            lose = self.server.answers_lost > 0 and not self.path.endswith("users")
            self.server.answers_lost -= lose
        if lose:
            self.answer(500, {"title": "Internal error"})
            return
        self.answer(200 if replayed else 201, document, replayed=replayed)

    def answer(self, status: int, document: Any, *, replayed: bool = False) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Regionctl-Shard", "s1")
        self.send_header("X-Regionctl-Epoch", "1")
        self.send_header("X-Regionctl-Region", "us-east-1")
        if replayed:
            self.send_header("Idempotent-Replay", "true")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
