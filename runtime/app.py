"""One process of one service: `uvicorn runtime.app:create --factory`.

Answers are JSON, errors RFC 9457 problem documents, whatever was sent. `/health/ready` says that
this process has a shard map; it does not ask the databases, because a database being failed over
is no reason for a gateway to stop sending requests that would wait here and then succeed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import collector, tracing
from runtime.cache import Cache
from runtime.clock import SystemClock
from runtime.context import Background, Context
from runtime.errors import Invalid, Problem
from runtime.identity import Identity, bearer_of
from runtime.openapi import describe
from runtime.ratelimit import Limiter
from runtime.routing import Routing
from runtime.settings import Settings, load
from runtime.shards import Shards
from runtime.streams import Streams, forever
from runtime.telemetry import REQUESTS, log_json_lines

log = logging.getLogger(__name__)

# Each module has `service(context) -> (routes, background)`.
SERVICES = {
    "auth": "runtime.auth.api",
    "users": "runtime.users.api",
    "orders": "runtime.orders.api",
    "payments": "runtime.payments.api",
    "inventory": "runtime.inventory.api",
    "notifications": "runtime.notifications.api",
}
# The longest good request, an order of fifty lines, has 16 KiB; of a bad one, each unknown member
# costs some 25 µs.
BODY_LIMIT = 64 * 1024
NAME_LIMIT = 200
# FastAPI would look for OpenTelemetry's providers at each request; `runtime.tracing` makes spans.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
# Here a token of the client's past is in no way its fault.
NEEDS_NO_TOKEN = frozenset(["/oauth/token", "/oauth/revoke", "/.well-known/jwks.json"])
CHALLENGE = 'Bearer realm="regionctl"'


def create() -> ASGIApp:
    """The application that the environment names."""
    settings = load()
    log_json_lines(settings.instance)
    return build(settings)


def build(settings: Settings) -> Envelope:
    """The application of `settings`. Raises `Invalid` for a service that does not exist."""
    if settings.service not in SERVICES:
        raise Invalid(
            f"There is no service {settings.service!r}.", hint=f"Services: {', '.join(SERVICES)}"
        )
    module = importlib.import_module(SERVICES[settings.service])
    tracing.start(settings)
    context = _context(settings)
    routes, background = module.service(context)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context.routing.refresh()
        works: Background = {
            "shard map": context.routing.run,
            "identity": context.identity.run,
            **background,
        }
        tasks = [
            asyncio.create_task(forever(name, work, context.clock)) for name, work in works.items()
        ]
        collector.spare()
        yield
        await _stop(tasks)
        context.shards.close()
        await context.cache.close()
        await context.streams.close()
        tracing.stop()

    # Inventory answers /openapi.json with the document of all services.
    own = None if settings.service == "inventory" else "/openapi.json"
    app = FastAPI(
        title=f"regionctl {settings.service}",
        openapi_url=own,
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the Host header, which is the client's word.
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        lifespan=lifespan,
    )
    app.include_router(routes)
    _add_health(app, context)
    _add_problems(app)
    describe(app, settings.entry_url)
    return Envelope(app, context.identity, Limiter(context.cache, context.clock))


async def _stop(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Ends background work. A client library may swallow one cancellation: ask again."""
    pending = set(tasks)
    for _ in range(10):
        for task in pending:
            task.cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=0.5)


def _context(settings: Settings) -> Context:
    clock = SystemClock()
    routing = Routing(settings.shard_map, clock)
    shards = Shards(settings, routing, clock)
    return Context(
        settings=settings,
        clock=clock,
        routing=routing,
        shards=shards,
        cache=Cache(settings.cache, settings.valkey_password, clock, settings.trust),
        streams=Streams(settings, routing, clock),
        identity=Identity(settings, shards, clock),
    )


