"""Payments on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from runtime.wire import Money

GatewayText = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[ -~]+$")]


class Payment(BaseModel):
    """`status`: pending | captured | declined | void (never charged) | refunded."""

    order_id: str
    user_id: str
    status: str
    amount: Money
    method: str
    transaction_id: str | None
    refund_id: str | None
    reason: str | None
    cancel_requested: bool
    updated_at: str


class Invoice(BaseModel):
    """`url` needs no token until `expires_at`."""

    url: str
    expires_at: str


class HookData(BaseModel):
    """What the gateway tells of a charge; what it tells beside is passed over."""

    id: GatewayText
    reference: Annotated[str, Field(max_length=200)]
    status: Literal["captured", "declined", "refunded"]
    reason: GatewayText | None = None
    refund_id: GatewayText | None = None
    changed: int = 0


class Hook(BaseModel):
    type: Annotated[str, Field(max_length=100)]
    data: HookData
