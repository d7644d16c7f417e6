"""Auth on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from runtime.auth.forms import FORM, LENGTH


class Token(BaseModel):
    """RFC 6749 5.1; `user_id` is an addition. A client that acts for itself gets neither of the
    last two."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str | None = None
    user_id: str | None = None


class Ended(BaseModel):
    """Empty: whether there was a session to end is not told."""


class KeySet(BaseModel):
    """RFC 7517: public keys only."""

    keys: list[dict[str, Any]]


class ServerMetadata(BaseModel):
    """RFC 8414."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
    scopes_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]


class SigningKey(BaseModel):
    """`active_from`: when it begins to sign."""

    kid: str
    active_from: str
    expires_at: str


class AuditEvent(BaseModel):
    id: str
    at: str
    action: str
    outcome: str
    actor: str
    subject: str
    address: str
    request_id: str
    detail: dict[str, Any]


class AuditPage(BaseModel):
    """`next` is the `cursor` of the following page; null on the last."""

    events: list[AuditEvent]
    next: str | None


def form_body(required: list[str], *names: str) -> dict[str, Any]:
    """How OpenAPI describes a form of text fields."""
    text = {"type": "string", "maxLength": LENGTH, "pattern": r"^[^\x00-\x1f\x7f]*$"}
    properties = dict.fromkeys((*required, *names), text)
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}
