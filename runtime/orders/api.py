"""HTTP of orders."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Query, Request, Response

from runtime import tracing
from runtime.context import Background, Context
from runtime.errors import Invalid, NotFound, Unavailable
from runtime.identity import Caller, caller
from runtime.orders import consumer, kept, rules, search, store
from runtime.orders.prices import Prices
from runtime.orders.schemas import NewOrder, Order, OrderPage, document
from runtime.outbox import GUARD, Relay
from runtime.pool import Connection
from runtime.shardmap import Placement, slot_of_order
from runtime.shards import Done, of_slot, of_user
from runtime.wire import (
    MAX_ID,
    PRIVATE,
    SECURED,
    CacheControl,
    IdempotencyKey,
    IfNoneMatch,
    PositionHeader,
    answer,
    cached_at,
    compact,
    parse_id,
    parse_position,
    placed_at,
    tag_of,
    tagged,
)

Limit = Annotated[int, Query(ge=1, le=100)]
Words = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes, and what runs beside them."""
    prices = Prices(context)
    relay = Relay(context.settings, context.routing, context.shards, context.streams, context.clock)
    routes = APIRouter(prefix="/api/v1/orders")
    _add_writes(routes, context, prices)
    # Before the reads, or "search" would be taken for an order's id.
    _add_search(routes, context)
    _add_reads(routes, context)
    return routes, {
        "relay": relay.run,
        "prices": prices.warm,
        "consumer": partial(consumer.consume, context),
        "sweeper": partial(consumer.sweep, context),
    }


def _add_writes(routes: APIRouter, context: Context, prices: Prices) -> None:
    @routes.post("", status_code=201, response_model=Order, openapi_extra=SECURED)
    async def place(request: Request, body: NewOrder, key: IdempotencyKey = None) -> Response:
        user_id = _owner(caller(request), body.user_id)
        done = await place_order(context, prices, user_id, body, key or secrets.token_hex(16))
        headers = placed_at(done, done.value.xid)
        if done.value.fresh:
            kept.add(context, done.place, done.value.order)
        else:
            headers["Idempotent-Replay"] = "true"
        return answer(document(done.value.order), 201, headers)

    @routes.post("/{order_id}/cancel", response_model=Order, openapi_extra=SECURED)
    async def cancel(request: Request, order_id: str, key: IdempotencyKey = None) -> Response:
        """Cancelling again, with whichever key, changes nothing and answers the same."""
        who, id = caller(request), parse_id(order_id)
        done = await cancel_order(context, who, id)
        order, xid = done.value
        return answer(document(order), headers=placed_at(done, xid))


