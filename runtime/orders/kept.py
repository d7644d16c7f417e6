"""Orders in the region's cache: as JSON, beside the user whose they are."""

from __future__ import annotations

import json
from collections.abc import Iterable

from runtime.context import Context
from runtime.entries import Found, entry_key
from runtime.orders import store
from runtime.orders.rules import Order
from runtime.orders.schemas import document
from runtime.shardmap import Placement, slot_of_order
from runtime.shards import of_slot

KEEP_SECONDS = 300.0


def found(order: Order) -> Found:
    text = json.dumps(document(order), separators=(",", ":"))
    return Found(order.version, b"%d:%b" % (order.user_id, text.encode()))


def owner_and_body(entry: Found) -> tuple[int, bytes]:
    owner, _, body = entry.body.partition(b":")
    return int(owner), body


def key_of(place: Placement, id: int) -> str:
    return entry_key("order", place, id)


def place_of(context: Context, id: int) -> Placement:
    return context.routing.map.place(slot_of_order(id))


async def fetch(context: Context, id: int) -> tuple[Found | None, Placement]:
    """The order from the cache, else from the primary; None when there is none."""
    place = place_of(context, id)

    async def load() -> Found | None:
        done = await context.shards.read(
            of_slot(slot_of_order(id)), lambda connection, _: store.get(connection, id)
        )
        return found(done.value) if done.value else None

    if not context.routing.map.all_at_home_in(context.settings.region):
        return await load(), place
    return await context.cache.fetch(key_of(place, id), load, KEEP_SECONDS), place


def add(context: Context, place: Placement, order: Order) -> None:
    """An order that was just made."""
    made = found(order)
    context.cache.add(key_of(place, order.id), made.version, made.body, KEEP_SECONDS)


class Changing:
    """Around a change of orders: forgotten before the commit, put as they are after it."""

    def __init__(self, context: Context, ids: Iterable[int]) -> None:
        self._context = context
        self._keys = {id: key_of(place_of(context, id), id) for id in ids}
        self._mark = ""

    async def begin(self) -> None:
        """May be called by each attempt of a write: the first counts."""
        if not self._mark:
            self._mark = await self._context.cache.forget(self._keys.values())

    async def end(self, orders: Iterable[Order]) -> None:
        """`orders` are those that changed.

        An order whose shard got another epoch meanwhile is not put: nobody can say under which
        of the two it was committed.
        """
        left = dict(self._keys)
        for order in orders:
            key = key_of(place_of(self._context, order.id), order.id)
            if left.get(order.id) == key:
                del left[order.id]
                now = found(order)
                await self._context.cache.put(key, now.version, now.body, KEEP_SECONDS, self._mark)
        await self._context.cache.lift(left.values(), self._mark)
