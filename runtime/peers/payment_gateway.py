"""The payment gateway's stand-in: `python -m runtime.peers.payment_gateway --port P --state FILE
--secrets FILE [--webhook-url URL] [--webhook-ca FILE]`.

    POST /v1/charges               {amount_cents, currency, method, reference} → 201 charge
    POST /v1/charges/{id}/refund   → 201 charge, status refunded
    GET  /v1/charges?reference=&after=&limit=   → {"charges": [charge], "next": after | null}
    GET  /v1/charges?changed_after=&limit=      → the same, by last change
    POST /v1/faults                {"mode": up | down | slow, "seconds": N}

Every request needs `Authorization: Bearer KEY` (`gatewayKey` of the secrets); a POST to charges
needs an `Idempotency-Key`: the same key and request get the same answer, another request 409.
`after` is a charge's `created` (µs since 1970), `changed_after` its `changed`, which is when it
was made or refunded. Methods: card, card-declined, card-slow (answers
after 3 s), card-timeout (the charge is made, and its first answer never comes), card-error-once
(500 and no charge, then well).

Each change is told to the webhook's URL, signed (`webhookSecret`) as standardwebhooks.com says,
at least once: again with growing pauses until it is answered 2xx.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runtime.peers.ledger import Ledger, digest

METHODS = ("card", "card-declined", "card-slow", "card-timeout", "card-error-once")
MODES = ("up", "down", "slow")
SLOW_SECONDS = 3.0
NEVER_SECONDS = 3600.0
BODY_LIMIT = 64 * 1024
HOOKS_AT_ONCE = 8
HOOK_TIMEOUT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0


class Gateway:
    """The routes over one ledger."""

    def __init__(self, ledger: Ledger, key: str) -> None:
        self._ledger = ledger
        self._authorization = f"Bearer {key}".encode()

    def routes(self) -> list[Route]:
        return [
            Route("/v1/charges", self.charge, methods=["POST"]),
            Route("/v1/charges", self.list, methods=["GET"]),
            Route("/v1/charges/{id}/refund", self.refund, methods=["POST"]),
            Route("/v1/faults", self.fault, methods=["POST"]),
            Route("/health/live", self.live, methods=["GET"]),
        ]

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def charge(self, request: Request) -> Response:
        await self._enter(request)
        key = _key(request)
        wish = _charge_of(await _document(request))
        mark = digest("charge", wish)
        method = wish["method"]

        def work() -> tuple[int, str, bool]:
            first = self._ledger.first_meeting(key)
            if first and method == "card-error-once":
                return 500, json.dumps({"error": "Something went wrong."}), first
            return *self._ledger.charge(key, mark, wish), first

        status, body, first = await self._ledger.write(work)
        if first and method in ("card-slow", "card-timeout"):
            await asyncio.sleep(SLOW_SECONDS if method == "card-slow" else NEVER_SECONDS)
        return Response(body, status, media_type="application/json")

    async def refund(self, request: Request) -> Response:
        await self._enter(request)
        key = _key(request)
        id = request.path_params["id"]
        mark = digest(f"refund {id}", {})
        status, body = await self._ledger.write(lambda: self._ledger.refund(key, mark, id))
        return Response(body, status, media_type="application/json")

    async def list(self, request: Request) -> Response:
        await self._enter(request)
        query = request.query_params
        after = _whole(query.get("after", "0"), "after", 2**63 - 1)
        limit = min(_whole(query.get("limit", "100"), "limit", 2**31), 1000)
        cursor = "created"
        if "changed_after" in query:
            cursor = "changed"
            changed_after = _whole(query["changed_after"], "changed_after", 2**63 - 1)
            charges = self._ledger.changed(changed_after, limit)
        else:
            charges = self._ledger.charges(query.get("reference"), after, limit)
        following = charges[-1][cursor] if limit and len(charges) == limit else None
        return JSONResponse({"charges": charges, "next": following})

    async def fault(self, request: Request) -> Response:
        self._authorize(request)
        document = await _document(request)
        mode, seconds = document.get("mode"), document.get("seconds", 0)
        if mode not in MODES or not isinstance(seconds, int | float) or not 0 <= seconds <= 86400:
            raise HTTPException(422, "mode is up, down or slow, and seconds 0 to 86400")
        until = time.time() + seconds
        await self._ledger.write(lambda: self._ledger.set_fault(mode, until))
        return JSONResponse({"mode": mode, "until": until})

    async def _enter(self, request: Request) -> None:
        """What every request of a client meets: the fault in force, and the key's check."""
        mode, until = self._ledger.fault()
        if time.time() < until:
            if mode == "down":
                raise HTTPException(503, "Down on purpose")
            if mode == "slow":
                await asyncio.sleep(SLOW_SECONDS)
        self._authorize(request)

    def _authorize(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._authorization):
            raise HTTPException(401, "Wrong key", {"WWW-Authenticate": "Bearer"})


