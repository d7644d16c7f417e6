"""The whole saga as a model: the real rules of orders, inventory and payments, and between them a
queue that repeats, reorders and loses, and processes that die between any two steps.

From wherever that leaves them, the things that always go on (the relay, the sweeper, the
reconciler of payments) must bring every order to rest, with stock and money where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.events import Event, Kind, Poison, event_id
from runtime.inventory import rules as inventory
from runtime.orders import consumer
from runtime.orders import rules as orders
from runtime.orders.rules import Saga
from runtime.payments import rules as payments

GROUPS = ("inventory", "payments", "orders")
SKU = "a"
CENTS = 100
ACTIONS = (
    "relay",
    "relay and die",
    "deliver",
    "deliver and die",
    "lose the queue",
    "cancel",
    "ask the gateway",
    "ask the gateway and die",
    "late charge",
    "sweep",
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """Orders 1..n, each of one piece. `declined`: orders whose card is declined."""

    stock: int
    count: int
    declined: frozenset[int]
    sagas: dict[int, Saga] = field(default_factory=dict)
    outbox: dict[int, tuple[Event, bool]] = field(default_factory=dict)
    queues: dict[str, list[Event]] = field(default_factory=lambda: {g: [] for g in GROUPS})
    left: dict[str, int] = field(default_factory=dict)
    claims: dict[int, inventory.Claim] = field(default_factory=dict)
    rows: dict[int, payments.Payment] = field(default_factory=dict)
    charges: dict[int, str] = field(default_factory=dict)
    refunds: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.left[SKU] = self.stock
        for order in self.all:
            self.sagas[order] = Saga()
            self.emit(order, "OrderCreated")

    @property
    def all(self) -> range:
        return range(1, self.count + 1)

    def emit(self, order: int, kind: Kind) -> None:
        payload: dict[str, Any] = {"order_id": order, "user_id": 7, "items": [[SKU, 1]]}
        if kind == "OrderCreated":
            payload |= {"total_cents": CENTS, "currency": "USD", "payment_method": "card"}
        self.send(Event(event_id(order, kind), kind, payload))

    def send(self, event: Event) -> None:
        """As the outbox: an event that is there keeps its first payload and goes again."""
        self.outbox[event.id] = (self.outbox.get(event.id, (event, False))[0], False)

    def relay(self, at: int, *, die: bool = False) -> None:
        waiting = [event for event, relayed in self.outbox.values() if not relayed]
        if waiting:
            event = waiting[at % len(waiting)]
            for queue in self.queues.values():
                queue.append(event)
            self.outbox[event.id] = (event, not die)

    def deliver(self, at: int, *, die: bool = False) -> None:
        group = GROUPS[at % len(GROUPS)]
        queue = self.queues[group]
        if queue:
            place = at // len(GROUPS) % len(queue)
            handlers: dict[str, Callable[[Event], None]] = {
                "inventory": self.take,
                "payments": self.pay,
                "orders": self.hear,
            }
            handlers[group](queue[place])
            if not die:
                del queue[place]

    def take(self, event: Event) -> None:
        question = inventory.question_of(event)
        if question is None:
            return
        done = inventory.settle([question], self.left, self.claims)
        for movement in done.movements:
            items = ((movement.sku, movement.quantity),)
            self.claims[movement.order_id] = inventory.Claim(movement.outcome, items)
        for order in done.returned:
            self.claims[order] = inventory.Claim("returned", self.claims[order].items)
        for sku, change in done.changes.items():
            self.left[sku] += change
        for answer in done.answers:
            self.send(answer)

    def pay(self, event: Event) -> None:
        turn = payments.turn_of(event)
        if turn:
            row = self.rows.get(turn.order_id) or payments.birth(turn)
            assert row is not None
            self.store(payments.advance(row, turn.change), asked=True)

    def store(self, row: payments.Payment, *, asked: bool = False) -> None:
        news = row != self.rows.get(row.order_id)
        self.rows[row.order_id] = row
        if (news or asked) and (answer := payments.answer(row)):
            self.send(Event(*answer))

    def hear(self, event: Event) -> None:
        if event.kind in orders.ANSWERS:
            order = event.payload["order_id"]
            step = orders.advance(self.sagas[order], event)
            self.become(order, step)

    def become(self, order: int, step: orders.Advance) -> None:
        self.sagas[order] = step.saga
        if step.emit:
            self.emit(order, step.emit)

    def charge(self, order: int) -> None:
        self.charges.setdefault(order, "declined" if order in self.declined else "captured")

    def found(self, order: int) -> payments.Change:
        if order in self.refunds:
            return payments.Refunded(f"t{order}", f"r{order}")
        if order not in self.charges:
            return payments.NothingCharged()
        return payments.Charged(f"t{order}", self.charges[order] == "captured")

    def ask_gateway(self, order: int, *, die: bool = False) -> None:
        row = self.rows.get(order)
        step = payments.next_step(row) if row else None
        if row is None or step is None:
            return
        if step == "charge":
            self.charge(order)
        if step == "refund":
            self.refunds.add(order)
        if not die:
            self.store(payments.advance(row, self.found(order)))

    def late_charge(self, order: int) -> None:
        """A charge whose answer never came is made after all, once its row was there."""
        row = self.rows.get(order)
        if row and row.method:
            self.charge(order)

    def sweep(self, order: int) -> None:
        asked = orders.question(self.sagas[order])
        if asked:
            self.emit(order, asked)

    def act(self, action: str, at: int) -> None:
        order = self.all[at % self.count]
        match action:
            case "relay" | "relay and die":
                self.relay(at, die=action.endswith("die"))
            case "deliver" | "deliver and die":
                self.deliver(at, die=action.endswith("die"))
            case "lose the queue":
                self.queues = {group: [] for group in GROUPS}
            case "cancel":
                self.become(order, orders.cancel(self.sagas[order]))
            case "ask the gateway" | "ask the gateway and die":
                self.ask_gateway(order, die=action.endswith("die"))
            case "late charge":
                self.late_charge(order)
            case "sweep":
                self.sweep(order)

    def drain(self) -> None:
        """All that is under way arrives, in some order."""
        for _ in range(1000):
            if any(not relayed for _, relayed in self.outbox.values()):
                self.relay(0)
            elif any(self.queues.values()):
                for index, group in enumerate(GROUPS):
                    if self.queues[group]:
                        self.deliver(index)
            else:
                return
        pytest.fail("events beget events for ever")

    def come_to_rest(self) -> None:
        for _ in range(6):
            self.drain()
            for order in self.all:
                self.ask_gateway(order)
                row = self.rows.get(order)
                if row and order in self.charges:
                    self.store(payments.advance(row, self.found(order)))
                self.sweep(order)
        self.drain()


def check(world: World) -> None:
    held = sum(claim.outcome == "reserved" for claim in world.claims.values())
    assert world.stock == world.left[SKU] + held
    assert world.left[SKU] >= 0
    for order in world.all:
        saga, row = world.sagas[order], world.rows[order]
        assert saga.settled
        paid = world.charges.get(order) == "captured" and order not in world.refunds
        assert paid == (saga.status == "confirmed") == (row.status == "captured")
        assert (world.claims[order].outcome == "reserved") == (saga.status == "confirmed")
        assert saga.stock == world.claims[order].outcome
        assert saga.payment == row.status
        assert (saga.reason is None) == (saga.status == "confirmed")


worlds = st.builds(
    World,
    stock=st.integers(0, 3),
    count=st.integers(1, 2),
    declined=st.frozensets(st.integers(1, 2), max_size=1),
)
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 29)), max_size=40)


@settings(max_examples=400)
@given(worlds, steps)
def test_from_every_stopping_point_orders_come_to_rest_with_stock_and_money_in_place(
    world: World, steps: Sequence[tuple[str, int]]
) -> None:
    for action, at in steps:
        world.act(action, at)
    world.come_to_rest()
    check(world)


@pytest.mark.parametrize("cancelled_after", range(13))
@pytest.mark.parametrize("declined", [frozenset[int](), frozenset([1])])
@pytest.mark.parametrize("stock", [0, 1])
def test_a_cancellation_at_any_step_of_the_usual_way_ends_well(
    cancelled_after: int, declined: frozenset[int], stock: int
) -> None:
    world = World(stock, 1, declined)
    usual = [
        *(("relay", 0), ("deliver", 0), ("deliver", 1), ("deliver", 2), ("ask the gateway", 0)),
        *(("relay", 0), ("deliver", 0), ("deliver", 1), ("deliver", 2)),
        *(("relay", 0), ("deliver", 0), ("deliver", 1), ("deliver", 2)),
    ]
    for action, at in usual[:cancelled_after]:
        world.act(action, at)
    world.act("cancel", 0)
    world.come_to_rest()
    check(world)
    assert world.sagas[1].status == "cancelled"


def test_an_order_whose_stock_and_payment_are_there_is_confirmed_by_itself() -> None:
    world = World(1, 1, frozenset())
    world.drain()
    world.ask_gateway(1)
    world.drain()
    check(world)
    assert world.sagas[1] == Saga("confirmed", "reserved", "captured")


answers = st.sampled_from(
    [
        *((kind, None) for kind in orders.STOCK_ANSWERS),
        *(("PaymentProcessed", status) for status in ("captured", "declined", "void")),
        ("PaymentRefunded", None),
    ]
)


@given(st.lists(answers, max_size=12))
def test_whatever_is_answered_an_order_never_leaves_its_end_and_says_why(
    heard: list[tuple[str, str | None]],
) -> None:
    saga = Saga()
    for kind, status in heard:
        step = orders.advance(saga, Event(1, kind, {"status": status}))
        if saga.status == "cancelled":
            assert (step.saga.status, step.saga.reason) == ("cancelled", saga.reason)
        if step.saga.status == "cancelled" and saga.status != "cancelled":
            assert step.emit == "OrderCancelled"
        assert not step.emit or step.saga.status == "cancelled"
        assert (step.saga.reason is not None) == (step.saga.status == "cancelled")
        assert orders.question(step.saga) is None or not step.saga.settled
        if step.saga.status == "confirmed":
            assert (step.saga.stock, step.saga.payment) == ("reserved", "captured")
        if saga.stock == "returned":
            assert step.saga.stock == "returned"
        if saga.payment == "refunded":
            assert step.saga.payment == "refunded"
        saga = step.saga


@given(st.lists(answers, max_size=6))
def test_answers_heard_together_lead_where_they_lead_one_by_one(
    heard: list[tuple[str, str | None]],
) -> None:
    events = [Event(1, kind, {"status": status}) for kind, status in heard]
    saga = Saga()
    for event in events:
        saga = orders.advance(saga, event).saga
    assert orders.advance_all(Saga(), events).saga == saga


def test_an_answer_that_makes_no_sense_is_poison() -> None:
    for event in (
        Event(1, "PaymentProcessed", {}),
        Event(1, "PaymentProcessed", {"status": "maybe"}),
        Event(1, "OrderCreated", {"status": "captured"}),
    ):
        with pytest.raises(Poison):
            orders.advance(Saga(), event)


def test_the_pauses_between_questions_grow_to_ten_minutes() -> None:
    asked = NOW
    pauses = []
    for _ in range(9):
        following = orders.ask_again_at(NOW, asked)
        pauses.append((following - asked) / timedelta(seconds=1))
        asked = following
    assert pauses == [15, 15, 30, 60, 120, 240, 480, 600, 600]


@pytest.mark.parametrize(("order_id", "user_id"), [(1, 7), (-1, 7), (2**63, 7), (1, 2**70)])
def test_an_answer_for_ids_that_cannot_be_is_poison(order_id: int, user_id: int) -> None:
    payload = {"order_id": order_id, "user_id": user_id}
    with pytest.raises(Poison):
        consumer._key(Event(1, "StockReserved", payload))
