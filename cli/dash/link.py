"""The dashboard's way to the outside: the control plane's client, and the edge itself."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cli import edge, find, work
from cli.dash.view import Probe
from cli.leaf import Run
from cli.settings import Settings, elsewhere
from control_plane import listen
from runtime.errors import Unauthorized, Unavailable

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]
LINGER_SECONDS = 180.0


class Link:
    """Connects when it is first needed, so that the first screen need not wait for it.

    `name` is the platform's, or where its control plane is. `options` mean the same platform on
    another command line. `kept` names the file for its last overview.
    """

    def __init__(self, run: Run) -> None:
        self._state_dir = run.state_dir
        self._client: Client | None = None
        self._making = asyncio.Lock()
        self._old: list[tuple[float, Client]] = []
        server = Settings.read().server if run.state_dir is None else None
        self._home: Path | None = None
        if server:
            self.name, self.options, place = urlsplit(server).netloc, [], server
            self._edge: tuple[str, int] | None = None
            self._far = not listen.is_loopback(urlsplit(server).hostname or "")
        else:
            platform = find.platform(run.state_dir)
            place, self._home = str(platform.state_dir), platform.state_dir
            self.name, self.options = platform.name, ["--state-dir", place]
            self._edge, self._far = ("127.0.0.1", platform.edge_port), False
        self.kept = f"overview-{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"

    def line(self, command: str) -> str:
        """`command` so that it means this platform in any terminal."""
        return elsewhere(command, self._home)

    async def client(self) -> Client:
        async with self._making:
            if self._client is None:
                # Its import takes a tenth of a second, in which the screen could answer no key.
                self._client = await asyncio.to_thread(work.client_of, self._state_dir)
            return self._client

    async def overview(self) -> JSON:
        client = await self.client()
        try:
            return await client.overview()
        except (Unauthorized, Unavailable):
            await self._forget(client)
            raise

    async def _forget(self, client: Client) -> None:
        """The next one reads token, certificate and address anew: they may be others by now.

        An operation that is being started with the old one goes on asking for a while.
        """
        if self._client is client:
            self._client = None
            self._old.append((monotonic(), client))
        while self._old and monotonic() - self._old[0][0] > LINGER_SECONDS:
            await _end(self._old.pop(0)[1])

    async def probe(self, document: JSON | None) -> Probe:
        """Whether customers are served, asked where they ask by the last overview there is."""
        began, place = monotonic(), self._entry(document) or self._edge
        if place is None:
            return Probe("edge", None, 0.0, known=False)
        return Probe("edge", await edge.ask_at(*place), monotonic() - began)

    def _entry(self, document: JSON | None) -> tuple[str, int] | None:
        """None when it is not known; the loopback address of another machine is none from here."""
        entry = urlsplit((document or {}).get("entryUrl") or "")
        if not entry.hostname or (self._far and listen.is_loopback(entry.hostname)):
            return None
        return entry.hostname, entry.port or 443

    async def close(self) -> None:
        last = [self._client] if self._client is not None else []
        self._client = None
        for client in (*(old for _, old in self._old), *last):
            await _end(client)
        self._old.clear()


async def _end(client: Client) -> None:
    await client.__aexit__(None, None, None)
