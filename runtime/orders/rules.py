"""Decisions about orders. Pure: time, randomness and prices are given.

The saga of an order is its answers: what inventory says of the stock and what payments says of
the money, in whichever order and however often they come. Its status follows from them:

    placed      stock reserved and payment captured          -> confirmed
    placed      stock refused or returned                    -> cancelled
    placed      payment declined, void or refunded           -> cancelled
    confirmed   one of the answers above that cancel         -> cancelled
    cancelled   for ever

A cancelled order asks with OrderCancelled for its stock and money back until both are answered. A
confirmed order hears such an answer only after a failover between regions, in which databases
promoted together had got different parts; what one of them lost is then lost for the order too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from runtime.errors import Invalid
from runtime.events import Event, Kind, Poison
from runtime.shardmap import slot_of

RANDOM_BITS = 12
MAX_CENTS = 2**63 - 1
ASK_FIRST = timedelta(seconds=15)
ASK_LAST = timedelta(minutes=10)

Status = Literal["placed", "confirmed", "cancelled"]
Stock = Literal["pending", "reserved", "refused", "returned"]
Payment = Literal["pending", "captured", "declined", "void", "refunded"]

NOTHING_TAKEN: frozenset[Stock] = frozenset(["refused", "returned"])
NOTHING_PAID: frozenset[Payment] = frozenset(["declined", "void", "refunded"])
STOCK_ANSWERS: dict[str, Stock] = {
    "StockReserved": "reserved",
    "StockRefused": "refused",
    "StockReturned": "returned",
}
ANSWERS = frozenset([*STOCK_ANSWERS, "PaymentProcessed", "PaymentRefunded"])
REASONS: dict[str, str] = {
    "refused": "out-of-stock",
    "returned": "stock-returned",
    "declined": "payment-declined",
    "void": "payment-void",
    "refunded": "payment-refunded",
}
REQUESTED = "requested"


@dataclass(frozen=True)
class Price:
    cents: int
    currency: str
    name: str = ""


@dataclass(frozen=True)
class Line:
    sku: str
    quantity: int
    unit_price_cents: int
    name: str = ""


@dataclass(frozen=True)
class Saga:
    """What is known of an order's way. `reason` says why it was cancelled."""

    status: Status = "placed"
    stock: Stock = "pending"
    payment: Payment = "pending"
    reason: str | None = None

    @property
    def settled(self) -> bool:
        """Nobody has anything left to do."""
        if self.status == "cancelled":
            return self.stock in NOTHING_TAKEN and self.payment in NOTHING_PAID
        return self.status == "confirmed"


@dataclass(frozen=True)
class Advance:
    """The saga after an answer, and the event that must go out with it."""

    saga: Saga
    emit: Kind | None = None


@dataclass(frozen=True)
class Order:
    id: int
    user_id: int
    saga: Saga
    currency: str
    total_cents: int
    payment_method: str
    lines: tuple[Line, ...]
    created_at: datetime
    updated_at: datetime
    version: int = 1


def order_id(unix_ms: int, slot: int, random_bits: int) -> int:
    """41 bits of milliseconds, 10 bits of slot, 12 random bits: 63 bits, growing with time."""
    return ((unix_ms & (1 << 41) - 1) << 22) | (slot << RANDOM_BITS) | (random_bits & 0xFFF)


def merged(items: Iterable[tuple[str, int]]) -> dict[str, int]:
    """One line a SKU, by SKU: two lines of the same SKU are one of their sum."""
    total: dict[str, int] = {}
    for sku, quantity in items:
        total[sku] = total.get(sku, 0) + quantity
    return dict(sorted(total.items()))


