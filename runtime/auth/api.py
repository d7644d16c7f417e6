"""HTTP of auth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from runtime import audit
from runtime.auth import forms, tidy
from runtime.auth.grants import Grants
from runtime.auth.keys import Keys
from runtime.auth.schemas import (
    AuditPage,
    Ended,
    KeySet,
    ServerMetadata,
    SigningKey,
    Token,
    form_body,
)
from runtime.auth.throttle import Throttle
from runtime.context import Background, Context
from runtime.errors import Problem
from runtime.shards import catalog
from runtime.wire import MAX_ID, SECURED, answer, parse_id

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
# Shorter than the minute between a key's making and its first use.
KEYS_SECONDS = 15
CLIENT_CHALLENGE = 'Basic realm="regionctl"'


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes; beside them, signing keys are made, rotated and retired, and revocations and
    sessions that are of no use any more deleted."""
    keys = Keys(context.settings, context.shards, context.clock)
    grants = Grants(context, keys, Throttle(context.cache, context.clock))
    routes = APIRouter()
    _add_tokens(routes, grants)
    _add_metadata(routes, context)
    _add_administration(routes, context, keys)

    return routes, {
        "signing keys": keys.run,
        "revocations": partial(tidy.revocations, context),
        "sessions": partial(tidy.sessions, context),
    }


def _add_tokens(routes: APIRouter, grants: Grants) -> None:
    @routes.post(
        "/oauth/token",
        response_model=Token,
        openapi_extra=form_body(
            ["grant_type"],
            "username", "password", "refresh_token", "client_id", "client_secret",
        ),
    )  # fmt: skip
    async def token(request: Request) -> Response:
        async def granted() -> Response:
            form = await forms.read(request)
            key = request.headers.get("idempotency-key")
            document = await grants.token(form, key, audit.origin_of(request))
            return answer(document, headers=NO_STORE)

        return await _oauth(request, granted)

    @routes.post(
        "/oauth/revoke",
        response_model=Ended,
        openapi_extra=form_body(["token"], "token_type_hint", "client_id", "client_secret"),
    )
    async def revoke(request: Request) -> Response:
        async def revoked() -> Response:
            await grants.revoke(await forms.read(request), audit.origin_of(request))
            return answer({}, headers=NO_STORE)

        return await _oauth(request, revoked)


async def _oauth(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Refusals as RFC 6749 5.2 has them, which are problem documents too."""
    try:
        return await work()
    except Problem as error:
        document = error.document() | {"requestId": request.scope.get("request_id", "")}
        headers = dict(NO_STORE)
        if error.status == 401:
            headers["WWW-Authenticate"] = CLIENT_CHALLENGE
        if error.status in (429, 503):
            headers["Retry-After"] = str(error.extra.get("retryAfter", 1))
        refused = answer(forms.refusal(document, error, error.status), error.status, headers)
        refused.headers["content-type"] = "application/problem+json"
        return refused


def _add_metadata(routes: APIRouter, context: Context) -> None:
    issuer = context.settings.entry_url
    metadata = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth/token",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["password", "refresh_token", "client_credentials"],
        "response_types_supported": [],
        "scopes_supported": [],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic", "client_secret_post", "none",
        ],
    }  # fmt: skip
    short = {"Cache-Control": f"public, max-age={KEYS_SECONDS}"}

    @routes.get("/.well-known/jwks.json", response_model=KeySet)
    async def jwks() -> Response:
        return answer({"keys": await context.identity.public_keys()}, headers=short)

    @routes.get("/.well-known/oauth-authorization-server", response_model=ServerMetadata)
    async def server() -> Response:
        return answer(metadata, headers=short)


def _add_administration(routes: APIRouter, context: Context, keys: Keys) -> None:
    @routes.post("/oauth/keys", status_code=201, response_model=SigningKey, openapi_extra=SECURED)
    async def rotate(request: Request) -> Response:
        await audit.require_admin(context.shards, request, "keys.rotate")
        made = await keys.rotate()
        active = made.active_from.isoformat()
        event = audit.Event(
            "keys.rotate", "allowed", made.kid, audit.origin_of(request), {"active_from": active}
        )
        await audit.write(context.shards, event)
        document = {
            "kid": made.kid, "active_from": active, "expires_at": made.expires_at.isoformat(),
        }  # fmt: skip
        return answer(document, 201, NO_STORE)

    @routes.get("/api/v1/audit", response_model=AuditPage, openapi_extra=SECURED)
    async def page(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: str | None = None,
        action: Annotated[str | None, Query(pattern=r"^[a-z.]{1,40}$")] = None,
    ) -> Response:
        await audit.require_admin(context.shards, request, "audit.read")
        before = parse_id(cursor) if cursor else MAX_ID
        done = await context.shards.read(
            catalog, lambda connection, _: audit.page(connection, before, action, limit + 1)
        )
        events = done.value[:limit]
        following = str(events[-1].id) if len(done.value) > limit else None
        document = {"events": [_event(each) for each in events], "next": following}
        return answer(document, headers={"Cache-Control": "private, no-cache"})


def _event(recorded: audit.Recorded) -> dict[str, Any]:
    event = recorded.event
    return {
        "id": str(recorded.id),
        "at": recorded.at.isoformat(),
        "action": event.action,
        "outcome": event.outcome,
        "actor": event.origin.actor,
        "subject": event.subject,
        "address": event.origin.address,
        "request_id": event.origin.request_id,
        "detail": dict(event.detail),
    }
