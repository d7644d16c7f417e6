"""The dashboard's way to the outside: the control plane's client, and the edge itself."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cli import edge, find, work
from cli.dash.view import Probe
from cli.leaf import Run
from cli.settings import Settings

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]


class Link:
    """Connects when it is first needed, so that the first screen need not wait for it.

    `name` is the platform's, or where its control plane is. `options` mean the same platform on
    another command line. `kept` names the file for its last overview.
    """

    def __init__(self, run: Run) -> None:
        self._state_dir = run.state_dir
        self._stack = AsyncExitStack()
        self._client: Client | None = None
        server = Settings.read().server if run.state_dir is None else None
        if server:
            self.name, self.options, place = urlsplit(server).netloc, [], server
            self._edge: tuple[str, int] | None = None
        else:
            platform = find.platform(run.state_dir)
            place = str(platform.state_dir)
            self.name, self.options = platform.name, ["--state-dir", place]
            self._edge = ("127.0.0.1", platform.edge_port)
        self.kept = f"overview-{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"

    async def client(self) -> Client:
        if self._client is None:
            # Its import takes a tenth of a second, in which the screen could not answer to a key.
            made = await asyncio.to_thread(work.client_of, self._state_dir)
            self._client = await self._stack.enter_async_context(made)
        return self._client

    async def overview(self) -> JSON:
        document = await (await self.client()).overview()
        entry = urlsplit(document["entryUrl"])
        if entry.hostname:
            self._edge = (entry.hostname, entry.port or 443)
        return document

    async def probe(self) -> Probe:
        """Whether customers are served, asked where they ask."""
        began = monotonic()
        answer = await edge.ask_at(*self._edge) if self._edge else None
        return Probe("edge", answer, monotonic() - began)

    async def close(self) -> None:
        await self._stack.aclose()
