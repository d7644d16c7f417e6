"""The events that services tell each other by, and how one is read. Pure.

    kind              from       payload beside order_id and user_id
    OrderCreated      orders     items [[sku, quantity]], total_cents, currency, payment_method
    OrderCancelled    orders     items, reason
    StockReserved     inventory
    StockRefused      inventory  (too little of some product: nothing was taken)
    StockReturned     inventory  (put back, or never to be taken)
    PaymentProcessed  payments   status captured | declined | void, amount_cents, currency, reason
    PaymentRefunded   payments   amount_cents, currency

Every event may come twice, late, or in another order. A consumer that gets an event again answers
again: so whoever misses an answer only has to repeat the question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "OrderCreated",
    "OrderCancelled",
    "StockReserved",
    "StockRefused",
    "StockReturned",
    "PaymentProcessed",
    "PaymentRefunded",
]
STREAM = "events"
# What users are told of: for each of these the service of notifications leaves a row, though
# it may say that there was nothing to tell.
TOLD: tuple[Kind, ...] = ("OrderCreated", "OrderCancelled", "PaymentProcessed", "PaymentRefunded")
# From the catalog's outbox; all others come from the outbox of their user's shard.
OF_CATALOG: tuple[Kind, ...] = ("StockReserved", "StockRefused", "StockReturned")


@dataclass(frozen=True)
class Event:
    """`traceparent` (W3C Trace Context) is of the request that caused it, where that is traced."""

    id: int
    kind: str
    payload: Mapping[str, Any]
    traceparent: str | None = None


class Poison(Exception):
    """An event that no repetition will make good."""


def event_id(order_id: int, kind: Kind) -> int:
    """The same event has the same id however often it is made. OrderCreated has its order's."""
    if kind == "OrderCreated":
        return order_id
    digest = hashlib.blake2b(f"{order_id}:{kind}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1 or 1


def subject_of(event: Event) -> tuple[int, int]:
    """(order id, user id). Raises `Poison`."""
    try:
        return int(event.payload["order_id"]), int(event.payload["user_id"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Poison(repr(error)) from error


def items_of(event: Event) -> tuple[tuple[str, int], ...]:
    """Distinct SKUs with positive quantities. Raises `Poison`."""
    try:
        items = tuple((str(sku), int(quantity)) for sku, quantity in event.payload["items"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Poison(repr(error)) from error
    whole = all(0 < quantity < 2**31 for _, quantity in items)
    if not items or not whole or len(dict(items)) != len(items):
        raise Poison("items must be distinct, with positive quantities")
    return items


def encode(event: Event) -> dict[str, str]:
    """The fields of its entry in a stream."""
    fields = {"id": str(event.id), "kind": event.kind, "payload": json.dumps(dict(event.payload))}
    return fields | ({"traceparent": event.traceparent} if event.traceparent else {})


def decode(fields: Mapping[bytes, bytes]) -> Event:
    """The event of an entry's fields. Raises `Poison`."""
    try:
        payload = json.loads(fields[b"payload"])
        if not isinstance(payload, dict):
            raise ValueError("payload is not an object")
        traceparent = fields.get(b"traceparent", b"").decode() or None
        return Event(int(fields[b"id"]), fields[b"kind"].decode(), payload, traceparent)
    except (KeyError, ValueError) as error:
        raise Poison(repr(error)) from error
