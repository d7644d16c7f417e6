"""Now, and sleep: the only two ways in which code here meets time.

Everything that waits takes a `Clock`, so that a test moves time instead of waiting for it.
`monotonic` is CLOCK_MONOTONIC, which every process on one machine shares: times taken in two
processes may be subtracted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from runtime.errors import TimedOut

T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall-clock time, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that jumps: `sleep` returns at once, that much later."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


async def wait_until(
    clock: Clock,
    condition: Callable[[], Awaitable[T | None]],
    *,
    what: str,
    seconds: float,
    every: float = 0.05,
    hint: str | None = None,
) -> T:
    """The first value of `condition` that is neither None nor False, asked each `every` seconds.

    Raises `TimedOut`, saying `what` was awaited, when `seconds` have gone by.
    """
    deadline = clock.monotonic() + seconds
    while True:
        value = await condition()
        if value is not None and value is not False:
            return value
        if clock.monotonic() >= deadline:
            raise TimedOut(f"Waited {seconds:g} s for {what}; it did not happen.", hint=hint)
        await clock.sleep(every)
