"""Products on the wire."""

from __future__ import annotations

from pydantic import BaseModel

from runtime.wire import Money


class Product(BaseModel):
    sku: str
    name: str
    price: Money
    stock: int


class ProductList(BaseModel):
    products: list[Product]
