"""A small real shop over HTTP that keeps the public contract, and breaks it where a test says."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

PAGE = 5
SECRET = "shop-secret"


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
        self.passwords: set[str] = set()
        self.down = False
        self.tokens: list[str] = []
        self.token_seconds = 600.0
        self.tokens_down = False
        self.guarded = False
        self.answers_lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def client_file(self, folder: Path) -> Path:
        """A file with a client that gets tokens here; from then on nobody else is served."""
        path = folder / "probe.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps({"client_id": "probe", "client_secret": SECRET}))
        self.guarded = True
        return path

    def token(self) -> str:
        self.tokens.append(f"token-{len(self.tokens) + 1}")
        return self.tokens[-1]


class Handler(BaseHTTPRequestHandler):
    server: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.allowed():
            return
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

    def allowed(self) -> bool:
        """Whether the newest token was shown; else the answer is given here."""
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.server.guarded or sent in self.server.tokens[-2:]:
            return True
        self.answer(401, {"title": "Unauthorized"})
        return False

    def grant(self, form: dict[str, list[str]]) -> None:
        client = base64.b64encode(f"probe:{SECRET}".encode()).decode()
        if self.server.tokens_down:
            self.answer(503, {"title": "Unavailable"})
        elif form["grant_type"] != ["client_credentials"] or self.headers["Authorization"] != (
            f"Basic {client}"
        ):
            self.answer(401, {"error": "invalid_client"})
        else:
            token, seconds = self.server.token(), self.server.token_seconds
            self.answer(200, {"access_token": token, "expires_in": seconds})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/oauth/token":
            self.grant(parse_qs(raw.decode()))
            return
        if not self.allowed():
            return
        body = json.loads(raw or b"{}")
        key = self.headers["Idempotency-Key"]
        if self.server.down:
            self.answer(503, {"title": "Unavailable"})
            return
        if self.path.endswith("/cancel"):
            self.answer(409, {"title": "Already paid"})
            return
        with self.server.lock:
            replayed = key in self.server.by_key
            id = self.server.by_key.setdefault(key, str(1000 + len(self.server.by_key)))
            if self.path.endswith("users"):
                self.server.passwords.add(body["password"])
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
