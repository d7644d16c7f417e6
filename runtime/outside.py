"""The one way to call a server that is not ours: bounded, repeated where that is safe, and left
alone for a while when it fails again and again.

A call is repeated only when doing it twice is doing it once: a GET, or a request that carries an
`Idempotency-Key`. An answer below 500 other than 429 is an answer: what it means is for the
caller to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from runtime import tracing
from runtime.errors import Unavailable
from runtime.telemetry import OUTSIDE

SAFE = frozenset(["GET", "HEAD", "OPTIONS"])
KEY = "Idempotency-Key"


class _Failed(Exception):
    """An attempt without an answer that can be used; the text says why, without secrets."""


class Outside:
    """A client of one external server, called `name` in metrics and problems.

    `timeout` and `rest` are in seconds: of one attempt, and how long the server is left alone
    after `threshold` failures in a row.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        attempts: int = 3,
        threshold: int = 5,
        rest: float = 2.0,
        hint: str = "The server is tried again by itself; look at it if this goes on.",
    ) -> None:
        self._name = name
        self._base_url = base_url
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._attempts = attempts
        self._hint = hint
        # A caller that goes away says nothing about the server.
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=threshold, default_ttl=rest, exclude=[asyncio.CancelledError]
        )
        # Idle ones, the last used last. A client has one connection: a pool of many looks at every
        # one of them at each request.
        self._clients: list[httpx.AsyncClient] = []

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The server's answer. Raises `Unavailable` when there is none, or none but failures."""
        client = self._clients.pop() if self._clients else self._connect()
        try:
            request = client.build_request(method, path, json=json, params=params, headers=headers)
            return await self._repeat(client, request)
        finally:
            self._clients.append(client)

    async def _repeat(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        method = request.method
        safe = method in SAFE or KEY in request.headers
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts if safe else 1),
            wait=wait_random_exponential(multiplier=0.2, max=2.0),
            retry=retry_if_exception_type(_Failed),
            reraise=True,
        )
        with tracing.span(f"{method} {self._name}", "client", {"peer.service": self._name}):
            if parent := tracing.traceparent():
                request.headers["traceparent"] = parent
            try:
                return await retrying(self._attempt, client, request)
            except _Failed as error:
                raise self._unavailable(str(error)) from error

    async def close(self) -> None:
        """Ends its connections; a later call makes new ones."""
        while self._clients:
            await self._clients.pop().aclose()

    async def _attempt(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        breaker = await self._breakers.get_breaker(self._name)
        try:
            async with breaker:
                return await self._send(client, request)
        except OpenedState as error:
            OUTSIDE.labels(self._name, "open").inc()
            # The breaker raises one object again and again, which would keep every frame.
            error.__traceback__ = None
            raise self._unavailable("it has failed too often and rests for a moment") from None

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        try:
            answer = await client.send(request)
        except httpx.HTTPError as error:
            OUTSIDE.labels(self._name, "lost").inc()
            raise _Failed(type(error).__name__) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            OUTSIDE.labels(self._name, "failed").inc()
            raise _Failed(f"it answers {answer.status_code}")
        OUTSIDE.labels(self._name, "answered").inc()
        return answer

    def _connect(self) -> httpx.AsyncClient:
        if not self._base_url:
            raise self._unavailable("no address is set")
        return httpx.AsyncClient(
            base_url=self._base_url,
            headers=self._headers,
            timeout=self._timeout,
            trust_env=False,
        )

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(f"The {self._name} cannot be used: {reason}.", hint=self._hint)
