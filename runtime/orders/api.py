"""HTTP of orders."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Query, Response

from runtime.context import Background, Context
from runtime.errors import NotFound, Unavailable
from runtime.orders import rules, store
from runtime.orders.prices import Prices
from runtime.orders.schemas import NewOrder, Order, OrderPage
from runtime.outbox import Relay
from runtime.shards import Done, of_slot, of_user
from runtime.wire import (
    MAX_ID,
    IdempotencyKey,
    PositionHeader,
    answer,
    money,
    parse_id,
    parse_position,
    placed_at,
)


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes, and what runs beside them: the outbox relay and the keeping of prices."""
    prices = Prices(context)
    relay = Relay(context.settings, context.routing, context.shards, context.streams, context.clock)
    return _routes(context, prices), {"relay": relay.run, "prices": prices.warm}


def _routes(context: Context, prices: Prices) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/orders")

    @routes.post("", status_code=201, response_model=Order)
    async def place(body: NewOrder, key: IdempotencyKey = None) -> Response:
        done = await place_order(context, prices, body, key or secrets.token_hex(16))
        headers = placed_at(done, done.value.xid)
        if not done.value.fresh:
            headers["Idempotent-Replay"] = "true"
        return answer(_document(done.value.order), 201, headers)

    @routes.get("/{order_id}", response_model=Order)
    async def get(order_id: str, position: PositionHeader = None) -> Response:
        id = parse_id(order_id)
        done = await context.shards.read(
            of_slot(rules.slot_of_order(id)),
            lambda connection, _: store.get(connection, id),
            position=parse_position(position),
        )
        if done.value is None:
            raise NotFound(f"There is no order {order_id}.")
        return answer(_document(done.value), headers=placed_at(done))

    @routes.get("", response_model=OrderPage)
    async def page(
        user_id: str,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: str | None = None,
        position: PositionHeader = None,
    ) -> Response:
        user = parse_id(user_id)
        before = parse_id(cursor) if cursor else MAX_ID
        done = await context.shards.read(
            of_user(user),
            lambda connection, _: store.page(connection, user, before, limit + 1),
            position=parse_position(position),
        )
        orders = done.value[:limit]
        following = str(orders[-1].id) if len(done.value) > limit else None
        document = {"orders": [_document(order) for order in orders], "next": following}
        return answer(document, headers=placed_at(done))

    return routes


async def place_order(
    context: Context, prices: Prices, body: NewOrder, key: str
) -> Done[store.Placed]:
    """The order of `key`. Attempts inside use one order id, so a lost answer is found again."""
    user_id = int(body.user_id)
    items = rules.merged((item.sku, item.quantity) for item in body.items)
    known = await prices.lookup(items)
    digest = rules.digest(user_id, items)
    for _ in range(5):
        draft = rules.draft(user_id, items, known, context.clock.now(), secrets.randbits(12))
        work = partial(store.place, draft=draft, key=key, digest=digest)
        try:
            return await context.shards.write(of_user(user_id), work)
        except asyncpg.UniqueViolationError:
            continue
    raise Unavailable("No free order id was found.", hint="Try again with the same key.")


def _document(order: rules.Order) -> dict[str, Any]:
    return {
        "id": str(order.id),
        "user_id": str(order.user_id),
        "status": order.status,
        "total": money(order.total_cents, order.currency),
        "items": [
            {
                "sku": line.sku,
                "quantity": line.quantity,
                "unit_price": money(line.unit_price_cents, order.currency),
            }
            for line in order.lines
        ],
        "created_at": order.created_at.isoformat(),
    }