def _add_health(app: FastAPI, context: Context) -> None:
    @app.get("/health/live", include_in_schema=False)
    async def live() -> Response:
        return Response(b'{"status":"live"}', media_type="application/json")

    @app.get("/health/ready", include_in_schema=False)
    async def ready() -> Response:
        if not context.routing.loaded:
            return Response(b'{"status":"no shard map"}', 503, media_type="application/json")
        body = {"status": "ready", "mapVersion": context.routing.map.version}
        return Response(json.dumps(body), media_type="application/json")

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        context.shards.report()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        faults = [
            {
                "where": ".".join(str(part) for part in fault["loc"])[:NAME_LIMIT],
                "what": fault["msg"],
            }
            for fault in error.errors()[:20]
        ]
        detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults)
        return _render(request, Invalid(detail, extra={"faults": faults}).document(), 422)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return _render(request, Problem("An error in the service itself.").document(), 500)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        document = {
            "type": "about:blank",
            "title": str(error.detail),
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path}: {error.detail}.",
        }
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app, request.scope))
        return _render(request, document, error.status_code, headers)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """Of all routes of the path: the framework names those of the first only."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] == Match.FULL for route in app.routes)
    ]


def _answer(request: Request, error: Problem) -> Response:
    """RFC 6750 3: a refusal names the scheme, and what was wrong with a token if there was one."""
    headers = {}
    if error.status == 401:
        code = error.extra.get("error")
        headers["WWW-Authenticate"] = CHALLENGE + (f', error="{code}"' if code else "")
    if "retryAfter" in error.extra:
        headers["Retry-After"] = str(error.extra["retryAfter"])
    return _render(request, error.document(), error.status, headers)


def _render(
    request: Request,
    document: dict[str, Any],
    status: int,
    headers: Any = None,
) -> Response:
    body = {**document, "requestId": request.scope.get("request_id", "")}
    answer = Response(
        json.dumps(body), status, dict(headers or {}), media_type="application/problem+json"
    )
    if status == 503:
        answer.headers["retry-after"] = "1"
    return answer


class Envelope:
    """Around every request: an id, its time, who sends it, how many of them, a limit on the
    body, and no error without a document.

    Plain ASGI: a `BaseHTTPMiddleware` costs more than the rest of a request.
    """

    def __init__(self, app: FastAPI, identity: Identity, limiter: Limiter) -> None:
        self._app = app
        self._identity = identity
        self._limiter = limiter

    def openapi(self) -> dict[str, Any]:
        """The service's own document."""
        return self._app.openapi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = _header(scope, b"traceparent", 55)
        tracing.incoming.set(tracing.valid(parent.decode("latin-1")) if parent else None)
        with tracing.span(scope["method"], "server", parent=tracing.incoming.get()):
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request_id = _header(scope, b"x-request-id", 100) or uuid.uuid4().hex.encode()
        scope["request_id"] = request_id.decode("latin-1")
        tracing.request_id.set(scope["request_id"])
        status = 0
        received = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    *scope.get("ratelimit", ()),
                ]
            await send(message)

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_LIMIT:
                raise HTTPException(413, "The body is too large")
            return message

        try:
            if refusal := await self._refusal(scope):
                await refusal(scope, limited, answer)
            else:
                await self._app(scope, limited, answer)
        except Exception:
            log.exception("unexpected")
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            tracing.annotate({"http.route": route, "http.response.status_code": status})
            REQUESTS.labels(scope["method"], route, status).observe(time.perf_counter() - began)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Sets `scope["caller"]` if there is a token, and counts the request; or says no."""
        token = bearer_of(scope)
        try:
            if token is not None and scope["path"] not in NEEDS_NO_TOKEN:
                scope["caller"] = await self._identity.authenticate(token)
            await self._limiter.check(scope, scope.get("caller"))
            return None
        except Problem as error:
            return _answer(Request(scope), error)


def _header(scope: Scope, wanted: bytes, longest: int) -> bytes | None:
    """The value of the header if it has one to `longest` bytes."""
    for name, value in scope["headers"]:
        if name == wanted and 0 < len(value) <= longest:
            return bytes(value)
    return None
