"""Decisions of the services, without any server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Invalid
from runtime.events import Event, Poison, decode, encode
from runtime.inventory.rules import question_of
from runtime.orders import rules as orders
from runtime.position import Position
from runtime.shardmap import SLOTS, slot_of, slot_of_order
from runtime.users import rules as users
from runtime.wire import money, parse_id

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@given(st.integers(0, 2**41 - 1), st.integers(0, SLOTS - 1), st.integers(0, 2**12 - 1))
def test_an_order_id_is_63_bits_and_tells_its_slot(ms: int, slot: int, bits: int) -> None:
    id = orders.order_id(ms, slot, bits)
    assert 0 <= id < 2**63
    assert slot_of_order(id) == slot


def test_an_order_totals_its_lines_at_the_prices_given() -> None:
    prices = {"a": orders.Price(150, "USD"), "b": orders.Price(5, "USD")}
    draft = orders.draft(7, orders.merged([("b", 2), ("a", 1), ("b", 1)]), prices, "card", NOW, 1)
    assert draft.total_cents == 165
    assert [(line.sku, line.quantity) for line in draft.lines] == [("a", 1), ("b", 3)]
    assert slot_of_order(draft.id) == slot_of(7)


def test_an_unknown_product_and_mixed_currencies_are_invalid() -> None:
    with pytest.raises(Invalid, match="no product"):
        orders.draft(7, {"x": 1}, {}, "card", NOW, 1)
    prices = {"a": orders.Price(1, "USD"), "b": orders.Price(1, "EUR")}
    with pytest.raises(Invalid, match="one currency"):
        orders.draft(7, {"a": 1, "b": 1}, prices, "card", NOW, 1)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"order_id": 1, "user_id": 2, "items": []},
        {"order_id": 1, "user_id": 2, "items": [["a", 0]]},
        {"order_id": 1, "user_id": 2, "items": [["a", 1], ["a", 1]]},
        {"order_id": 1, "user_id": 2, "items": 5},
        {"order_id": "x", "user_id": 2, "items": [["a", 1]]},
    ],
)
def test_an_order_event_that_makes_no_sense_is_poison(payload: dict[str, object]) -> None:
    with pytest.raises(Poison):
        question_of(Event(1, "OrderCreated", payload))


def test_an_event_of_another_kind_asks_nothing_of_the_stock() -> None:
    assert question_of(Event(1, "OrderShipped", {})) is None


def test_an_event_survives_the_wire_and_garbage_is_poison() -> None:
    event = Event(5, "OrderCreated", {"a": [1]})
    wire = {key.encode(): value.encode() for key, value in encode(event).items()}
    assert decode(wire) == event
    for broken in (
        {},
        {**wire, b"payload": b"["},
        {**wire, b"id": b"x"},
        {**wire, b"payload": b"1"},
    ):
        with pytest.raises(Poison):
            decode(broken)


def test_a_position_survives_the_wire_and_garbage_is_invalid() -> None:
    assert Position.parse(str(Position("s1", 3, 12345))) == Position("s1", 3, 12345)
    for text in ("", "s1", "s1.3", "s1.x.1", "s1.1.-1", "s1.1.1.1", f"s1.1.{10**30}", ".1.1"):
        with pytest.raises(Invalid):
            Position.parse(text)


def test_the_same_address_in_another_case_is_the_same_request() -> None:
    one = users.registration("Ada@Example.org", "Ada", "k", 5, NOW)
    two = users.registration("ada@example.org ", "Ada", "k", 6, NOW)
    assert (one.email, one.digest) == (two.email, two.digest)
    assert users.registration("a@b", "A", "k", 0, NOW).user_id > 0


def test_money_is_written_with_two_decimals() -> None:
    assert money(5, "USD") == {"amount": "0.05", "currency": "USD"}
    assert money(123456, "USD")["amount"] == "1234.56"


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1.0", "٣", str(2**63), "9" * 30, "1_0"])
def test_what_is_no_63_bit_id_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        parse_id(text)
