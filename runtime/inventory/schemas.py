"""Products on the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from runtime.wire import Money, Text

Sku = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]


class Product(BaseModel):
    sku: str
    name: str
    price: Money
    stock: int


class ProductPage(BaseModel):
    """`next` is the cursor of the page that follows; None on the last one."""

    products: list[Product]
    next: str | None


class Price(BaseModel):
    model_config = ConfigDict(extra="forbid")

    amount: Annotated[
        str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{2})?$"), Field(examples=["12.34"])
    ]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["USD"])]


class ProductChange(BaseModel):
    """What is left out stays as it is. `add_stock` is added once for one Idempotency-Key."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    price: Price | None = None
    add_stock: Annotated[int, Field(ge=0, le=1_000_000_000, strict=True)] = 0
