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
GATHER_SECONDS = 0.1


class Settler:
    """Shared by the consumer, the webhook and the reconciler of one process."""

    def __init__(self, context: Context, gateway: Gateway) -> None:
        self._context = context
        self._gateway = gateway
        self._gate = asyncio.Semaphore(AT_ONCE)
        # When the gateway last answered, on the monotonic clock.
        self.answered_at = float("-inf")
        self._gathered: tuple[list[Turn], asyncio.Task[dict[tuple[int, int], Payment]]] | None = (
            None
        )

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

    async def note(self, turn: Turn) -> Payment | None:
        """The payment after `turn`, recorded together with what else comes within a moment.

        None when this database does not have its order. Raises `Unavailable`. Answers and webhooks
        come one by one, and a transaction for each would cost several times as much.
        """
        if self._gathered is None:
            self._gathered = [], asyncio.create_task(self._record_gathered())
            self._gathered[1].add_done_callback(_retrieve)
        turns, recorded = self._gathered
        turns.append(turn)
        return (await asyncio.shield(recorded)).get((turn.user_id, turn.order_id))

    async def _record_gathered(self) -> dict[tuple[int, int], Payment]:
        await self._context.clock.sleep(GATHER_SECONDS)
        assert self._gathered is not None
        turns, _ = self._gathered
        self._gathered = None
        return {(p.user_id, p.order_id): p for p in await self.record(turns)}

    async def settle(
        self, payments: Iterable[Payment], traces: Mapping[int, str | None] | None = None
    ) -> tuple[int, list[Problem]]:
        """Asks for all of `payments` at once and writes down each answer.

        Returns how many answers came, and why others did not: one that is slow or fails keeps
        nobody waiting. `traces` has traceparents by order id. Raises `Unavailable` when the
        database is away.
        """
        tasks = [
            asyncio.create_task(self._bring(payment, (traces or {}).get(payment.order_id)))
            for payment in payments
            if next_step(payment)
        ]
        try:
            ended = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        problems = [problem for _, problem in ended if problem]
        return sum(answers for answers, _ in ended), problems

    async def _bring(self, payment: Payment, trace: str | None) -> tuple[int, Problem | None]:
        """To its end: how many answers came, and why there are no more."""
        answers = 0
        known: Payment | None = payment
        while known and next_step(known):
            try:
                turn = await self._ask(known, trace)
            except Problem as problem:
                return answers, problem
            answers += 1
            known = await self.note(turn)
        return answers, None

    async def _ask(self, payment: Payment, trace: str | None) -> Turn:
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


def _retrieve(task: asyncio.Task[dict[tuple[int, int], Payment]]) -> None:
    """Nobody may be left to hear why it failed."""
    if not task.cancelled():
        task.exception()
