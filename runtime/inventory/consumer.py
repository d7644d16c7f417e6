"""Answers what orders ask of the stock: once each, however often an event comes."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.context import Context
from runtime.events import STREAM, Event
from runtime.inventory import store
from runtime.inventory.rules import question_of
from runtime.inventory.shelf import Shelf
from runtime.pool import Connection
from runtime.shardmap import Placement
from runtime.shards import catalog

GROUP = "inventory"


async def consume(context: Context, shelf: Shelf) -> None:
    """Reads order events until cancelled."""

    async def handle(events: Sequence[Event]) -> None:
        asked = [(event, question) for event in events if (question := question_of(event))]
        if not asked:
            return

        async def work(connection: Connection, place: Placement) -> bool:
            # Asked in each attempt: one that waited for the catalog may have waited until the
            # orders had their home in another region, which may lack some of them.
            here = [question for event, question in asked if not context.streams.elsewhere(event)]
            return bool(here) and await store.record(connection, place, here)

        done = await context.shards.write(catalog, work)
        if done.value:
            shelf.changed()

    await context.streams.consume(STREAM, GROUP, handle)