class Messenger:
    """Delivers the ledger's webhooks to `url` until each is answered 2xx."""

    def __init__(self, ledger: Ledger, url: str, secret: str, ca: str) -> None:
        self._ledger = ledger
        self._url = url
        self._webhook = Webhook(secret)
        self._ca = ca

    async def run(self) -> None:
        trust = ssl.create_default_context(cafile=self._ca) if self._ca else True
        async with httpx.AsyncClient(
            verify=trust, timeout=HOOK_TIMEOUT_SECONDS, trust_env=False
        ) as client:
            while True:
                self._ledger.hooked.clear()
                due = self._ledger.hooks_due(time.time(), HOOKS_AT_ONCE)
                if due:
                    await asyncio.gather(*(self._deliver(client, *hook) for hook in due))
                    continue
                following = self._ledger.next_due()
                pause = None if following is None else max(0.0, following - time.time()) + 0.01
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ledger.hooked.wait(), pause)

    async def _deliver(self, client: httpx.AsyncClient, id: str, body: str, attempts: int) -> None:
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._webhook.sign(id, at, body),
        }
        try:
            answer = await client.post(self._url, content=body, headers=headers)
            taken = answer.is_success
        except (httpx.HTTPError, ssl.SSLError, OSError):
            taken = False
        if taken:
            await self._ledger.write(lambda: self._ledger.delivered(id))
            return
        pause = min(0.25 * 2 ** min(attempts, 10), LONGEST_PAUSE_SECONDS)
        due = time.time() + pause * random.uniform(0.5, 1.0)  # noqa: S311 # nosec B311
        await self._ledger.write(lambda: self._ledger.postpone(id, due))


def build(state: Path, secrets: dict[str, str], url: str = "", ca: str = "") -> Starlette:
    """The application; without `url` webhooks are kept and not sent."""
    ledger = Ledger(state)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        messenger = Messenger(ledger, url, secrets["webhookSecret"], ca) if url else None
        task = asyncio.create_task(_forever(messenger)) if messenger else None
        yield
        if task:
            task.cancel()
            await asyncio.wait([task])
        ledger.close()

    async def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else "Something went wrong."
        headers = error.headers if isinstance(error, HTTPException) else None
        return JSONResponse({"error": detail}, status, headers)

    handlers: Any = {HTTPException: failed, Exception: failed}
    gateway = Gateway(ledger, secrets["gatewayKey"])
    return Starlette(routes=gateway.routes(), exception_handlers=handlers, lifespan=lifespan)


async def _forever(messenger: Messenger) -> None:
    """A trouble of the file or of the machine must not end the deliveries."""
    while True:
        try:
            await messenger.run()
        except Exception as error:
            print(f"webhooks: {error!r}", flush=True)  # noqa: T201
            await asyncio.sleep(1)


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not 0 < len(key) <= 200:
        raise HTTPException(400, "An Idempotency-Key of 1 to 200 characters is needed")
    return key


async def _document(request: Request) -> dict[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT:
            raise HTTPException(413, "The body is too large")
    try:
        document = json.loads(body)
    except ValueError as error:
        raise HTTPException(400, "The body is not JSON") from error
    if not isinstance(document, dict):
        raise HTTPException(422, "The body is not an object")
    return document


def _charge_of(document: dict[str, Any]) -> dict[str, Any]:
    amount = document.get("amount_cents")
    if type(amount) is not int or not 0 <= amount < 2**53:
        raise HTTPException(422, "amount_cents is a whole number of cents, 0 or more")
    texts = {name: document.get(name) for name in ("currency", "method", "reference")}
    for name, text in texts.items():
        if not isinstance(text, str) or not 0 < len(text) <= 200 or not text.isprintable():
            raise HTTPException(422, f"{name} is a text of 1 to 200 characters")
    if texts["method"] not in METHODS:
        raise HTTPException(422, f"method is one of {', '.join(METHODS)}")
    return {"amount_cents": amount, **texts}


def _whole(text: str, name: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise HTTPException(422, f"{name} is a whole number")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="payment_gateway", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="SQLite file")
    parser.add_argument("--secrets", type=Path, required=True, help="JSON file")
    parser.add_argument("--webhook-url", default="")
    parser.add_argument("--webhook-ca", default="", help="PEM file that signs the URL's server")
    given = parser.parse_args()
    secrets = json.loads(given.secrets.read_text())
    app = build(given.state, secrets, given.webhook_url, given.webhook_ca)
    # A connection whose answer never comes must not keep a stop waiting.
    uvicorn.run(
        app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
