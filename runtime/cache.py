"""The region's cache: an answer, or a miss. Never an error, never a long wait.

Every failure is a miss. After three failures in a row nobody asks for a second, so a frozen cache
costs a request 50 ms only now and then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from runtime.clock import Clock
from runtime.telemetry import CACHE

TIMEOUT_SECONDS = 0.05
FAILURES = 3
REST_SECONDS = 1.0


class Cache:
    """`address` None is a cache that has nothing."""

    def __init__(self, address: tuple[str, int] | None, password: str, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0
        self._client = address and Redis(
            host=address[0],
            port=address[1],
            password=password or None,
            protocol=2,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """One value or None a key, in order."""
        nothing: list[bytes | None] = [None] * len(keys)
        if not self._client or not keys or self._open():
            return nothing
        try:
            answer: Any = await self._client.mget(keys)
        except (RedisError, OSError, TimeoutError):
            self._failed()
            return nothing
        found: list[bytes | None] = answer
        self._failures = 0
        hits = sum(value is not None for value in found)
        CACHE.labels("hit").inc(hits)
        CACHE.labels("miss").inc(len(keys) - hits)
        return found

    async def get(self, key: str) -> bytes | None:
        return (await self.get_many([key]))[0]

    async def put(self, values: Mapping[str, bytes], seconds: float) -> None:
        """Keeps `values` for `seconds`, if it can."""
        if not self._client or not values or self._open():
            return
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for key, value in values.items():
                    pipe.set(key, value, px=int(seconds * 1000))
                await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            self._failed()

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    def _open(self) -> bool:
        return self._clock.monotonic() < self._closed_until

    def _failed(self) -> None:
        CACHE.labels("failed").inc()
        self._failures += 1
        if self._failures >= FAILURES:
            self._failures = 0
            self._closed_until = self._clock.monotonic() + REST_SECONDS
