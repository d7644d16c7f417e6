"""Orders on the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from runtime.wire import Id, Money, Text


class NewItem(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sku: Text
    quantity: Annotated[int, Field(strict=True, ge=1, le=1000)]


class NewOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: Id
    items: Annotated[list[NewItem], Field(min_length=1, max_length=50)]


class Item(BaseModel):
    sku: str
    quantity: int
    unit_price: Money


class Order(BaseModel):
    id: str
    user_id: str
    status: str
    total: Money
    items: list[Item]
    created_at: str


class OrderPage(BaseModel):
    """`next` is the `cursor` of the following page; null on the last."""

    orders: list[Order]
    next: str | None
