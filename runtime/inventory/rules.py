"""Decisions about stock. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from runtime.events import Event, Poison

Outcome = Literal["reserved", "refused"]


@dataclass(frozen=True)
class Product:
    sku: str
    name: str
    price_cents: int
    currency: str
    stock: int


@dataclass(frozen=True)
class Demand:
    """What one order takes: quantities by SKU, all or nothing."""

    event_id: int
    order_id: int
    user_id: int
    items: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Movement:
    event_id: int
    order_id: int
    user_id: int
    sku: str
    quantity: int
    outcome: Outcome


def demand_of(event: Event) -> Demand | None:
    """What an event asks of the stock; None when it is not about stock. Raises `Poison`."""
    if event.kind != "OrderCreated":
        return None
    try:
        items = tuple((str(sku), int(quantity)) for sku, quantity in event.payload["items"])
        demand = Demand(
            event.id, int(event.payload["order_id"]), int(event.payload["user_id"]), items
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Poison(repr(error)) from error
    whole = all(0 < quantity < 2**31 for _, quantity in items)
    if not items or not whole or len(dict(items)) != len(items):
        raise Poison("items must be distinct, with positive quantities")
    return demand


def settle(
    demands: Iterable[Demand], stock: Mapping[str, int], known: frozenset[int]
) -> tuple[list[Movement], dict[str, int]]:
    """The movements that `demands` make, in order, and what each SKU loses.

    An event in `known`, or met a second time, makes none. An order that some SKU cannot serve
    is refused whole and takes nothing.
    """
    left = dict(stock)
    seen = set(known)
    movements: list[Movement] = []
    for demand in demands:
        if demand.event_id in seen:
            continue
        seen.add(demand.event_id)
        served = all(left.get(sku, 0) >= quantity for sku, quantity in demand.items)
        outcome: Outcome = "reserved" if served else "refused"
        for sku, quantity in demand.items:
            if served:
                left[sku] -= quantity
            movements.append(
                Movement(demand.event_id, demand.order_id, demand.user_id, sku, quantity, outcome)
            )
    taken = {sku: stock[sku] - left[sku] for sku in stock if left[sku] != stock[sku]}
    return movements, taken
