"""Prices as this process last knew them, so that orders go on while the catalog fails over.

A known price is used at once, and asked for again in the background when it is older than
`FRESH_SECONDS`. Only a SKU that was never seen makes a request wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence

from runtime.context import Context
from runtime.errors import Problem
from runtime.orders import store
from runtime.orders.rules import Price
from runtime.shards import catalog

FRESH_SECONDS = 5.0
CACHE_SECONDS = 30.0
PREFIX = "price:"


class Prices:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, tuple[Price, float]] = {}
        self._refresh: asyncio.Task[None] | None = None

    async def lookup(self, skus: Iterable[str]) -> dict[str, Price]:
        """The prices of those of `skus` that exist."""
        wanted = list(skus)
        unseen = [sku for sku in wanted if sku not in self._known]
        if unseen:
            await self._fetch_unseen(unseen)
        now = self._context.clock.monotonic()
        if (self._refresh is None or self._refresh.done()) and any(
            now - self._known[sku][1] > FRESH_SECONDS for sku in wanted if sku in self._known
        ):
            self._refresh = asyncio.create_task(self._again())
        return {sku: self._known[sku][0] for sku in wanted if sku in self._known}

    async def warm(self) -> None:
        """Learns every price once, then again and again, until cancelled."""
        await self._load(None)
        while True:
            await self._context.clock.sleep(CACHE_SECONDS)
            await self._again()

    async def _again(self) -> None:
        try:
            await self._load(list(self._known) or None)
        except Problem:
            # The catalog is away: the known prices stand, and are tried again in a while.
            now = self._context.clock.monotonic()
            self._known = {sku: (price, now) for sku, (price, _) in self._known.items()}

    async def _fetch_unseen(self, skus: Sequence[str]) -> None:
        cached = await self._context.cache.get_many([PREFIX + sku for sku in skus])
        found: dict[str, Price] = {}
        for sku, value in zip(skus, cached, strict=True):
            if value is not None:
                found[sku] = Price(*json.loads(value))
        self._learn(found)
        missing = [sku for sku in skus if sku not in found]
        if missing:
            await self._load(missing)

    async def _load(self, skus: Sequence[str] | None) -> None:
        done = await self._context.shards.read(
            catalog, lambda connection, _: store.prices(connection, skus), any_copy=True
        )
        self._learn(done.value)
        await self._context.cache.put_many(
            {
                PREFIX + sku: json.dumps([price.cents, price.currency]).encode()
                for sku, price in done.value.items()
            },
            CACHE_SECONDS,
        )

    def _learn(self, prices: Mapping[str, Price]) -> None:
        now = self._context.clock.monotonic()
        self._known.update({sku: (price, now) for sku, price in prices.items()})
