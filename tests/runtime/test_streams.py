"""An event that was delivered often is set aside for its own fault only, never for an outage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from runtime.errors import Unavailable
from runtime.events import Event
from runtime.streams import DELIVERIES, _Reader, encode


class WornQueue:
    """A queue with one entry that was delivered too often; remembers what was done with it."""

    def __init__(self) -> None:
        fields = encode(Event(1, "OrderCreated", {})).items()
        self.entry = (b"1-0", {key.encode(): value.encode() for key, value in fields})
        self.done: list[str] = []

    async def xautoclaim(self, *_: Any, **__: Any) -> Any:
        return [b"0-0", [self.entry], []]

    async def xpending_range(self, *_: Any, **__: Any) -> Any:
        return [{"message_id": self.entry[0], "times_delivered": DELIVERIES + 1}]

    async def xadd(self, stream: str, *_: Any, **__: Any) -> None:
        self.done.append(f"added to {stream}")

    async def xack(self, *_: Any) -> None:
        self.done.append("acknowledged")


def reader(error: Exception | None) -> Any:
    async def handle(_: Sequence[Event]) -> None:
        if error:
            raise error

    return _Reader("events", "group", "me", handle)


async def test_during_an_outage_it_stays_in_the_queue() -> None:
    queue = WornQueue()
    with pytest.raises(Unavailable):
        await reader(Unavailable("the catalog does not answer")).claim(queue)
    assert queue.done == []


async def test_after_the_outage_it_is_handled() -> None:
    queue = WornQueue()
    await reader(None).claim(queue)
    assert queue.done == ["acknowledged"]


async def test_a_defect_that_it_causes_every_time_sets_it_aside() -> None:
    queue = WornQueue()
    await reader(KeyError("sku")).claim(queue)
    assert queue.done == ["added to events.dead", "acknowledged"]
