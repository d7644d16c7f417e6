"""Compares the gateway's charges with the rows, in the home region of each shard.

It finishes what stopped half-way, learns what no webhook told, and returns money that was taken
for orders which a region failover lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

from runtime.context import Context
from runtime.errors import Problem, Unavailable
from runtime.payments import rules, store
from runtime.payments.gateway import Gateway
from runtime.payments.rules import Change, Charge, Created, Turn
from runtime.payments.settle import Settler
from runtime.payments.store import Known
from runtime.pool import Connection
from runtime.shardmap import CATALOG, Placement, Shard, slot_of_order
from runtime.shards import of_shard, of_slot
from runtime.telemetry import RECONCILED

log = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
# What is younger is still on its way through events and webhooks.
YOUNG_SECONDS = 60.0
STUCK_SECONDS = 30.0
# How far back a shard is compared when it comes to this process, or has a new epoch: a failover
# between regions may have lost a charge, or the refund of one of any age, which changed it.
FIRST_WINDOW = timedelta(days=1)
BATCH = 500


class Reconciler:
    def __init__(self, context: Context, gateway: Gateway, settler: Settler) -> None:
        self._context = context
        self._gateway = gateway
        self._settler = settler
        # Until when (µs since 1970) each (shard, epoch) was compared.
        self._compared: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        """Every `EVERY_SECONDS`, until cancelled. What is away is tried the next time."""
        while True:
            await self._context.clock.sleep(EVERY_SECONDS)
            try:
                await self.once()
            except Problem as problem:
                data = {"reason": problem.detail}
                log.warning("payments not reconciled", extra={"data": data})

    async def once(self, young: float = YOUNG_SECONDS, stuck: float = STUCK_SECONDS) -> None:
        """One comparison. Raises `Unavailable` for what is left, when all the rest is done."""
        homes = self._homes()
        if not homes or not self._context.settings.payment_gateway:
            return
        problems: list[Problem] = []
        for shard in homes.values():
            problems += await self._finish(shard, stuck)
        now = int(self._context.clock.now().timestamp() * 1e6)
        until = now - int(young * 1e6)
        epochs = {(shard.name, shard.epoch) for shard in homes.values()}
        first = now - FIRST_WINDOW // timedelta(microseconds=1)
        after = min(self._compared.get(each, first) for each in epochs)
        following: int | None = after
        left: list[Problem] = []
        while following is not None and following < until:
            charges, following = await self._gateway.charges(following)
            old = [charge for charge in charges if charge.changed <= until]
            left += await self._compare(old, homes)
        if not left:
            self._compared = dict.fromkeys(epochs, max(after, until))
        if problems or left:
            raise [*problems, *left][0]

    def _homes(self) -> dict[str, Shard]:
        if not self._context.routing.loaded:
            return {}
        region = self._context.settings.region
        return {
            shard.name: shard
            for shard in self._context.routing.map.shards.values()
            if shard.home == region and shard.name != CATALOG
        }

    async def _finish(self, shard: Shard, stuck: float) -> list[Problem]:
        """Why nothing was finished, if nothing was."""
        if not self._context.routing.map.slots_of(shard.name):
            return []
        done = await self._context.shards.read(
            of_shard(shard.name),
            lambda connection, _: store.unfinished(connection, stuck, BATCH),
        )
        answered, problems = await self._settler.settle(done.value)
        RECONCILED.labels("finished").inc(answered)
        return [] if answered else problems

    async def _compare(self, charges: Iterable[Charge], homes: dict[str, Shard]) -> list[Problem]:
        """Why some of `charges` are to be compared again."""
        groups: dict[str, dict[int, Charge]] = {}
        for charge in charges:
            order_id = rules.order_of(charge.reference)
            if order_id is None:
                continue
            place = self._context.routing.map.place(slot_of_order(order_id))
            if place.shard.name in homes:
                groups.setdefault(place.shard.name, {})[order_id] = charge
        return [
            problem for group in groups.values() for problem in await self._compare_group(group)
        ]

    async def _compare_group(self, charges: dict[int, Charge]) -> list[Problem]:
        """Charges of one shard, asked of its primary: a copy may not have the newest order.

        An order that was charged and has no payment lost it with a region. It gets it back, as
        the gateway has it: charging once more would be answered as it was the first time, though
        the money may have been returned since.
        """

        async def known_of(connection: Connection, place: Placement) -> dict[int, Known]:
            if not await store.all_served(connection, charges):
                raise Unavailable(
                    f"Orders of {place.shard.name} are being moved to another shard.",
                    hint="They are compared the next time.",
                )
            return await store.of_orders(connection, list(charges))

        try:
            done = await self._context.shards.read(
                of_slot(slot_of_order(next(iter(charges)))), known_of
            )
        except Problem as problem:
            return [problem]
        turns: list[Turn] = []
        problems: list[Problem] = []
        for order_id, charge in charges.items():
            known = done.value.get(order_id)
            verdict = rules.reconciled(charge, known.payment if known else None)
            if verdict == "return":
                log.warning("charge of a lost order", extra={"data": {"order": order_id}})
                try:
                    await self._gateway.refund(order_id, charge.id)
                except Problem as problem:
                    problems.append(problem)
                    continue
                RECONCILED.labels("returned").inc()
            elif verdict is not None and known is not None:
                RECONCILED.labels("learned").inc()
                turns += _turns(known, verdict)
        _, unsettled = await self._settler.settle(await self._settler.record(turns))
        return [*problems, *unsettled]


def _turns(known: Known, change: Change) -> list[Turn]:
    """A payment that has no row yet gets it first."""
    payment = known.payment
    made = Created(payment.amount_cents, payment.currency, payment.method)
    changes: list[Change] = [change] if known.stored else [made, change]
    return [Turn(payment.user_id, payment.order_id, each) for each in changes]
