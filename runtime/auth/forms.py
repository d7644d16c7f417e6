"""Requests and refusals of RFC 6749: form fields, client credentials, error codes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request

from runtime.errors import Invalid, Unauthorized

FORM = "application/x-www-form-urlencoded"
FIELDS = 20
LENGTH = 4096


class BadGrant(Invalid):
    """RFC 6749 5.2; `error` is one of its codes."""

    status = 400

    def __init__(self, error: str, detail: str, *, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.error = error


class BadClient(Unauthorized):
    """The client is unknown, or its secret is wrong; which one is not told."""

    error = "invalid_client"


@dataclass(frozen=True)
class Form:
    """The fields, each at most once, and who the client says to be; a public one has no secret."""

    fields: Mapping[str, str]
    client: str
    secret: str | None = field(repr=False, default=None)

    def __getitem__(self, name: str) -> str:
        """Raises `BadGrant` for a field that is needed and not there."""
        if not self.fields.get(name):
            raise BadGrant("invalid_request", f"The field {name} is missing.")
        return self.fields[name]


async def read(request: Request) -> Form:
    """Raises `BadGrant` or `BadClient`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise BadGrant("invalid_request", f"The body must be {FORM}.")
    fields = _fields(await request.body())
    basic = _basic(request.headers.get("authorization", ""))
    if basic and "client_secret" in fields:
        raise BadGrant("invalid_request", "The client has two ways to name itself; one is enough.")
    name, secret = basic or (fields.get("client_id", ""), fields.get("client_secret"))
    if basic and fields.get("client_id", name) != name:
        raise BadGrant("invalid_request", "The client has two names.")
    return Form(fields, name or "public", secret)


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS
        )
    except ValueError as error:
        raise BadGrant("invalid_request", "The body is no form.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadGrant("invalid_request", "A field is there twice.")
    for name, value in pairs:
        if len(value) > LENGTH or any(ord(sign) < 32 or ord(sign) == 127 for sign in value):
            raise BadGrant("invalid_request", f"The field {name[:40]!r} is malformed.")
    return fields


def _basic(header: str) -> tuple[str, str] | None:
    """RFC 6749 2.3.1: both parts are form-encoded within HTTP Basic."""
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
        name, colon, secret = text.partition(":")
        if not colon or not name:
            raise ValueError
        return unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error) as error:
        raise BadClient("The Authorization header is malformed.") from error


def refusal(document: Mapping[str, Any], error: Exception, status: int) -> dict[str, Any]:
    """The problem document, with what an OAuth client looks for."""
    code = getattr(error, "error", None) or (
        "temporarily_unavailable" if status in (429, 503) else "invalid_request"
    )
    return {"error": code, "error_description": document["detail"], **document}
