"""Brings payments to their end: asks the gateway what their rows want to know, writes it down.

A row is written before the gateway is asked, and the gateway is asked under the same key each
time, so whoever dies between the two is followed by another who asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from runtime.batches import write_by_shard
from runtime.context import Context
from runtime.errors import Problem
from runtime.payments import store
from runtime.payments.gateway import Gateway
from runtime.payments.rules import (
    Change,
    NothingCharged,
    Payment,
    Turn,
    key_may_be_forgotten,
    next_step,
)
from runtime.shardmap import slot_of

AT_ONCE = 16


class Settler:
    """Shared by the consumer, the webhook and the reconciler of one process."""

    def __init__(self, context: Context, gateway: Gateway) -> None:
        self._context = context
        self._gateway = gateway
        self._gate = asyncio.Semaphore(AT_ONCE)
        # When the gateway last answered, on the monotonic clock.
        self.answered_at = float("-inf")

    async def record(self, turns: Sequence[Turn]) -> list[Payment]:
        """The payments after `turns`, written and told. Raises `Unavailable`."""
        if not turns:
            return []
        groups = await write_by_shard(
            self._context.shards,
            self._context.routing,
            turns,
            lambda turn: slot_of(turn.user_id),
            store.apply,
        )
        return [payment for group in groups for payment in group]

    async def settle(
        self, payments: Iterable[Payment], traces: Mapping[int, str | None] | None = None
    ) -> tuple[int, list[Problem]]:
        """Asks for all of `payments` at once and writes each answer as it comes.

        Returns how many answers came, and why others did not: one that is slow or fails keeps
        nobody waiting. `traces` has traceparents by order id. Raises `Unavailable` when the
        database is away.
        """
        answered = 0
        problems: list[Problem] = []
        asked = {asyncio.create_task(self._ask(p, traces or {})) for p in payments if next_step(p)}
        try:
            while asked:
                done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                turns: list[Turn] = []
                for task in done:
                    try:
                        turns.append(task.result())
                    except Problem as problem:
                        problems.append(problem)
                answered += len(turns)
                for payment in await self.record(turns):
                    if next_step(payment):
                        asked.add(asyncio.create_task(self._ask(payment, traces or {})))
        finally:
            for task in asked:
                task.cancel()
        return answered, problems

    async def _ask(self, payment: Payment, traces: Mapping[int, str | None]) -> Turn:
        trace = traces.get(payment.order_id)
        async with self._gate:
            change = await self._answer(payment)
        self.answered_at = self._context.clock.monotonic()
        return Turn(payment.user_id, payment.order_id, change, trace)

    async def _answer(self, payment: Payment) -> Change:
        match next_step(payment):
            case "charge":
                if key_may_be_forgotten(payment, self._context.clock.now()):
                    found = await self._gateway.look(payment.order_id)
                    if not isinstance(found, NothingCharged):
                        return found
                return await self._gateway.charge(payment)
            case "refund" if payment.transaction_id:
                return await self._gateway.refund(payment.order_id, payment.transaction_id)
            case _:
                return await self._gateway.look(payment.order_id)
