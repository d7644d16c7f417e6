"""A payment ends well whatever order its questions and answers come in, and whichever are lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.events import Event, Poison
from runtime.payments import rules
from runtime.payments.rules import (
    Cancelled,
    Change,
    Charge,
    Charged,
    Created,
    NothingCharged,
    Payment,
    Refunded,
    Turn,
    advance,
    answer,
    birth,
    charge_of,
    finding,
    key_may_be_forgotten,
    next_step,
    order_of,
    reconciled,
    refund_key,
    turn_of,
)

ORDER = 7 << 22
MAKE = Created(500, "USD", "card")


def payment(**values: Any) -> Payment:
    return replace(Payment(1, ORDER, 500, "USD", "card"), **values)


@dataclass
class World:
    """One order: its row, the gateway, and what is under way between them."""

    declines: bool
    row: Payment | None = None
    charge: Charge | None = None
    refund_keys: set[str] = field(default_factory=set)
    replies: list[Change] = field(default_factory=list)
    hooks: list[Change] = field(default_factory=list)
    questions: list[Payment] = field(default_factory=list)
    events: list[Change] = field(default_factory=lambda: [MAKE])

    def write(self, change: Change) -> None:
        if self.row is None:
            self.row = birth(Turn(1, ORDER, change))
        if self.row is not None:
            self.row = advance(self.row, change)
            if next_step(self.row):
                self.questions.append(self.row)

    def reach_gateway(self, row: Payment) -> None:
        """A question arrives; the answer may be lost, the webhook comes some time."""
        match next_step(row):
            case "charge":
                if self.charge is None:
                    status = "declined" if self.declines else "captured"
                    self._become(Charge("ch", str(ORDER), status, None, None, 1))  # type: ignore[arg-type]
            case "refund":
                assert self.charge is not None
                self.refund_keys.add(refund_key(ORDER))
                if self.charge.status == "captured":
                    self._become(Charge("ch", str(ORDER), "refunded", None, "re", 1))
        self.replies.append(finding(self.charge) if self.charge else NothingCharged())

    def _become(self, charge: Charge) -> None:
        self.charge = charge
        self.hooks.append(finding(charge))

    def drain(self) -> None:
        """Everything that is delivered at least once is delivered; the reconciler comes by."""
        for event in self.events:
            self.write(event)
        for _ in range(20):
            while self.questions:
                self.reach_gateway(self.questions.pop())
            for told in (self.hooks, self.replies):
                while told:
                    self.write(told.pop(0))
            if self.row and next_step(self.row):
                self.questions.append(self.row)
        assert not self.questions


def act(world: World, draw: Callable[[Any], Any]) -> None:
    name = draw(st.sampled_from(["event", "cancel", "send", "reply", "lose", "hook", "again"]))
    queues: dict[str, list[Any]] = {
        "send": world.questions,
        "reply": world.replies,
        "lose": world.replies,
        "hook": world.hooks,
    }
    if name == "cancel":
        world.events.append(Cancelled())
    elif name in ("event", "again"):
        world.write(draw(st.sampled_from(world.events)))
    elif queue := queues[name]:
        index = draw(st.integers(0, len(queue) - 1))
        # A question or a webhook may be delivered and still come again.
        item: Any = queue[index] if draw(st.booleans()) and name != "lose" else queue.pop(index)
        if name == "send":
            world.reach_gateway(item)
        elif name != "lose":
            world.write(item)


@given(st.data(), st.booleans())
def test_every_interleaving_ends_with_the_money_where_it_belongs(
    data: st.DataObject, declines: bool
) -> None:
    world = World(declines)
    for _ in range(data.draw(st.integers(0, 25))):
        act(world, data.draw)
    world.drain()
    row = world.row
    assert row is not None
    assert next_step(row) is None
    if Cancelled() in world.events:
        assert row.status in ("refunded", "void", "declined")
    else:
        assert row.status == ("declined" if declines else "captured")
        assert not row.cancel_requested
    assert len(world.refund_keys) <= 1
    taken = world.charge is not None and world.charge.status == "captured"
    assert taken == (row.status == "captured")
    told = answer(row)
    assert told is not None
    assert told[1] == ("PaymentRefunded" if row.status == "refunded" else "PaymentProcessed")


CHANGES = st.sampled_from(
    [MAKE, Cancelled(), Charged("ch", True), Charged("ch", False, "no"), Refunded("ch", "re"),
     NothingCharged()]
)  # fmt: skip


@given(st.lists(CHANGES, max_size=12), CHANGES)
def test_a_change_that_comes_twice_counts_once(before: list[Change], change: Change) -> None:
    row = payment()
    for each in before:
        row = advance(row, each)
    once = advance(row, change)
    assert advance(once, change) == once


@given(st.lists(CHANGES, max_size=12))
def test_a_refunded_payment_stays_refunded_and_a_cancellation_is_never_forgotten(
    changes: list[Change],
) -> None:
    row = payment()
    for each in changes:
        after = advance(row, each)
        assert not (row.status == "refunded" and after.status != "refunded")
        assert after.cancel_requested >= row.cancel_requested
        row = after


def test_a_cancellation_that_comes_first_is_void_once_the_gateway_has_no_charge() -> None:
    first = birth(Turn(1, ORDER, Cancelled()))
    assert first is not None
    met = advance(first, MAKE)
    assert (met.status, met.amount_cents, next_step(met)) == ("pending", 500, "look")
    void = advance(met, NothingCharged())
    assert (void.status, next_step(void)) == ("void", None)
    assert next_step(advance(met, Charged("ch", True))) == "refund"


def test_a_key_is_trusted_for_twenty_hours() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert not key_may_be_forgotten(payment(), now)
    assert not key_may_be_forgotten(payment(updated_at=now - timedelta(hours=19)), now)
    assert key_may_be_forgotten(payment(updated_at=now - timedelta(hours=21)), now)


def test_a_payment_with_more_to_come_says_nothing_yet() -> None:
    assert answer(payment()) is None
    assert answer(payment(status="captured", cancel_requested=True)) is None
    captured = answer(payment(status="captured"))
    assert captured
    assert captured[2]["status"] == "captured"


@pytest.mark.parametrize(
    ("status", "row", "verdict"),
    [
        ("captured", None, "return"),
        ("declined", None, None),
        ("refunded", None, None),
        ("captured", payment(), Charged("ch", True)),
        ("captured", payment(status="void"), Charged("ch", True)),
        ("captured", payment(status="captured"), None),
        ("captured", payment(status="captured", cancel_requested=True), None),
        ("refunded", payment(status="captured"), Refunded("ch", None)),
        ("captured", payment(status="refunded"), None),
        ("declined", payment(), Charged("ch", False)),
    ],
)
def test_an_old_charge_calls_for_a_change_its_money_back_or_nothing(
    status: Any, row: Payment | None, verdict: object
) -> None:
    assert reconciled(Charge("ch", str(ORDER), status, None, None, 1), row) == verdict


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"order_id": 0, "user_id": 1, "total_cents": 1, "currency": "USD"},
        {"order_id": 1, "user_id": 2**63, "total_cents": 1, "currency": "USD"},
        {"order_id": 1, "user_id": 1, "total_cents": -1, "currency": "USD"},
        {"order_id": 1, "user_id": 1, "total_cents": True, "currency": "USD"},
        {"order_id": 1, "user_id": 1, "total_cents": 1, "currency": "U\0D"},
        {"order_id": 1, "user_id": 1, "total_cents": 1},
    ],
)
def test_an_order_that_cannot_be_charged_is_poison(payload: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        turn_of(Event(1, "OrderCreated", payload))
    assert turn_of(Event(1, "StockReserved", payload)) is None


@given(st.text(max_size=25))
def test_a_reference_is_an_order_or_nothing(text: str) -> None:
    found = order_of(text)
    assert found is None or 0 < found < 2**63


@given(st.dictionaries(st.sampled_from(["id", "reference", "status", "changed", "reason"]),
                       st.one_of(st.none(), st.text(max_size=5), st.integers())))  # fmt: skip
def test_a_strange_charge_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="charge"):
        charge_of(document)
    assert rules.charge_key(5) != rules.refund_key(5)
