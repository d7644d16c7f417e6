"""What every request passes before anything else: who is it, may it, and is it recorded.

Pure ASGI and before the router, so that no route can be added without it and nothing of a body is
believed, or read beyond a bound, before its sender is known. A change that fails, for whatever
reason, is recorded here; one that is carried out is recorded by the store, in the transaction that
carries it out.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane import access, tokens
from control_plane.access import ANONYMOUS, ROOT, Actor, Asked
from control_plane.plane import ControlPlane
from runtime.errors import Invalid, Problem, Unauthorized

OPEN = frozenset({"/health/live"})
BODY_BYTES = 1 << 20
# A client that goes on asking with a bad token is recorded once in this time.
QUIET_SECONDS = 60.0


def actor_of(request: Request) -> Actor:
    """Who sent the request."""
    actor: Actor = request.state.actor
    return actor


def asked_of(request: Request) -> Asked:
    """What the request wants, as it is recorded. Only a request that changes something has it."""
    asked: Asked = request.state.asked
    return asked


def problem_answer(problem: Problem) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(problem, Unauthorized) else None
    media = "application/problem+json"
    return JSONResponse(problem.document(), problem.status, headers=headers, media_type=media)


class Gate:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._said: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        scope["state"] = dict(scope.get("state", {}))
        try:
            await self._pass(scope, receive, send)
        except Problem as problem:
            await problem_answer(problem)(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        plane: ControlPlane = scope["app"].state.plane
        method, path = scope["method"], scope["path"]
        actor = scope["state"]["actor"] = await self._known(plane, scope)
        if "\0" in path or b"%00" in scope["query_string"]:
            raise Invalid("A path must not contain NUL.")
        if method in access.READS:
            await self.app(scope, receive, send)
            return
        body = await _read(receive)
        again = _again(body, receive)
        if not access.changes(method, path):
            await self.app(scope, again, send)
            return
        asked = scope["state"]["asked"] = access.asked(actor, method, path, _document(body))
        await _Change(plane, asked, scope, again, send).carry_out(self.app)

    async def _known(self, plane: ControlPlane, scope: Scope) -> Actor:
        """Raises `Unauthorized`, which is recorded now and then."""
        sent = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        text = sent[7:] if sent[:7].lower() == "bearer " else ""
        same = hmac.compare_digest(tokens.hash_of(text), tokens.hash_of(plane.token))
        if text and same:
            return ROOT
        who = ANONYMOUS
        try:
            token = await plane.tokens.find(text)
            who = Actor(token.name, token.role, token.id)
            return tokens.check_good(token, plane.clock.now())
        except Unauthorized as problem:
            now = plane.clock.monotonic()
            key = who.token or ""
            if now >= self._said.get(key, now):
                self._said[key] = now + QUIET_SECONDS
                path = access.legible(scope["path"])
                asked = Asked(who.name, who.role, "authenticate", path)
                await plane.store.refuse(asked, problem.detail)
            raise


class _Change:
    """One request that changes something, and what becomes of it."""

    def __init__(
        self, plane: ControlPlane, asked: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.plane = plane
        self.asked = asked
        self.scope = scope
        self.receive = receive
        self.send = send

    async def carry_out(self, app: ASGIApp) -> None:
        actor: Actor = self.scope["state"]["actor"]
        least = access.needed(self.scope["method"], self.scope["path"])
        try:
            access.check(actor, least, self.asked.action)
            await app(self.scope, self.receive, self._record_refusal)
        except Exception as error:
            why = error.detail if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
            await self.plane.store.refuse(self.asked, access.legible(why))
            raise

    async def _record_refusal(self, message: Message) -> None:
        """Before the refusal is told, it is recorded."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            problem: Problem | None = self.scope["state"].get("problem")
            why = f"HTTP {message['status']}" if problem is None else problem.detail
            await self.plane.store.refuse(self.asked, access.legible(why))
        await self.send(message)


async def _read(receive: Receive) -> bytes:
    """The whole body. Raises `Invalid` when it is longer than any that is meant."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_BYTES:
            raise Invalid(f"The request is longer than {BODY_BYTES} bytes.")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return first.pop() if first else await receive()

    return read


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
