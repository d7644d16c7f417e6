"""A server in a thread that answers with what it was asked, as JSON, and gives out token keys."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

JWKS = "/.well-known/jwks.json"


class Echo:
    """`headers` of the answer to a path; `keys` are published at the JWKS path; `asked` counts the
    requests that reached each path, whatever its query."""

    def __init__(self, port: int = 0) -> None:
        self.headers: dict[str, dict[str, str]] = {}
        self.keys: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.echo = self
        self.address = ("127.0.0.1", int(self._server.server_address[1]))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.asked[path] += 1
        if path == JWKS:
            return 200, {}, json.dumps({"keys": self.keys}).encode()
        headers = self.headers.get(path, {})
        if headers.get("ETag") and asked["headers"].get("if-none-match") == headers["ETag"]:
            return 304, headers, b""
        return 200, headers, json.dumps({**asked, "count": self.asked[path]}).encode()

    def end(self) -> None:
        self._server.ended = True
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    echo: Echo
    ended = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if server.ended:
            self.close_connection = True
            return
        asked = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": len(body),
        }
        path = self.path.partition("?")[0]
        if path == "/health/ready":
            status, headers, content = 200, dict[str, str](), b"{}"
        else:
            status, headers, content = server.echo.answer(path, asked)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests say what they saw."""


class Signer:
    """Makes access tokens as auth does."""

    def __init__(self, issuer: str, kid: str = "k1") -> None:
        self._issuer = issuer
        self.key = ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})

    @property
    def public(self) -> dict[str, Any]:
        return dict(self.key.as_dict(private=False))

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": "regionctl",
            "sub": "7",
            "role": "user",
        }
        claims |= {"client_id": "web", "iat": now, "exp": now + 600, "jti": "1", **changes}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=["ES256"])
