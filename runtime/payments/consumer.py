"""Charges the orders that were placed, and returns the money of those that were cancelled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from runtime.context import Context
from runtime.events import STREAM, Event
from runtime.payments.rules import Payment, turn_of
from runtime.payments.settle import Settler

log = logging.getLogger(__name__)

GROUP = "payments"
# An event whose payment has waited this long is let go: the reconciler brings the row to its end.
PATIENCE = timedelta(seconds=60)


async def consume(context: Context, settler: Settler) -> None:
    """Reads order events until cancelled."""

    async def handle(events: Sequence[Event]) -> None:
        await take(context, settler, events)

    await context.streams.consume(STREAM, GROUP, handle)


async def take(context: Context, settler: Settler, events: Sequence[Event]) -> None:
    """Every event's payment has a row, and is settled, or will be by the reconciler.

    Raises `Poison`, and `Unavailable` while the gateway answers nothing at all: the events wait.
    """
    turns = [turn for event in events if (turn := turn_of(event))]
    if not turns:
        return
    payments = await settler.record(turns)
    traces = {turn.order_id: turn.traceparent for turn in turns}
    answered, problems = await settler.settle(payments, traces)
    if not problems:
        return
    if not answered and not _waited(context, payments):
        raise problems[0]
    data = {"payments": len(problems), "reason": problems[0].detail}
    log.warning("payments left pending", extra={"data": data})


def _waited(context: Context, payments: Sequence[Payment]) -> bool:
    oldest = context.clock.now() - PATIENCE
    return all(payment.updated_at and payment.updated_at < oldest for payment in payments)
