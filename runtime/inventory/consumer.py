"""Answers what orders ask of the stock: once each, however often an event comes."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.context import Context
from runtime.events import STREAM, Event
from runtime.inventory import store
from runtime.inventory.rules import question_of
from runtime.inventory.shelf import Shelf
from runtime.shards import catalog

GROUP = "inventory"


async def consume(context: Context, shelf: Shelf) -> None:
    """Reads order events until cancelled."""

    async def handle(events: Sequence[Event]) -> None:
        questions = [question for event in events if (question := question_of(event))]
        if not questions:
            return
        done = await context.shards.write(
            catalog, lambda connection, place: store.record(connection, place, questions)
        )
        if done.value:
            shelf.changed()

    await context.streams.consume(STREAM, GROUP, handle)
