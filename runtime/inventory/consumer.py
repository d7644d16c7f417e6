"""Takes stock for the orders that were placed: once each, however often an event comes."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.context import Context
from runtime.events import STREAM, Event
from runtime.inventory import store
from runtime.inventory.rules import demand_of
from runtime.shards import catalog

GROUP = "inventory"


async def consume(context: Context) -> None:
    """Reads order events until cancelled."""

    async def handle(events: Sequence[Event]) -> None:
        demands = [demand for event in events if (demand := demand_of(event))]
        if demands:
            await context.shards.write(
                catalog, lambda connection, place: store.record(connection, place, demands)
            )

    await context.streams.consume(STREAM, GROUP, handle)
