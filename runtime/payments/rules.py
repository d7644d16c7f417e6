"""Decisions about payments. Pure.

A payment is a row that is `pending` before the gateway is asked for anything, and the gateway is
asked under keys that follow from the order's id, so every question may be asked twice. Whatever
order the answers come in, a payment ends captured without a cancellation, or refunded, void or
declined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from runtime.events import Event, Kind, Poison, event_id, subject_of

Status = Literal["pending", "captured", "declined", "void", "refunded"]
Step = Literal["charge", "look", "refund"]
KEY_REMEMBERED = timedelta(hours=20)


@dataclass(frozen=True)
class Payment:
    """`cancel_requested`: the order was cancelled. Times and `version` are of the stored row."""

    user_id: int
    order_id: int
    amount_cents: int
    currency: str
    method: str
    status: Status = "pending"
    cancel_requested: bool = False
    transaction_id: str | None = None
    refund_id: str | None = None
    reason: str | None = None
    version: int = 1
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Created:
    amount_cents: int
    currency: str
    method: str


@dataclass(frozen=True)
class Cancelled:
    pass


@dataclass(frozen=True)
class Charged:
    """The gateway's answer to a charge; `transaction_id` is None when it made none."""

    transaction_id: str | None
    captured: bool
    reason: str | None = None


@dataclass(frozen=True)
class Refunded:
    transaction_id: str
    refund_id: str | None


@dataclass(frozen=True)
class NothingCharged:
    """The gateway knows of no charge for this order."""


Change = Created | Cancelled | Charged | Refunded | NothingCharged


@dataclass(frozen=True)
class Turn:
    """A change of one order's payment, and the trace that it belongs to."""

    user_id: int
    order_id: int
    change: Change
    traceparent: str | None = None

    @property
    def asks(self) -> bool:
        """Whether somebody waits for an answer even when nothing changes."""
        return isinstance(self.change, Created | Cancelled)


@dataclass(frozen=True)
class Charge:
    """What the gateway has for `reference`, last changed at `changed` (its own cursor, µs)."""

    id: str
    reference: str
    status: Literal["captured", "declined", "refunded"]
    reason: str | None
    refund_id: str | None
    changed: int


def turn_of(event: Event) -> Turn | None:
    """What an event asks for; None when it is not about payments. Raises `Poison`."""
    if event.kind not in ("OrderCreated", "OrderCancelled"):
        return None
    order_id, user_id = subject_of(event)
    if not (0 < order_id < 2**63 and 0 < user_id < 2**63):
        raise Poison("ids are positive 63-bit integers")
    if event.kind == "OrderCancelled":
        return Turn(user_id, order_id, Cancelled(), event.traceparent)
    amount = event.payload.get("total_cents")
    currency = event.payload.get("currency")
    method = event.payload.get("payment_method", "card")
    if type(amount) is not int or not 0 <= amount < 2**63:
        raise Poison(f"total_cents: {amount!r}")
    for name, text in (("currency", currency), ("payment_method", method)):
        if not isinstance(text, str) or not 0 < len(text) <= 100 or not text.isprintable():
            raise Poison(f"{name}: {text!r}")
    return Turn(user_id, order_id, Created(amount, str(currency), method), event.traceparent)


def birth(turn: Turn) -> Payment | None:
    """The row that `turn` makes where there is none.

    A cancellation that comes first leaves one for the order to meet. It is void only when the
    gateway was asked: the row of a charge may have been lost with a region.
    """
    if isinstance(turn.change, Created):
        change = turn.change
        return Payment(
            turn.user_id, turn.order_id, change.amount_cents, change.currency, change.method
        )
    if isinstance(turn.change, Cancelled):
        return Payment(turn.user_id, turn.order_id, 0, "", "", cancel_requested=True)
    return None


