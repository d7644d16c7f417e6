"""Orders on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from runtime.orders import rules
from runtime.wire import Id, Money, Text, money

Method = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class NewItem(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sku: Text
    quantity: Annotated[int, Field(strict=True, ge=1, le=1000)]


class NewOrder(BaseModel):
    """Without `user_id` the order is the caller's own."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id | None = None
    items: Annotated[list[NewItem], Field(min_length=1, max_length=50)]
    payment_method: Method = "card"


class Item(BaseModel):
    sku: str
    name: str
    quantity: int
    unit_price: Money


class Order(BaseModel):
    """`reason` says why it was cancelled: requested, out-of-stock, payment-declined, ..."""

    id: str
    user_id: str
    status: Literal["placed", "confirmed", "cancelled"]
    stock: Literal["pending", "reserved", "refused", "returned"]
    payment: Literal["pending", "captured", "declined", "void", "refunded"]
    payment_method: str
    reason: str | None
    total: Money
    items: list[Item]
    created_at: str
    updated_at: str


class OrderPage(BaseModel):
    """`next` is the `cursor` of the following page; null on the last."""

    orders: list[Order]
    next: str | None


def document(order: rules.Order) -> dict[str, Any]:
    """An `Order` as JSON has it."""
    return {
        "id": str(order.id),
        "user_id": str(order.user_id),
        "status": order.saga.status,
        "stock": order.saga.stock,
        "payment": order.saga.payment,
        "payment_method": order.payment_method,
        "reason": order.saga.reason,
        "total": money(order.total_cents, order.currency),
        "items": [
            {
                "sku": line.sku,
                "name": line.name,
                "quantity": line.quantity,
                "unit_price": money(line.unit_price_cents, order.currency),
            }
            for line in order.lines
        ],
        "created_at": order.created_at.isoformat(),
        "updated_at": order.updated_at.isoformat(),
    }
