"""What all services share on the wire: ids, headers, answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from runtime.errors import Invalid
from runtime.position import Position
from runtime.shards import Done

MAX_ID = 2**63 - 1


def _positive_63_bits(text: str) -> str:
    if int(text) > MAX_ID:
        raise ValueError("ids are positive 63-bit integers")
    return text


Id = Annotated[
    str,
    StringConstraints(pattern=r"^[1-9][0-9]{0,18}$"),
    AfterValidator(_positive_63_bits),
]
# No control characters and no lone surrogates: what PostgreSQL can store as text.
Text = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,200}$")]
PositionHeader = Annotated[str | None, Header(alias="X-Regionctl-Position", max_length=120)]


class Money(BaseModel):
    amount: Annotated[str, Field(examples=["12.34"])]
    currency: str


def money(cents: int, currency: str) -> dict[str, str]:
    return {"amount": f"{cents // 100}.{cents % 100:02d}", "currency": currency}


def parse_id(text: str) -> int:
    """Raises `Invalid` when `text` is not a positive 63-bit integer."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) <= MAX_ID):
        raise Invalid("An id is a positive 63-bit integer, written in decimal.")
    return int(text)


def parse_position(text: str | None) -> Position | None:
    return Position.parse(text) if text else None


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(document, separators=(",", ":"))
    return Response(body, status, headers, media_type="application/json")


def placed_at(done: Done[Any], xid: int | None = None) -> dict[str, str]:
    """The headers that say where the work was done, and, for a write, what to wait for."""
    headers = {
        "X-Regionctl-Shard": done.place.shard.name,
        "X-Regionctl-Epoch": str(done.place.epoch),
        "X-Regionctl-Region": done.endpoint.region,
        "X-Regionctl-Instance": done.endpoint.instance,
    }
    if xid is not None:
        headers["X-Regionctl-Position"] = str(
            Position(done.place.shard.name, done.place.epoch, xid)
        )
    return headers
