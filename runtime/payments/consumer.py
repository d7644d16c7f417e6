"""Charges the orders that were placed, and returns the money of those that were cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from runtime.context import Context
from runtime.errors import Problem
from runtime.events import STREAM, Event
from runtime.payments.rules import Payment, turn_of
from runtime.payments.settle import Settler

log = logging.getLogger(__name__)

GROUP = "payments"
# A batch that a living gateway is slow with is left to itself after so many seconds, and the next
# one is read: its rows are written, so its events have done their part.
SLOW_SECONDS = 1.0
LIVING_SECONDS = 5.0
LEFT = 4
# An event whose payment has waited this long is let go: the reconciler brings the row to its end.
PATIENCE = timedelta(seconds=60)

Settling = asyncio.Task[tuple[int, list[Problem]]]


class Consumer:
    def __init__(self, context: Context, settler: Settler) -> None:
        self._context = context
        self._settler = settler
        self._left: set[Settling] = set()

    async def run(self) -> None:
        """Reads order events until cancelled."""
        try:
            await self._context.streams.consume(STREAM, GROUP, self.take)
        finally:
            for task in self._left:
                task.cancel()

    async def take(self, events: Sequence[Event]) -> None:
        """Every event's payment has a row, and is settled, or will be by the reconciler.

        Raises `Poison`, and `Unavailable` while the gateway answers nothing at all: the events
        wait.
        """
        turns = [turn for event in events if (turn := turn_of(event))]
        if not turns:
            return
        payments = await self._settler.record(turns)
        traces = {turn.order_id: turn.traceparent for turn in turns}
        task = asyncio.create_task(self._settler.settle(payments, traces))
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        while not (await asyncio.wait({task}, timeout=SLOW_SECONDS))[0]:
            if self._living() and len(self._left) < LEFT:
                task.add_done_callback(_note)
                return
        answered, problems = task.result()
        if problems and not answered and not self._waited(payments):
            raise problems[0]
        _note(task)

    def _living(self) -> bool:
        """Whether the gateway has answered anything lately."""
        return self._context.clock.monotonic() - self._settler.answered_at < LIVING_SECONDS

    def _waited(self, payments: Sequence[Payment]) -> bool:
        oldest = self._context.clock.now() - PATIENCE
        return all(payment.updated_at and payment.updated_at < oldest for payment in payments)


def _note(task: Settling) -> None:
    """The rows that nothing was learned about stay pending, and are asked about again."""
    if task.cancelled():
        return
    error = task.exception()
    if error:
        log.warning("payments left pending", extra={"data": {"reason": repr(error)}})
        return
    _, problems = task.result()
    if problems:
        data = {"payments": len(problems), "reason": problems[0].detail}
        log.warning("payments left pending", extra={"data": data})