def digest(user_id: int, items: Mapping[str, int], payment_method: str) -> bytes:
    """What makes two requests the same request."""
    parts = [user_id, list(items.items()), payment_method]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def draft(
    user_id: int,
    items: Mapping[str, int],
    prices: Mapping[str, Price],
    payment_method: str,
    at: datetime,
    random_bits: int,
) -> Order:
    """The order as it will be stored. Raises `Invalid` for an unknown SKU, mixed currencies, or
    a sum that no bigint can hold."""
    unknown = [sku for sku in items if sku not in prices]
    if unknown:
        raise Invalid(
            f"There is no product {unknown[0]!r}.", hint="GET /api/v1/products lists them."
        )
    currencies = {prices[sku].currency for sku in items}
    if len(currencies) > 1:
        raise Invalid("One order has one currency.", hint="Place one order for each currency.")
    lines = tuple(
        Line(sku, quantity, prices[sku].cents, prices[sku].name) for sku, quantity in items.items()
    )
    total = sum(line.quantity * line.unit_price_cents for line in lines)
    if total > MAX_CENTS:
        raise Invalid("The order's total is too large.", hint="Place several smaller orders.")
    return Order(
        id=order_id(int(at.timestamp() * 1000), slot_of(user_id), random_bits),
        user_id=user_id,
        saga=Saga(),
        currency=currencies.pop(),
        total_cents=total,
        payment_method=payment_method,
        lines=lines,
        created_at=at,
        updated_at=at,
    )


def keywords(order: Order) -> str:
    """What a search finds the order by."""
    return " ".join(word for line in order.lines for word in (line.sku, line.name) if word)


def advance(saga: Saga, event: Event) -> Advance:
    """The saga after an answer of inventory or payments. Raises `Poison` for anything else.

    What was returned or refunded stays so, whichever older answer comes late. Of other answers
    the newest counts.
    """
    stock, payment = saga.stock, saga.payment
    held = False
    if event.kind in STOCK_ANSWERS:
        answered = STOCK_ANSWERS[event.kind]
        held = answered == "reserved"
        stock = stock if stock == "returned" else answered
    else:
        paid = _payment(event)
        held = paid == "captured"
        payment = payment if payment == "refunded" else paid
    after = _concluded(Saga(saga.status, stock, payment, saga.reason))
    if after.status != "cancelled":
        return Advance(after)
    # Cancelled by this answer, or too late for it: whoever holds something must let it go. A
    # repeated answer is no news, unless it says that something settled is held after all.
    fresh = saga.status != "cancelled" or (held and (after != saga or after.settled))
    return Advance(after, "OrderCancelled" if fresh else None)


def cancel(saga: Saga) -> Advance:
    """The saga after its owner's wish. Cancelling again changes nothing."""
    if saga.status == "cancelled":
        return Advance(saga)
    return Advance(Saga("cancelled", saga.stock, saga.payment, REQUESTED), "OrderCancelled")


def question(saga: Saga) -> Kind | None:
    """The event whose answers an order waits for."""
    if saga.settled:
        return None
    return "OrderCreated" if saga.status == "placed" else "OrderCancelled"


def ask_again_at(changed: datetime, asked: datetime, first: timedelta = ASK_FIRST) -> datetime:
    """When an order that changed and asked then asks again: after `first`, then as long as it has
    waited, at most 10 minutes."""
    return asked + min(max(asked - changed, first), ASK_LAST)


def _payment(event: Event) -> Payment:
    if event.kind == "PaymentRefunded":
        return "refunded"
    status = event.payload.get("status")
    if event.kind != "PaymentProcessed" or status not in ("captured", "declined", "void"):
        raise Poison(f"{event.kind} with status {status!r} is no answer")
    return cast(Payment, status)


def _concluded(saga: Saga) -> Saga:
    """The status that the answers lead to."""
    if saga.status == "cancelled":
        return saga
    if saga.stock in NOTHING_TAKEN:
        return Saga("cancelled", saga.stock, saga.payment, REASONS[saga.stock])
    if saga.payment in NOTHING_PAID:
        return Saga("cancelled", saga.stock, saga.payment, REASONS[saga.payment])
    if saga.stock == "reserved" and saga.payment == "captured":
        return Saga("confirmed", saga.stock, saga.payment)
    return saga


def advance_all(saga: Saga, events: Iterable[Event]) -> Advance:
    """The saga after several answers, one after the other."""
    emit: Kind | None = None
    for event in events:
        step = advance(saga, event)
        saga, emit = step.saga, step.emit or emit
    return Advance(saga, emit)
