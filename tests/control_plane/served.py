"""The control plane on a real loopback port, over a platform in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from control_plane.app import build
from control_plane.plane import ControlPlane
from control_plane.settings import Settings
from infra.topology import BUILT_IN

TOKEN = "the-token"


def state_dir(folder: Path, *, automatic: bool = False) -> Path:
    """A state directory of the two-regions topology with the memory provider."""
    (folder / "control").mkdir(parents=True)
    (folder / "control" / "token").write_text(TOKEN)
    text = (BUILT_IN / "two-regions.yaml").read_text()
    text = text.replace("provider: local", "provider: memory")
    if not automatic:
        text = text.replace("automatic: true", "automatic: false")
    (folder / "topology.yaml").write_text(text)
    return folder


@asynccontextmanager
async def served(folder: Path, port: int = 0) -> AsyncIterator[str]:
    """Its address. The same `folder` and port again is a restart."""
    async with serving(folder, port) as (address, _):
        yield address


@asynccontextmanager
async def serving(folder: Path, port: int = 0) -> AsyncIterator[tuple[str, ControlPlane]]:
    """Its address, and the control plane itself: its provider is the platform."""
    listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
    port = listener.getsockname()[1]
    url = f"sqlite+aiosqlite:///{folder / 'control' / 'control.db'}"
    app = build(Settings(folder, url, port))
    config = uvicorn.Config(
        app,
        log_level="error",
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(30):
            while not server.started:
                if task.done():
                    await task
                    raise RuntimeError("the server ended")
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{port}", app.state.plane
    finally:
        server.should_exit = True
        await task


class _no_signals:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
