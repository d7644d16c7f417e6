"""What a zone's gateway does: which server gets which path, and the check of access tokens.

The keys come from auth's `/.well-known/jwks.json`. They are fetched in the background, every 5 s
(Envoy: `cache_duration` less 5 s) and every second after a failure; no listener waits for them.
Keys that were fetched so are good until newer ones arrive, so auth may be away. A key id that is
not among them is refused, not looked up: a new key must be published 6 s before it signs. Until the
first keys have arrived a request with a token makes Envoy ask for them at once, and gets 503.

A token that was good once is remembered by its bytes until it expires. Services check every token
again, and also know the sessions that were revoked.

Plain JSON values. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from infra.local import envoy_config as config
from infra.local.envoy_config import JSON
from infra.local.envoy_listener import http_filter
from infra.local.envoy_replies import set_headers

AUTH = "auth"
OBJECTS = "objects"
AUDIENCE = "regionctl"
JWKS_PATH = "/.well-known/jwks.json"
SCHEMES = ("Bearer", "bearer", "BEARER")
PROVIDER = "regionctl"
KEY_SECONDS = 10
LEEWAY_SECONDS = 30
TOKENS_REMEMBERED = 10_000

Match = Mapping[str, object]


def _path(path: str) -> JSON:
    return {"path": path}


def _below(path: str) -> JSON:
    """The path itself and everything under it, not what merely begins alike."""
    return {"path_separated_prefix": path}


def _order(part: str) -> JSON:
    return {"safe_regex": {"regex": f"/api/v1/orders/[^/]+/{part}"}}


# The first that matches wins.
ROUTES: tuple[tuple[Match, str], ...] = (
    (_order("(payment|invoice)"), "payments"),
    (_order("notifications"), "notifications"),
    (_below("/api/v1/orders"), "orders"),
    (_below("/api/v1/users"), "users"),
    (_below("/api/v1/products"), "inventory"),
    (_path("/api/v1/payments/webhook"), "payments"),
    (_below("/oauth"), AUTH),
    (_path(JWKS_PATH), AUTH),
    (_path("/.well-known/oauth-authorization-server"), AUTH),
    (_path("/api/v1/audit"), AUTH),
    (_below("/static"), "inventory"),
    (_path("/openapi.json"), "inventory"),
)
SERVICES = frozenset(service for _, service in ROUTES)
READS = ("GET", "HEAD")
# Paths that need no token; one that is sent must be good all the same.
PUBLIC: tuple[tuple[Match, tuple[str, ...]], ...] = (
    (_path("/oauth/token"), ("POST",)),
    (_path("/oauth/revoke"), ("POST",)),
    ({"prefix": "/.well-known/"}, READS),
    (_path("/api/v1/users"), ("POST",)),
    (_below("/api/v1/products"), READS),
    (_below("/static"), READS),
    (_path("/openapi.json"), READS),
    (_path("/api/v1/payments/webhook"), ("POST",)),
)


def routes() -> list[JSON]:
    found = [_health_route()]
    for match, service in ROUTES:
        found += config.routes(service, match, config.SERVICE_RETRIES)
    return [*found, _objects_route(), _unknown_route()]


def _objects_route() -> JSON:
    """Signed URLs of invoices, for the region's object store: its S3 signature covers the host,
    the path and the query, so all three stay as they are. Without a signature there is no route."""
    signed = {"name": "X-Amz-Signature", "present_match": True}
    route = config.routes(OBJECTS, {"prefix": "/invoices/"}, config.SERVICE_RETRIES)[0]
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    match = {"prefix": "/invoices/", "headers": [get], "query_parameters": [signed]}
    return {**route, "match": match, "request_headers_to_remove": ["authorization", "cookie"]}


def _health_route() -> JSON:
    return {
        "match": {"path": "/health/ready"},
        "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ready"}\n'}},
        "response_headers_to_add": set_headers({"content-type": "application/json"}),
    }


def _unknown_route() -> JSON:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 404}}


def token_check(issuer: str) -> JSON:
    """A filter that refuses requests whose token is not one of `issuer`'s, or is missing."""
    url = f"http://{AUTH}{JWKS_PATH}"
    needed = {"provider_name": PROVIDER}
    optional = {"requires_any": {"requirements": [needed, {"allow_missing": {}}]}}
    provider = {
        "issuer": issuer,
        "audiences": [AUDIENCE],
        "forward": True,
        "clock_skew_seconds": LEEWAY_SECONDS,
        "require_expiration": True,
        # The scheme's case does not matter (RFC 9110); Envoy compares it as it is written.
        "from_headers": [
            {"name": "Authorization", "value_prefix": f"{scheme} "} for scheme in SCHEMES
        ],
        "jwt_cache_config": {"jwt_cache_size": TOKENS_REMEMBERED},
        "remote_jwks": {
            "http_uri": {"uri": url, "cluster": AUTH, "timeout": "2s"},
            "cache_duration": f"{KEY_SECONDS}s",
            "async_fetch": {"fast_listener": True, "failed_refetch_duration": "1s"},
        },
    }
    rules: list[JSON] = [{"match": {"prefix": path}} for path in ("/health/", "/invoices/")]
    rules += [
        {"match": {**match, "headers": [_methods(methods)]}, "requires": optional}
        for match, methods in PUBLIC
    ]
    rules.append({"match": {"prefix": "/"}, "requires": needed})
    return http_filter(
        "jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        {"providers": {PROVIDER: provider}, "rules": rules, "bypass_cors_preflight": True},
    )


def _methods(methods: tuple[str, ...]) -> JSON:
    if len(methods) == 1:
        return {"name": ":method", "string_match": {"exact": methods[0]}}
    return {"name": ":method", "string_match": {"safe_regex": {"regex": "|".join(methods)}}}
