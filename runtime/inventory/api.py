"""HTTP of inventory: the public product list."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Header, Response

from runtime.context import Background, Context
from runtime.inventory import store
from runtime.inventory.consumer import consume
from runtime.inventory.rules import Product
from runtime.inventory.schemas import ProductList
from runtime.shards import catalog
from runtime.wire import money

KEY = "products"
FRESH_SECONDS = 1.0
CACHE_CONTROL = "public, max-age=1, stale-if-error=60"


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes, and the consumer that takes stock."""
    return _routes(context), {"consumer": lambda: consume(context)}


def _routes(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/products")

    @routes.get("", response_model=ProductList)
    async def products(
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        body = await product_list(context)
        tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers = {"ETag": tag, "Cache-Control": CACHE_CONTROL}
        if if_none_match and tag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    return routes


async def product_list(context: Context) -> bytes:
    """The list as JSON: up to a second old, and from any copy of the catalog."""
    cached = (await context.cache.get_many([KEY]))[0]
    if cached is not None:
        return cached
    done = await context.shards.read(
        catalog, lambda connection, _: store.products(connection), any_copy=True
    )
    body = json.dumps({"products": [_document(product) for product in done.value]}).encode()
    await context.cache.put_many({KEY: body}, FRESH_SECONDS)
    return body


def _document(product: Product) -> dict[str, object]:
    return {
        "sku": product.sku,
        "name": product.name,
        "price": money(product.price_cents, product.currency),
        "stock": product.stock,
    }
