"""What all services share on the wire: ids, headers, answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from runtime.errors import Invalid
from runtime.position import Position
from runtime.shardmap import Placement
from runtime.shards import Done

MAX_ID = 2**63 - 1
PRIVATE = {"Cache-Control": "private, no-cache"}
# For `openapi_extra` of a route: the token is checked around the service, not by the framework.
SECURED: dict[str, Any] = {"security": [{"oauth2": []}]}


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
IfNoneMatch = Annotated[str | None, Header(max_length=2000)]
CacheControl = Annotated[str | None, Header(max_length=200)]
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


def compact(document: Any) -> bytes:
    """As JSON without spaces."""
    return json.dumps(document, separators=(",", ":")).encode()


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(compact(document), status, headers, media_type="application/json")


def tag_of(body: bytes) -> str:
    """An entity tag (RFC 9110 8.8.3) for what has no version of its own."""
    return f'"{hashlib.sha256(body).hexdigest()[:24]}"'


def tagged(
    body: bytes,
    tag: str,
    if_none_match: str | None,
    headers: Mapping[str, str],
    media_type: str = "application/json",
) -> Response:
    """`body` under its entity tag, or 304 for a client that has it."""
    headers = {**headers, "ETag": tag}
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has what `tag` names (RFC 9110 13.1.2: weak comparison)."""
    if not if_none_match:
        return False
    tags = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return tag in tags or tags == ["*"]


def cached_at(place: Placement) -> dict[str, str]:
    """The headers of an answer that may come from the cache: which server made it is not known."""
    return {"X-Regionctl-Shard": place.shard.name, "X-Regionctl-Epoch": str(place.epoch)}


def placed_at(done: Done[Any], xid: int | None = None) -> dict[str, str]:
    """The headers that say where the work was done, and, for a write, what to wait for."""
    headers = cached_at(done.place) | {
        "X-Regionctl-Region": done.endpoint.region,
        "X-Regionctl-Instance": done.endpoint.instance,
    }
    if xid is not None:
        headers["X-Regionctl-Position"] = str(
            Position(done.place.shard.name, done.place.epoch, xid)
        )
    return headers
