"""All products at once, from the cache: a catalogue is read much more often than it changes.

The entry's version is the sum of the products' versions, which only grow, so an older catalogue
never replaces a newer one. Whoever changes the stock has it written anew, at most once a second;
and every process looks every few seconds whether somebody died before that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import astuple

from runtime.context import Context
from runtime.entries import Found, entry_key
from runtime.errors import Problem
from runtime.inventory import store
from runtime.inventory.rules import Listed, Product, listed
from runtime.shardmap import Placement
from runtime.shards import catalog

log = logging.getLogger(__name__)

TTL_SECONDS = 900.0
REWRITE_SECONDS = 1.0
CHECK_SECONDS = 5.0


class Shelf:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._dirty = asyncio.Event()
        self._parsed: tuple[int, Mapping[str, Listed]] | None = None

    async def products(self) -> Mapping[str, Listed]:
        """Every product, in order of SKU, about a second old at most while the databases live."""
        place = catalog(self._context.routing.map)
        found = await self._context.cache.fetch(_key(place), self._load, TTL_SECONDS)
        assert found is not None
        if self._parsed is None or self._parsed[0] != found.version:
            self._parsed = found.version, _parse(found.body)
        return self._parsed[1]

    def changed(self) -> None:
        """The stock is another: the entry is to be written soon."""
        self._dirty.set()

    async def run(self) -> None:
        """Writes the entry anew when it is to be, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            try:
                await self.rewrite()
            except Problem as error:
                log.warning("catalogue not rewritten", extra={"data": {"reason": str(error)}})
            await self._context.clock.sleep(REWRITE_SECONDS)

    async def rewrite(self) -> None:
        """The entry is as new as the primary. Raises `Problem`."""
        done = await self._context.shards.read(
            catalog, lambda connection, _: store.products(connection)
        )
        found = _encode(done.value)
        key = _key(done.place)
        await self._context.cache.renew(key, found.version, found.body, TTL_SECONDS)

    async def _load(self) -> Found:
        """From any copy, so that the catalogue is there while its primary fails over."""
        done = await self._context.shards.read(
            catalog, lambda connection, _: store.products(connection), any_copy=True
        )
        return _encode(done.value)


def _key(place: Placement) -> str:
    return entry_key("products", place, "all")


def _encode(products: list[Product]) -> Found:
    version = sum(product.version for product in products)
    return Found(version, json.dumps([astuple(product) for product in products]).encode())


def _parse(body: bytes) -> dict[str, Listed]:
    products = (Product(*row) for row in json.loads(body))
    return {product.sku: listed(product) for product in products}
