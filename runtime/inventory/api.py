"""HTTP of inventory: the public product list, an admin's changes of it, and static files."""

from __future__ import annotations

import hashlib
import secrets
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from runtime import audit
from runtime.context import Background, Context
from runtime.errors import NotFound
from runtime.inventory import rules, static, store
from runtime.inventory.consumer import consume
from runtime.inventory.schemas import Product, ProductChange, ProductPage, Sku
from runtime.inventory.shelf import Shelf
from runtime.orders.prices import announce
from runtime.outbox import Relay
from runtime.pool import Connection
from runtime.shardmap import CATALOG, Placement
from runtime.shards import catalog
from runtime.wire import (
    SECURED,
    IdempotencyKey,
    IfNoneMatch,
    answer,
    compact,
    money,
    placed_at,
    tag_of,
    tagged,
)

# Short, because stock changes; long enough for the edge to answer most of a flood.
CACHE_CONTROL = "public, max-age=2, stale-if-error=60"

Cursor = Annotated[str, Query(max_length=100)]
Search = Annotated[str, Query(max_length=100)]
SkuPath = Annotated[str, Path(min_length=1, max_length=100)]


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes; the consumer that takes stock, the relay of its answers, and the cache's
    catalogue."""
    shelf = Shelf(context)
    relay = Relay(
        context.settings,
        context.routing,
        context.shards,
        context.streams,
        context.clock,
        databases=[CATALOG],
    )
    routes = APIRouter()
    routes.include_router(_public(shelf))
    routes.include_router(_private(context, shelf))
    routes.include_router(static.routes(context.settings.entry_url))
    background: Background = {
        "consumer": lambda: consume(context, shelf),
        "relay": relay.run,
        "shelf": shelf.run,
    }
    return routes, background


def _public(shelf: Shelf) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/products")

    @routes.get("", response_model=ProductPage)
    async def products(
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: Cursor = "",
        q: Search = "",
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        here, following = rules.page((await shelf.products()).values(), q, cursor, limit)
        document = {"products": [_document(product) for product in here], "next": following}
        return _cacheable(document, if_none_match)

    @routes.get("/{sku}", response_model=Product)
    async def product(sku: SkuPath, if_none_match: IfNoneMatch = None) -> Response:
        found = (await shelf.products()).get(sku)
        if found is None:
            raise NotFound(f"There is no product {sku!r}.", hint="GET /api/v1/products lists them.")
        return _cacheable(_document(found.product), if_none_match)

    return routes


def _private(context: Context, shelf: Shelf) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/products")

    @routes.patch("/{sku}", response_model=Product, openapi_extra=SECURED)
    async def change(
        request: Request, sku: Sku, body: ProductChange, key: IdempotencyKey = None
    ) -> Response:
        await audit.require_admin(context.shards, request, "product.change", f"product:{sku}")
        wish = store.Edit(
            sku=sku,
            key=_movement_id(sku, key or secrets.token_hex(16)),
            name=body.name,
            price_cents=rules.cents_of(body.price.amount) if body.price else None,
            currency=body.price.currency if body.price else None,
            add=body.add_stock,
        )
        work = partial(_change, wish=wish, origin=audit.origin_of(request))
        done = await context.shards.write(catalog, work)
        product, xid = done.value
        headers = placed_at(done, xid)
        await shelf.rewrite()
        await announce(context, headers["X-Regionctl-Position"])
        return answer(_document(product), headers=headers)

    return routes


async def _change(
    connection: Connection, place: Placement, *, wish: store.Edit, origin: audit.Origin
) -> tuple[rules.Product, int]:
    """The product changed and that recorded, or neither."""
    wished = {
        "name": wish.name, "price_cents": wish.price_cents, "currency": wish.currency,
        "add": wish.add or None,
    }  # fmt: skip
    detail = {name: value for name, value in wished.items() if value is not None}
    event = audit.Event("product.change", "allowed", f"product:{wish.sku}", origin, detail)
    async with connection.transaction():
        changed = await store.edit(connection, place, wish)
        await audit.record(connection, place, event)
    return changed


def _cacheable(document: object, if_none_match: str | None) -> Response:
    body = compact(document)
    return tagged(body, tag_of(body), if_none_match, {"Cache-Control": CACHE_CONTROL})


def _movement_id(sku: str, key: str) -> int:
    digest = hashlib.blake2b(f"{sku} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1 or 1


def _document(product: rules.Product) -> dict[str, object]:
    return {
        "sku": product.sku,
        "name": product.name,
        "price": money(product.price_cents, product.currency),
        "stock": product.stock,
    }