def advance(payment: Payment, change: Change) -> Payment:
    """The payment after `change`; the same when it is no news."""
    match change:
        case Created() if not payment.method:
            return replace(
                payment,
                amount_cents=change.amount_cents,
                currency=change.currency,
                method=change.method,
            )
        case Cancelled():
            return replace(payment, cancel_requested=True)
        case Charged(captured=True):
            return _captured(payment, change)
        case Charged() if payment.status == "pending":
            return replace(
                payment,
                status="declined",
                transaction_id=change.transaction_id,
                reason=change.reason,
            )
        case Refunded() if payment.status != "refunded":
            return replace(
                payment,
                status="refunded",
                transaction_id=change.transaction_id,
                refund_id=change.refund_id,
            )
        case NothingCharged() if payment.status == "pending" and payment.cancel_requested:
            return replace(payment, status="void")
    return payment


def _captured(payment: Payment, change: Charged) -> Payment:
    """Money that came after the payment was given up is money to be returned."""
    if payment.status in ("captured", "refunded"):
        return payment
    return replace(
        payment,
        status="captured",
        cancel_requested=payment.cancel_requested or payment.status != "pending",
        transaction_id=change.transaction_id,
        reason=None,
    )


def next_step(payment: Payment) -> Step | None:
    """What is to be asked of the gateway.

    A cancelled payment that is pending may have been charged by a question whose answer was lost:
    look before it is called void.
    """
    if payment.status == "pending":
        return "look" if payment.cancel_requested else "charge"
    if payment.status == "captured" and payment.cancel_requested:
        return "refund"
    return None


def key_may_be_forgotten(payment: Payment, now: datetime) -> bool:
    """Whether a charge under the order's key might be made a second time: gateways remember a key
    for a day. What is so old is looked for first."""
    return payment.updated_at is not None and payment.updated_at < now - KEY_REMEMBERED


def charge_key(order_id: int) -> str:
    return str(order_id)


def refund_key(order_id: int | str) -> str:
    return f"{order_id}:refund"


def answer(payment: Payment) -> tuple[int, Kind, Mapping[str, Any]] | None:
    """(event id, kind, payload) that tells the state; None while there is more to come."""
    if next_step(payment) is not None:
        return None
    payload: dict[str, Any] = {
        "order_id": payment.order_id,
        "user_id": payment.user_id,
        "amount_cents": payment.amount_cents,
        "currency": payment.currency,
    }
    kind: Kind = "PaymentRefunded"
    if payment.status != "refunded":
        kind = "PaymentProcessed"
        payload |= {"status": payment.status, "reason": payment.reason}
    return event_id(payment.order_id, kind), kind, payload


def charge_of(document: Mapping[str, Any]) -> Charge:
    """The gateway's document of a charge. Raises `ValueError`."""
    try:
        id, reference, status = (document[name] for name in ("id", "reference", "status"))
        changed = document["changed"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a charge lacks {error}") from error
    reason, refund_id = document.get("reason"), document.get("refund_id")
    texts = (id, reference, status, reason or "", refund_id or "")
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise ValueError("a charge's members are texts")
    if status not in ("captured", "declined", "refunded") or type(changed) is not int:
        raise ValueError(f"a charge of status {status!r}, changed {changed!r}")
    return Charge(
        id,
        reference,
        cast(Literal["captured", "declined", "refunded"], status),
        reason,
        refund_id,
        changed,
    )


def order_of(reference: str) -> int | None:
    """The order that a charge names; None when it is none of ours."""
    if not (reference.isascii() and reference.isdigit() and len(reference) <= 19):
        return None
    order_id = int(reference)
    return order_id if 0 < order_id < 2**63 else None


def finding(charge: Charge) -> Charged | Refunded:
    """What a charge at the gateway says about its payment."""
    if charge.status == "refunded":
        return Refunded(charge.id, charge.refund_id)
    return Charged(charge.id, charge.status == "captured", charge.reason)


def reconciled(charge: Charge, payment: Payment | None) -> Change | Literal["return"] | None:
    """What an old charge calls for: a change of its order's payment, its money back, or nothing.

    `payment` None: there is no such order, because it was lost with a region.
    """
    if payment is not None:
        change = finding(charge)
        return change if advance(payment, change) != payment else None
    return "return" if charge.status == "captured" else None
