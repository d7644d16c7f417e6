"""Decisions about stock and products, without any server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.events import Event, Poison, event_id
from runtime.inventory.rules import (
    Claim,
    Product,
    Question,
    cents_of,
    listed,
    page,
    question_of,
    settle,
)

SKUS = ("a", "b", "c")
STOCK = st.fixed_dictionaries({sku: st.integers(0, 10) for sku in SKUS})
ITEMS = st.dictionaries(st.sampled_from([*SKUS, "unknown"]), st.integers(1, 5), min_size=1)
# Eight orders with fixed items, each asked about many times, in any order.
ORDERS = st.lists(ITEMS, min_size=1, max_size=8)
ASKED = st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=30)
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=30)


class Warehouse:
    """The rows that `settle` is given and asks for."""

    def __init__(self, stock: dict[str, int]) -> None:
        self.initial = dict(stock)
        self.stock = dict(stock)
        self.claims: dict[int, Claim] = {}
        self.answers: list[Event] = []

    def handle(self, questions: Sequence[Question]) -> None:
        settled = settle(questions, self.stock, self.claims)
        for order in {movement.order_id for movement in settled.movements}:
            assert order not in self.claims
            rows = [row for row in settled.movements if row.order_id == order]
            [outcome] = {row.outcome for row in rows}
            self.claims[order] = Claim(outcome, tuple((row.sku, row.quantity) for row in rows))
        for order in settled.returned:
            assert self.claims[order].outcome == "reserved"
            self.claims[order] = Claim("returned", self.claims[order].items)
        for sku, change in settled.changes.items():
            self.stock[sku] += change
        self.answers = list(settled.answers)
        assert [answer.payload["order_id"] for answer in self.answers] == list(
            dict.fromkeys(question.order_id for question in questions)
        )
        self.check()

    def check(self) -> None:
        for sku, amount in self.stock.items():
            held = sum(
                quantity
                for claim in self.claims.values()
                if claim.outcome == "reserved"
                for each, quantity in claim.items
                if each == sku
            )
            assert amount == self.initial[sku] - held >= 0


def questions(orders: list[dict[str, int]], asked: list[tuple[int, bool]]) -> list[Question]:
    return [
        Question(n + 1, 7, tuple(sorted(orders[n].items())), cancelled)
        for n, cancelled in asked
        if n < len(orders)
    ]


@given(STOCK, ORDERS, ASKED, CUTS)
def test_stock_is_conserved_however_events_come_and_are_batched(
    stock: dict[str, int],
    orders: list[dict[str, int]],
    asked: list[tuple[int, bool]],
    cuts: list[int],
) -> None:
    warehouse = Warehouse(stock)
    left = questions(orders, asked)
    for cut in cuts:
        warehouse.handle(left[:cut])
        left = left[cut:]
    warehouse.handle(left)
    cancelled = {question.order_id for question in questions(orders, asked) if question.cancelled}
    for order in cancelled:
        assert warehouse.claims[order].outcome in ("returned", "refused")


@given(STOCK, ORDERS, ASKED)
def test_a_question_that_comes_again_changes_nothing_and_is_answered_again(
    stock: dict[str, int], orders: list[dict[str, int]], asked: list[tuple[int, bool]]
) -> None:
    warehouse = Warehouse(stock)
    once = questions(orders, asked)
    warehouse.handle(once)
    claims, amounts = dict(warehouse.claims), dict(warehouse.stock)
    answers = warehouse.answers
    warehouse.handle(once)
    assert (warehouse.claims, warehouse.stock) == (claims, amounts)
    assert warehouse.answers == answers


@given(STOCK, ORDERS, ASKED)
def test_one_batch_ends_as_the_same_events_one_by_one(
    stock: dict[str, int], orders: list[dict[str, int]], asked: list[tuple[int, bool]]
) -> None:
    whole, single = Warehouse(stock), Warehouse(stock)
    whole.handle(questions(orders, asked))
    for question in questions(orders, asked):
        single.handle([question])
    assert (whole.claims, whole.stock) == (single.claims, single.stock)


@pytest.mark.parametrize(
    ("asked", "outcome", "answer", "left"),
    [
        ([False], "reserved", "StockReserved", 6),
        ([False, True], "returned", "StockReturned", 10),
        ([True], "returned", "StockReturned", 10),
        ([True, False], "returned", "StockReturned", 10),
        ([False, True, False, True], "returned", "StockReturned", 10),
    ],
)
def test_creation_and_cancellation_in_any_order_end_in_one_state(
    asked: list[bool], outcome: str, answer: str, left: int
) -> None:
    warehouse = Warehouse({"a": 10})
    for cancelled in asked:
        warehouse.handle([Question(1, 7, (("a", 4),), cancelled, "trace")])
    assert warehouse.claims[1].outcome == outcome
    assert warehouse.stock == {"a": left}
    [said] = warehouse.answers
    assert (said.kind, said.id, said.traceparent) == (answer, event_id(1, said.kind), "trace")  # type: ignore[arg-type]
    assert said.payload == {"order_id": 1, "user_id": 7}


def test_an_order_that_was_refused_stays_refused_when_it_is_cancelled_or_stock_comes() -> None:
    warehouse = Warehouse({"a": 3, "b": 9})
    warehouse.handle([Question(1, 7, (("a", 4), ("b", 1)))])
    assert [answer.kind for answer in warehouse.answers] == ["StockRefused"]
    warehouse.initial["a"] = warehouse.stock["a"] = 100
    for cancelled in (False, True):
        warehouse.handle([Question(1, 7, (("a", 4), ("b", 1)), cancelled)])
        assert [answer.kind for answer in warehouse.answers] == ["StockRefused"]
    assert warehouse.stock == {"a": 100, "b": 9}


def test_only_events_of_orders_are_questions() -> None:
    payload = {"order_id": 1, "user_id": 2, "items": [["a", 3]]}
    assert question_of(Event(1, "OrderCreated", payload)) == Question(1, 2, (("a", 3),))
    assert question_of(Event(9, "OrderCancelled", payload, "t")) == Question(
        1, 2, (("a", 3),), True, "t"
    )
    assert question_of(Event(1, "PaymentProcessed", {})) is None
    for bad in ({}, {**payload, "items": []}, {**payload, "items": [["a", 0]]}):
        with pytest.raises(Poison):
            question_of(Event(1, "OrderCreated", bad))


SHOP = [Product(f"S{n:03d}", f"thing {n % 7}", n, "USD", 1, 1) for n in range(60)]
SHELF = [listed(product) for product in SHOP]


@given(st.integers(1, 100), st.sampled_from(["", "thing 3", "S01", "no such", "  THING  s00"]))
def test_pages_hold_every_product_that_is_searched_once_and_in_order(limit: int, q: str) -> None:
    seen: list[Product] = []
    after: str | None = ""
    while after is not None:
        here, after = page(SHELF, q, after, limit)
        assert len(here) <= limit
        seen += here
    words = q.casefold().split()
    assert seen == [
        p for p in SHOP if all(w in p.sku.casefold() or w in p.name.casefold() for w in words)
    ]


@given(st.integers(0, 10**14))
def test_an_amount_is_read_as_it_is_written(cents: int) -> None:
    assert cents_of(f"{cents // 100}.{cents % 100:02d}") == cents
    assert cents_of(str(cents)) == cents * 100
