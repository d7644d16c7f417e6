"""Which event tells a user what. Pure.

    OrderCreated                 the order was received
    OrderCancelled               it was cancelled, and why
    PaymentProcessed captured    a receipt
    PaymentProcessed declined    the payment was declined
    PaymentRefunded              a refund

Nothing that a user may choose reaches a header except the name, and that without any character
that is not printable; the mail library encodes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runtime.events import TOLD, Event, Poison, items_of, subject_of

Status = Literal["sent", "failed", "skipped"]

MAIL_DOMAIN = "regionctl.example"
SENDER = f"orders@{MAIL_DOMAIN}"
NAME_LIMIT = 200
REASONS = {
    "requested": "You asked for it.",
    "out-of-stock": "A product is out of stock.",
    "payment-declined": "Your payment was declined.",
}


@dataclass(frozen=True)
class Notice:
    """What there is to say; `subject` is None when that is nothing."""

    event_id: int
    order_id: int
    user_id: int
    kind: str
    subject: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Recipient:
    user_id: int
    email: str
    name: str


@dataclass(frozen=True)
class Record:
    """What became of a notice."""

    user_id: int
    event_id: int
    kind: str
    recipient: str
    status: Status
    reason: str | None = None


@dataclass(frozen=True)
class Mail:
    """`id` is the Message-ID: the same for the same notice, so a second copy is recognised."""

    id: str
    to: str
    name: str
    subject: str
    text: str


def notice_of(event: Event) -> Notice | None:
    """None for an event that is none of ours. Raises `Poison`."""
    if event.kind not in TOLD:
        return None
    order_id, user_id = subject_of(event)
    subject, text = _words(event, order_id)
    return Notice(event.id, order_id, user_id, event.kind, subject, text)


def mail_of(notice: Notice, recipient: Recipient) -> Mail:
    """`notice` has a subject."""
    assert notice.subject is not None
    name = printable(recipient.name)
    text = f"Hello {name},\n\n{notice.text}\n\nYour order: {notice.order_id}\n"
    id = f"<{notice.event_id}@{MAIL_DOMAIN}>"
    return Mail(id, recipient.email, name, notice.subject, text)


def skipped(notice: Notice, reason: str | None = None) -> Record:
    return Record(notice.user_id, notice.event_id, notice.kind, "", "skipped", reason)


def printable(text: str) -> str:
    """`text` on one line, without characters that mail programs might act upon."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(shown.split())[:NAME_LIMIT]


def amount(payload: Mapping[str, Any], name: str = "amount_cents") -> str:
    """Raises `Poison`."""
    try:
        cents, currency = int(payload[name]), printable(str(payload["currency"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Poison(repr(error)) from error
    if cents < 0:
        raise Poison(f"{name} is negative")
    return f"{cents // 100}.{cents % 100:02d} {currency}"


def _words(event: Event, order_id: int) -> tuple[str | None, str]:
    payload = event.payload
    if event.kind == "OrderCreated":
        lines = [f"  {quantity} x {printable(sku)}" for sku, quantity in items_of(event)]
        total = amount(payload, "total_cents")
        text = "\n".join(["We have received your order:", "", *lines, "", f"Total: {total}"])
        return f"Order received: {order_id}", text
    if event.kind == "OrderCancelled":
        reason = printable(str(payload.get("reason") or "requested"))
        why = REASONS.get(reason, f"Reason: {reason}.")
        return f"Order cancelled: {order_id}", f"Your order was cancelled. {why}"
    if event.kind == "PaymentRefunded":
        return f"Refund: {order_id}", f"We have returned {amount(payload)} to you."
    if payload.get("status") == "captured":
        return f"Receipt: {order_id}", f"We have received your payment of {amount(payload)}."
    if payload.get("status") == "declined":
        text = f"Your payment of {amount(payload)} was declined."
        return f"Payment declined: {order_id}", text
    if payload.get("status") == "void":
        return None, ""
    raise Poison("a payment that is neither captured, declined nor void")
