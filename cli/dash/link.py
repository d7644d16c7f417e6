"""The dashboard's way to the outside: the control plane's client, and the edge itself."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import AsyncExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any

from cli import edge, find, work
from cli.dash.view import Probe
from cli.leaf import Run

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]


class Link:
    """Connects when it is first needed, so that the first screen need not wait for it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stack = AsyncExitStack()
        self._client: Client | None = None
        self.platform = find.platform(run.state_dir)

    async def client(self) -> Client:
        if self._client is None:
            # A tenth of a second in which the screen could not answer to a key.
            await asyncio.to_thread(importlib.import_module, "control_plane.client")
            self._client = await self._stack.enter_async_context(work.connect(self._run))
        return self._client

    async def overview(self) -> JSON:
        return await (await self.client()).overview()

    async def probe(self) -> Probe:
        began = monotonic()
        answer = await edge.ask(self.platform)
        return Probe("edge", answer, monotonic() - began)

    async def close(self) -> None:
        await self._stack.aclose()
