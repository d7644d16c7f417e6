"""Decisions about orders. Pure: time, randomness and prices are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from runtime.errors import Invalid
from runtime.shardmap import SLOTS, slot_of

RANDOM_BITS = 12


@dataclass(frozen=True)
class Price:
    cents: int
    currency: str


@dataclass(frozen=True)
class Line:
    sku: str
    quantity: int
    unit_price_cents: int


@dataclass(frozen=True)
class Order:
    id: int
    user_id: int
    status: str
    currency: str
    total_cents: int
    lines: tuple[Line, ...]
    created_at: datetime


def order_id(unix_ms: int, slot: int, random_bits: int) -> int:
    """41 bits of milliseconds, 10 bits of slot, 12 random bits: 63 bits, growing with time."""
    return ((unix_ms & (1 << 41) - 1) << 22) | (slot << RANDOM_BITS) | (random_bits & 0xFFF)


def slot_of_order(id: int) -> int:
    return (id >> RANDOM_BITS) & (SLOTS - 1)


def merged(items: Iterable[tuple[str, int]]) -> dict[str, int]:
    """One line a SKU, by SKU: two lines of the same SKU are one of their sum."""
    total: dict[str, int] = {}
    for sku, quantity in items:
        total[sku] = total.get(sku, 0) + quantity
    return dict(sorted(total.items()))


def digest(user_id: int, items: Mapping[str, int]) -> bytes:
    """What makes two requests the same request."""
    return hashlib.sha256(json.dumps([user_id, list(items.items())]).encode()).digest()


def draft(
    user_id: int,
    items: Mapping[str, int],
    prices: Mapping[str, Price],
    at: datetime,
    random_bits: int,
) -> Order:
    """The order as it will be stored. Raises `Invalid` for an unknown SKU or mixed currencies."""
    unknown = [sku for sku in items if sku not in prices]
    if unknown:
        raise Invalid(
            f"There is no product {unknown[0]!r}.", hint="GET /api/v1/products lists them."
        )
    currencies = {prices[sku].currency for sku in items}
    if len(currencies) > 1:
        raise Invalid("One order has one currency.", hint="Place one order for each currency.")
    lines = tuple(Line(sku, quantity, prices[sku].cents) for sku, quantity in items.items())
    return Order(
        id=order_id(int(at.timestamp() * 1000), slot_of(user_id), random_bits),
        user_id=user_id,
        status="placed",
        currency=currencies.pop(),
        total_cents=sum(line.quantity * line.unit_price_cents for line in lines),
        lines=lines,
        created_at=at,
    )