def _add_search(routes: APIRouter, context: Context) -> None:
    @routes.get("/search", response_model=OrderPage, openapi_extra=SECURED)
    async def found(
        request: Request,
        q: Words,
        user_id: str | None = None,
        limit: Limit = 20,
        cursor: str | None = None,
        position: PositionHeader = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Orders with these words in their products; of everybody, if an admin names no user."""
        who = caller(request)
        seen = parse_position(position)
        everybody = who.role != "user" and user_id is None
        orders = await search.find(
            context,
            q,
            user_id=None if everybody else _owner(who, user_id),
            before=parse_id(cursor) if cursor else MAX_ID,
            limit=limit + 1,
            position=None if everybody else seen,
        )
        return _page(orders, limit, if_none_match)


def _add_reads(routes: APIRouter, context: Context) -> None:
    @routes.get("/{order_id}", response_model=Order, openapi_extra=SECURED)
    async def get(
        request: Request,
        order_id: str,
        position: PositionHeader = None,
        if_none_match: IfNoneMatch = None,
        cache_control: CacheControl = None,
    ) -> Response:
        who, id = caller(request), parse_id(order_id)
        if position or (cache_control and "no-cache" in cache_control):
            done = await context.shards.read(
                of_slot(slot_of_order(id)),
                lambda connection, _: store.get(connection, id),
                position=parse_position(position),
            )
            entry = kept.found(done.value) if done.value else None
            place, headers = done.place, placed_at(done)
        else:
            entry, place = await kept.fetch(context, id)
            headers = cached_at(place)
        if entry is None:
            raise NotFound(f"There is no order {order_id}.")
        owner, body = kept.owner_and_body(entry)
        if not who.may_act_for(owner):
            raise NotFound(f"There is no order {order_id}.")
        tag = f'"{place.epoch}.{entry.version}"'
        return tagged(body, tag, if_none_match, headers | PRIVATE)

    @routes.get("", response_model=OrderPage, openapi_extra=SECURED)
    async def page(
        request: Request,
        user_id: str | None = None,
        limit: Limit = 20,
        cursor: str | None = None,
        position: PositionHeader = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        user = _owner(caller(request), user_id)
        before = parse_id(cursor) if cursor else MAX_ID
        done = await context.shards.read(
            of_user(user),
            lambda connection, _: store.page(connection, user, before, limit + 1),
            position=parse_position(position),
        )
        return _page(done.value, limit, if_none_match, placed_at(done))


async def place_order(
    context: Context, prices: Prices, user_id: int, body: NewOrder, key: str
) -> Done[store.Placed]:
    """The order of `key`. Attempts inside use one order id, so a lost answer is found again."""
    items = rules.merged((item.sku, item.quantity) for item in body.items)
    method = body.payment_method
    known = await prices.lookup(items)
    digest = rules.digest(user_id, items, method)
    trace = tracing.traceparent()
    for _ in range(5):
        now, bits = context.clock.now(), secrets.randbits(12)
        draft = rules.draft(user_id, items, known, method, now, bits)
        work = partial(store.place, draft=draft, key=key, digest=digest, traceparent=trace)
        try:
            return await context.shards.write(of_user(user_id), work)
        except asyncpg.UniqueViolationError:
            continue
    raise Unavailable("No free order id was found.", hint="Try again with the same key.")


async def cancel_order(context: Context, who: Caller, id: int) -> Done[tuple[rules.Order, int]]:
    """The order, cancelled, and the transaction to wait for. Raises `NotFound`."""
    trace = tracing.traceparent()
    changing = kept.Changing(context, [id])

    async def work(connection: Connection, place: Placement) -> tuple[rules.Order, int] | None:
        async with connection.transaction():
            await connection.execute(GUARD, place.slot, place.epoch)
            order = await store.get(connection, id)
            if order is None or not who.may_act_for(order.user_id):
                return None
            await changing.begin()
            key = (order.user_id, id)
            changed = await store.change(connection, {key: rules.cancel}, {key: trace})
            xid = await store.confirm(connection)
            if not changed and order.saga.status != "cancelled":
                # Cancelled by somebody else between the two looks.
                order = await store.get(connection, id) or order
            return (changed or [order])[0], xid

    done = await context.shards.write(of_slot(slot_of_order(id)), work)
    if done.value is None:
        raise NotFound(f"There is no order {id}.")
    await changing.end([done.value[0]])
    return Done(done.value, done.place, done.endpoint)


def _owner(who: Caller, user_id: str | None) -> int:
    """Whose orders are meant. Raises `NotFound` for somebody else's, `Invalid` for nobody's."""
    if user_id is None:
        if who.user_id is None:
            raise Invalid("This client is no user: say for whom.", hint="Give user_id.")
        return who.user_id
    owner = parse_id(user_id)
    if not who.may_act_for(owner):
        raise NotFound(f"There is no user {owner}.")
    return owner


def _page(
    orders: Sequence[rules.Order],
    limit: int,
    if_none_match: str | None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The first `limit` of `orders`, and where to go on if there are more."""
    shown = orders[:limit]
    following = str(shown[-1].id) if len(orders) > limit else None
    content = {"orders": [document(order) for order in shown], "next": following}
    body = compact(content)
    return tagged(body, tag_of(body), if_none_match, {**(headers or {}), **PRIVATE})
