"""What happened, as numbered rows, and how a waiting follower learns of the next one.

An event's `sequence` only grows, so a follower that was cut off goes on after the last it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

JSON = dict[str, Any]

FINAL = frozenset({"operation-succeeded", "operation-failed", "operation-aborted"})


@dataclass(frozen=True)
class Event:
    """`monotonic` is CLOCK_MONOTONIC in seconds; `operation` is None for what no operation did."""

    sequence: int
    operation: str | None
    kind: str
    at: datetime
    monotonic: float
    data: JSON

    def to_json(self) -> JSON:
        return {
            "sequence": self.sequence,
            "operation": self.operation,
            "kind": self.kind,
            "at": self.at.isoformat(),
            "monotonic": self.monotonic,
            "data": self.data,
        }


class Bell:
    """Wakes everybody who waits. A ring between `listen` and the wait is not missed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        rung, self._next = self._next, asyncio.Event()
        rung.set()

    def listen(self) -> asyncio.Event:
        """The event that the next ring sets: take it before looking, wait for it after."""
        return self._next


async def follow(
    read: Callable[[int], Awaitable[Sequence[Event]]],
    bell: Bell,
    *,
    after: int,
    idle_seconds: float,
) -> AsyncIterator[Event | None]:
    """Every event after `after`, for ever; None each `idle_seconds` without one."""
    while True:
        rung = bell.listen()
        events = await read(after)
        for event in events:
            after = event.sequence
            yield event
        if events:
            continue
        with suppress(TimeoutError):
            await asyncio.wait_for(rung.wait(), idle_seconds)
            continue
        yield None
