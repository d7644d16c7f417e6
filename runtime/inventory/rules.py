"""Decisions about stock and products. Pure.

An order's claim on the stock is in one of four states; the answer to every question about it is
the state that it is in afterwards:

                  OrderCreated                  OrderCancelled
    (unknown)     reserved, or refused whole    returned: what is created later takes nothing
    reserved      reserved                      returned, and the stock is put back
    refused       refused                       refused
    returned      returned                      returned
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from runtime.events import Event, Kind, event_id, items_of, subject_of

Outcome = Literal["reserved", "refused", "returned"]
Items = tuple[tuple[str, int], ...]

ANSWERS: Mapping[Outcome, Kind] = {
    "reserved": "StockReserved",
    "refused": "StockRefused",
    "returned": "StockReturned",
}


@dataclass(frozen=True)
class Product:
    """`version` grows with every change, also of the stock."""

    sku: str
    name: str
    price_cents: int
    currency: str
    stock: int
    version: int


@dataclass(frozen=True)
class Listed:
    """A product, and what searches look at: SKU and name, casefolded."""

    product: Product
    text: str


@dataclass(frozen=True)
class Question:
    """What an order asks of the stock: its items by SKU, all or nothing, or all of them back."""

    order_id: int
    user_id: int
    items: Items
    cancelled: bool = False
    traceparent: str | None = None


@dataclass(frozen=True)
class Claim:
    """What is recorded of an order."""

    outcome: Outcome
    items: Items


@dataclass(frozen=True)
class Movement:
    order_id: int
    user_id: int
    sku: str
    quantity: int
    outcome: Outcome


@dataclass(frozen=True)
class Settled:
    """New rows, orders whose reserved rows become returned, what each SKU gains (or loses, below
    zero), and one answer for every order that was asked about."""

    movements: tuple[Movement, ...]
    returned: tuple[int, ...]
    changes: Mapping[str, int]
    answers: tuple[Event, ...]


def question_of(event: Event) -> Question | None:
    """What an event asks of the stock; None when it is not about stock. Raises `Poison`."""
    if event.kind not in ("OrderCreated", "OrderCancelled"):
        return None
    order_id, user_id = subject_of(event)
    cancelled = event.kind == "OrderCancelled"
    return Question(order_id, user_id, items_of(event), cancelled, event.traceparent)


def settle(
    questions: Iterable[Question], stock: Mapping[str, int], known: Mapping[int, Claim]
) -> Settled:
    """What `questions`, in their order, do to the stock, given the claims of before."""
    left = dict(stock)
    claims = dict(known)
    last: dict[int, Question] = {}
    for question in questions:
        last[question.order_id] = question
        before = claims.get(question.order_id)
        after = _claim(question, before, left)
        claims[question.order_id] = after
        if before is None and after.outcome == "reserved":
            _move(left, after.items, -1)
        if before and before.outcome == "reserved" and after.outcome == "returned":
            _move(left, after.items, 1)
    fresh = [question for order, question in last.items() if order not in known]
    return Settled(
        movements=tuple(
            Movement(question.order_id, question.user_id, sku, quantity, claim.outcome)
            for question in fresh
            for claim in (claims[question.order_id],)
            for sku, quantity in claim.items
        ),
        returned=tuple(order for order in last if order in known and claims[order] != known[order]),
        changes={
            sku: amount - stock.get(sku, 0)
            for sku, amount in left.items()
            if amount != stock.get(sku, 0)
        },
        answers=tuple(_answer(question, claims[order].outcome) for order, question in last.items()),
    )


def _claim(question: Question, before: Claim | None, left: Mapping[str, int]) -> Claim:
    if before is None:
        if question.cancelled:
            return Claim("returned", question.items)
        served = all(left.get(sku, 0) >= quantity for sku, quantity in question.items)
        return Claim("reserved" if served else "refused", question.items)
    if question.cancelled and before.outcome == "reserved":
        return Claim("returned", before.items)
    return before


def _move(left: dict[str, int], items: Items, sign: int) -> None:
    for sku, quantity in items:
        left[sku] = left.get(sku, 0) + sign * quantity


def _answer(question: Question, outcome: Outcome) -> Event:
    kind = ANSWERS[outcome]
    payload = {"order_id": question.order_id, "user_id": question.user_id}
    return Event(event_id(question.order_id, kind), kind, payload, question.traceparent)


def listed(product: Product) -> Listed:
    return Listed(product, f"{product.sku} {product.name}".casefold())


def page(
    products: Iterable[Listed], query: str, after: str, limit: int
) -> tuple[Sequence[Product], str | None]:
    """The first `limit` products past the SKU `after` that contain every word of `query` in SKU
    or name, and the SKU after which the next page begins. `products` are in order of SKU."""
    words = query.casefold().split()
    matching = (
        each.product
        for each in products
        if each.product.sku > after and all(word in each.text for word in words)
    )
    found = list(islice(matching, limit + 1))
    here = found[:limit]
    return here, here[-1].sku if len(found) > limit else None


def cents_of(amount: str) -> int:
    """Hundredths of `amount`, which is digits with none or two decimals."""
    whole, _, part = amount.partition(".")
    return int(whole) * 100 + int(part or 0)
