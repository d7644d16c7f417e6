"""Prices as this process last knew them, so that orders go on while the catalog fails over.

A known price is used at once, and asked for again in the background when it is older than
`FRESH_SECONDS`. Only a SKU that was never seen makes a request wait. Whoever changes a product
announces it in the cache, where every process looks twice a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from runtime.context import Context
from runtime.errors import Problem
from runtime.orders import store
from runtime.orders.rules import Price
from runtime.position import Position
from runtime.shards import catalog

FRESH_SECONDS = 5.0
AGAIN_SECONDS = 30.0
LOOK_SECONDS = 0.5
CHANGED = "prices:changed"


async def announce(context: Context, position: str) -> None:
    """Prices or names of products are others since the write at `position`."""
    await context.cache.put_many({CHANGED: position.encode()}, 2 * AGAIN_SECONDS)


class Prices:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, tuple[Price, float]] = {}
        self._refresh: asyncio.Task[None] | None = None
        self._announced: bytes | None = None

    async def lookup(self, skus: Iterable[str]) -> dict[str, Price]:
        """The prices of those of `skus` that exist."""
        wanted = list(skus)
        unseen = [sku for sku in wanted if sku not in self._known]
        if unseen:
            await self._load(unseen)
        now = self._context.clock.monotonic()
        if (self._refresh is None or self._refresh.done()) and any(
            now - self._known[sku][1] > FRESH_SECONDS for sku in wanted if sku in self._known
        ):
            self._refresh = asyncio.create_task(self._again())
        return {sku: self._known[sku][0] for sku in wanted if sku in self._known}

    async def warm(self) -> None:
        """Learns every price once, then again and again, until cancelled."""
        await self._load(None)
        loaded = self._context.clock.monotonic()
        while True:
            await self._context.clock.sleep(LOOK_SECONDS)
            [announced] = await self._context.cache.get_many([CHANGED])
            news = announced if announced != self._announced else None
            now = self._context.clock.monotonic()
            if news or now - loaded >= AGAIN_SECONDS:
                await self._again(news)
                loaded = now
                self._announced = announced or self._announced

    async def _again(self, since: bytes | None = None) -> None:
        """Asks for the known prices, from a copy that has the write at `since`."""
        try:
            position = Position.parse(since.decode()) if since else None
            await self._load(list(self._known) or None, position)
        except Problem:
            # The catalog is away: the known prices stand, and are tried again in a while.
            now = self._context.clock.monotonic()
            self._known = {sku: (price, now) for sku, (price, _) in self._known.items()}

    async def _load(self, skus: Sequence[str] | None, position: Position | None = None) -> None:
        done = await self._context.shards.read(
            catalog,
            lambda connection, _: store.prices(connection, skus),
            position=position,
            any_copy=position is None,
        )
        self._learn(done.value)

    def _learn(self, prices: Mapping[str, Price]) -> None:
        now = self._context.clock.monotonic()
        self._known.update({sku: (price, now) for sku, price in prices.items()})
