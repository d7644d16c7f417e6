"""The access token of a load program: an OAuth client's own (client_credentials, RFC 6749).

The client's id and secret are read from a file of mode 0600, {"client_id", "client_secret",
"token_url"?}, and never from the command line, which everybody on the machine can read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

TOKEN_PATH = "/oauth/token"  # noqa: S105  a path
RENEW_SHARE = 0.8
RETRY_SECONDS = 1.0
SHORTEST_SECONDS = 1.0


@dataclass(frozen=True)
class Client:
    """`token_url` is where its tokens come from; empty: the platform that is under load."""

    id: str
    secret: str = field(repr=False)
    token_url: str = ""

    @staticmethod
    def read(path: Path) -> Client:
        """Raises `OSError`, or `ValueError` for a file that is none or that others can read."""
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by others: its mode must be 0600")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return Client(
                str(found["client_id"]),
                str(found["client_secret"]),
                str(found.get("token_url") or ""),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no client: {error!r}") from error

    @staticmethod
    def read_if(path: Path | None) -> Client | None:
        return Client.read(path) if path else None


def password(client: Client | None, run: str) -> str:
    """The password of the users of one run. Who has the client can tell it; the journal does not
    have it."""
    key = client.secret.encode() if client else b"nobody"
    return base64.urlsafe_b64encode(hmac.digest(key, run.encode(), "sha256")[:18]).decode()


class Access:
    """`headers` are those of a request; without a client there are none."""

    def __init__(self, http: httpx.AsyncClient, client: Client | None) -> None:
        self._http = http
        self._client = client
        self._renew_at = 0.0
        self.headers: dict[str, str] = {}

    @asynccontextmanager
    async def open(self, seconds: float) -> AsyncIterator[Access]:
        """With a token, which is renewed in the background from then on.

        Raises `PermissionError` when the client is refused, and `TimeoutError` when there is no
        token after `seconds`.
        """
        if self._client is None:
            yield self
            return
        await self._first(seconds)
        task = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _first(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self._fetch()
            except (httpx.HTTPError, LookupError, ValueError) as error:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no access token in {seconds:g} s: {error!r}") from error
            await asyncio.sleep(RETRY_SECONDS / 4)

    async def _keep(self) -> None:
        """A renewal that fails leaves the token as it is, and is tried again."""
        while True:
            await asyncio.sleep(max(self._renew_at - time.monotonic(), 0.0))
            try:
                await self._fetch()
            except (httpx.HTTPError, PermissionError, LookupError, ValueError):
                self._renew_at = time.monotonic() + RETRY_SECONDS

    async def _fetch(self) -> None:
        assert self._client is not None
        answer = await self._http.post(
            self._client.token_url or TOKEN_PATH,
            data={"grant_type": "client_credentials"},
            auth=(self._client.id, self._client.secret),
        )
        if answer.status_code in (400, 401, 403):
            raise PermissionError(f"{self._client.id} got no token: {answer.text[:200]}")
        answer.raise_for_status()
        found = answer.json()
        lasts = max(float(found.get("expires_in", 60.0)), SHORTEST_SECONDS)
        self.headers = {"Authorization": f"Bearer {found['access_token']}"}
        self._renew_at = time.monotonic() + lasts * RENEW_SHARE
