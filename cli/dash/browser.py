"""The dashboard in a browser on this machine: whoever has the address with its key, nobody else.

textual-serve knows no authentication, and any page of any site may open a socket to 127.0.0.1. So
the address carries a key made at the start, which becomes a cookie that other sites cannot send.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
import signal
import sys
from collections.abc import Awaitable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

from cli import render
from runtime.errors import Refused

HOST = "127.0.0.1"
COOKIE = "regionctl-dash"


def application(command: str, port: int, key: str) -> Awaitable[web.Application]:
    """The web application that runs `command` for each visit which knows `key`."""
    return _Guarded(command, port, key).application()


class _Guarded(Server):
    def __init__(self, command: str, port: int, key: str) -> None:
        super().__init__(command, host=HOST, port=port, title="regionctl")
        self._key = key

    async def application(self) -> web.Application:
        made = await self._make_app()
        made.middlewares.append(self._guard())
        return made

    async def on_startup(self, app: web.Application) -> None:
        """Says nothing: stdout belongs to `cli.render`."""

    def _guard(self) -> Middleware:
        name, key = f"{COOKIE}-{self.port}", self._key

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            asked = request.query.get("key", "")
            if request.path == "/" and _same(asked, key):
                answer = web.HTTPSeeOther("/")
                answer.set_cookie(name, key, httponly=True, samesite="Strict")
                raise answer
            own = (f"{HOST}:{self.port}", f"localhost:{self.port}")
            origin = request.headers.get("Origin", "").rpartition("/")[2]
            if request.host not in own or (origin and origin not in own):
                return web.Response(status=403, text="Not from here.\n")
            if not _same(request.cookies.get(name, ""), key):
                text = "Open the address that regionctl dash --serve printed.\n"
                return web.Response(status=403, text=text)
            return await handler(request)

        return guard


def _same(asked: str, key: str) -> bool:
    return hmac.compare_digest(asked.encode(), key.encode())


async def serve(options: Sequence[str], port: int) -> None:
    """`regionctl dash OPTIONS` for each visit, until interrupted.

    Raises `Refused` when the port is taken.
    """
    # Without a shell between them each visit's program sees at once that this one has ended.
    command = "exec " + shlex.join([sys.executable, "-m", "cli.main", "dash", *options])
    key = secrets.token_urlsafe(24)
    runner = web.AppRunner(await application(command, port, key))
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            hint = f"regionctl dash --serve --port {port + 1}"
            raise Refused(f"Port {port} is taken ({error.strerror}).", hint=hint) from error
        render.out(f"http://{HOST}:{port}/?key={key}")
        render.note("for this machine only; Ctrl-C ends it")
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()
    finally:
        await runner.cleanup()
