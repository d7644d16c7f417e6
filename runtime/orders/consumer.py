"""Answers of inventory and payments move orders on; orders that hear nothing ask again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from runtime.batches import write_by_shard
from runtime.context import Context
from runtime.errors import Problem
from runtime.events import STREAM, Event, Poison, subject_of
from runtime.orders import kept, rules, store
from runtime.orders.rules import Advance, Order, Saga
from runtime.orders.store import Key
from runtime.pool import Connection
from runtime.shardmap import CATALOG, slot_of, slot_of_order
from runtime.shards import of_shard

log = logging.getLogger(__name__)

GROUP = "orders"
PAGE = 500
SWEEP_SECONDS = 3.0
FIRST = datetime(1970, 1, 1, tzinfo=UTC)


async def consume(context: Context) -> None:
    """Reads answers until cancelled."""
    await context.streams.consume(STREAM, GROUP, partial(handle, context), kinds=rules.ANSWERS)


async def handle(context: Context, events: Sequence[Event]) -> None:
    """Every order that `events` are about has heard them. Raises `Poison`, `Problem`."""
    heard: dict[Key, list[Event]] = {}
    for event in events:
        heard.setdefault(_key(event), []).append(event)
    decisions = {key: partial(_after, of_one) for key, of_one in heard.items()}
    traces = {key: of_one[-1].traceparent for key, of_one in heard.items()}
    await _decide(context, decisions, traces)


async def sweep(context: Context) -> None:
    """Asks again for orders that wait, where their shard has its home; until cancelled."""
    while True:
        for name, shard in context.routing.map.shards.items():
            if name != CATALOG and shard.home == context.settings.region:
                try:
                    await ask_again(context, name)
                except Problem as error:
                    data = {"shard": name, "reason": repr(error)}
                    log.warning("sweep", extra={"data": data})
        await context.clock.sleep(SWEEP_SECONDS)


async def ask_again(context: Context, shard: str, first: timedelta = rules.ASK_FIRST) -> int:
    """Sends the questions that are due once more. Returns how many."""
    after = (FIRST, 0)
    sent = 0
    while context.routing.map.slots_of(shard):

        async def page(
            connection: Connection, _: object, after: tuple[datetime, int] = after
        ) -> list[store.Waiting]:
            return await store.unsettled(connection, first.total_seconds(), after, PAGE)

        waiting = (await context.shards.read(of_shard(shard), page)).value
        due = {
            row.key: _again
            for row in waiting
            if row.asked is None or rules.ask_again_at(row.changed, row.asked, first) <= row.now
        }
        await _decide(context, due, {})
        sent += len(due)
        if len(waiting) < PAGE:
            break
        after = (waiting[-1].changed, waiting[-1].key[1])
    return sent


async def _decide(
    context: Context,
    decisions: Mapping[Key, store.Decide],
    traces: Mapping[Key, str | None],
) -> None:
    if not decisions:
        return

    async def work(connection: Connection, keys: Sequence[Key]) -> list[Order]:
        return await store.change(connection, {key: decisions[key] for key in keys}, traces)

    changing = kept.Changing(context, [id for _, id in decisions])
    await changing.begin()
    changed = await write_by_shard(
        context.shards, context.routing, list(decisions), lambda key: slot_of(key[0]), work
    )
    await changing.end(order for orders in changed for order in orders)


def _after(events: Sequence[Event], saga: Saga) -> Advance:
    return rules.advance_all(saga, events)


def _again(saga: Saga) -> Advance:
    return Advance(saga, rules.question(saga))


def _key(event: Event) -> Key:
    order_id, user_id = subject_of(event)
    if not 0 < order_id < 2**63 or not 0 < user_id < 2**63:
        raise Poison("ids are positive 63-bit integers")
    if slot_of_order(order_id) != slot_of(user_id):
        raise Poison(f"order {order_id} is not of user {user_id}")
    return user_id, order_id
