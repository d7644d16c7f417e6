"""All six services behind one port, as the gateway routes them, with what runs beside them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.app import SERVICES, build
from tests.runtime.conftest import Platform, running

WORDS = {
    "payment": "payments", "invoice": "payments", "notifications": "notifications",
}  # fmt: skip
FIRST = {"users": "users", "orders": "orders", "products": "inventory", "payments": "payments"}


def service_of(path: str) -> str:
    parts = path.strip("/").split("/")
    if parts[:2] != ["api", "v1"] or len(parts) < 3:
        return "inventory" if parts[0] in ("static", "openapi.json") else "auth"
    if parts[2] == "orders" and len(parts) == 5 and parts[4] in WORDS:
        return WORDS[parts[4]]
    return FIRST.get(parts[2], "auth")


class Gateway:
    def __init__(self, apps: dict[str, ASGIApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._apps[service_of(scope["path"])](scope, receive, send)


@asynccontextmanager
async def served(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """The port at which uvicorn serves `app`, in this process's loop, until the block ends."""
    # Of any other protocol number asyncio does not switch Nagle's algorithm off: 40 ms a request.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", **options)
        )
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def whole(platform: Platform, **changes: Any) -> AsyncIterator[int]:
    """The port of all services of `platform`; `changes` are of their settings."""
    async with AsyncExitStack() as stack:
        apps: dict[str, ASGIApp] = {}
        for name in SERVICES:
            apps[name] = build(replace(platform.settings(name), **changes))
            await stack.enter_async_context(running(apps[name]))
        yield await stack.enter_async_context(served(Gateway(apps)))
