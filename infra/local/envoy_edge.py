"""What the edge does before a request reaches a region: it refuses what no client of ours sends,
holds back floods, answers CORS and keeps short copies of public documents.

Only documents with a fixed address are kept, and only under the platform's own host: Envoy's memory
cache has no limit of its own, so no client may choose what goes into it. Requests with a query, a
token or a validator (If-None-Match) go to the service, which alone can answer 304. The cache sends
a request on by itself, without the retries of its route, so it sends to a listener inside this
Envoy, `origin`, whose routes have them: a killed gateway is hidden there too.

Plain JSON values. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from infra.local import envoy_config as config
from infra.local.envoy_config import JSON, TYPES
from infra.local.envoy_listener import http_filter
from infra.local.envoy_replies import MAX_BODY, MAX_URL, METHODS, set_headers

REGION = "region"
ORIGIN = "origin"
CACHE = "cache"
BUFFER = "envoy.filters.http.buffer"
SAFETY: Mapping[str, str] = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# Headers by which a client could pass for the edge, for another client or for another request.
TAKEN_OFF = (
    "forwarded",
    "true-client-ip",
    "x-client-ip",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-http-method-override",
    "x-original-url",
    "x-real-ip",
    "x-regionctl-client",
    "x-regionctl-role",
    "x-regionctl-subject",
    "x-rewrite-url",
)
CONTENT = r"(?i)application/(json|x-www-form-urlencoded|[a-z0-9.+-]+\+json)[ \t]*(;.*)?"
# RE2 repeats a thousand times at most.
TOO_LONG = ".{1000}" * (MAX_URL // 1000) + f".{{{MAX_URL % 1000 + 1}}}.*"
TRICKS = r"[^?]*/\.\..*|.*(%00|\\).*"
KEPT = ("/api/v1/products", "/openapi.json")
KEPT_FILES = "/static/[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
READ_HEADERS = (
    "ETag",
    "Location",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Regionctl-Position",
    "X-Request-Id",
)
SENT_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "X-Regionctl-Position",
    "X-Request-Id",
)


@dataclass(frozen=True)
class Guard:
    """`entry_url` is the platform's own address: answers are kept for it alone, none without it.

    `origins`: the sites whose scripts may call the platform ("https://shop.example").
    `per_second` requests are taken from one client address, `burst` at once.
    """

    entry_url: str = ""
    origins: tuple[str, ...] = ()
    per_second: int = 2000
    burst: int = 4000


def filters(guard: Guard) -> list[JSON]:
    found = [_safety(), _flood_guard(guard)]
    if guard.origins:
        found.append(http_filter("cors", "cors.v3.Cors", {}))
    found.append(http_filter("buffer", "buffer.v3.Buffer", {"max_request_bytes": MAX_BODY}))
    if guard.entry_url:
        found.append(_cache())
    return found


def virtual_host(guard: Guard) -> JSON:
    """What holds for every route."""
    if not guard.origins:
        return {}
    return {"typed_per_filter_config": {"envoy.filters.http.cors": _cors(guard.origins)}}


def routes(guard: Guard) -> list[JSON]:
    found = _refusals()
    if guard.entry_url:
        found += _kept(urlsplit(guard.entry_url).netloc)
    return found + origin_routes()


def origin_routes() -> list[JSON]:
    """To the region that serves, whatever the path."""
    return config.routes(REGION, {"prefix": "/"}, config.GATEWAY_RETRIES)


def _refusals() -> list[JSON]:
    bodiless = _regex(":method", "GET|HEAD|DELETE|OPTIONS")
    empty = {"name": "content-length", "string_match": {"exact": "0"}, "invert_match": True}
    return [
        {**_refusal(405, []), "match": {"connect_matcher": {}}},
        _refusal(405, [_regex(":method", "|".join(METHODS)) | {"invert_match": True}]),
        _refusal(414, [_regex(":path", TOO_LONG)]),
        _refusal(400, [_regex(":path", TRICKS)]),
        _refusal(
            400,
            [bodiless, {"name": "content-length", "present_match": True}, empty],
        ),
        _refusal(
            415,
            [
                _regex(":method", "POST|PATCH"),
                {"name": "content-type", "present_match": True},
                _regex("content-type", CONTENT) | {"invert_match": True},
            ],
        ),
    ]


def _refusal(status: int, conditions: Sequence[JSON]) -> JSON:
    """Answered at once: the body, which may never end, is not waited for."""
    unread = {"@type": f"{TYPES}.extensions.filters.http.buffer.v3.BufferPerRoute"}
    return {
        "match": {"prefix": "/", "headers": list(conditions)},
        "direct_response": {"status": status},
        "typed_per_filter_config": {BUFFER: {**unread, "disabled": True}},
    }


def _regex(name: str, pattern: str) -> JSON:
    return {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}


def _kept(host: str) -> list[JSON]:
    """The routes whose answers are kept as long as their Cache-Control says."""
    conditions: list[JSON] = [
        {"name": ":method", "string_match": {"exact": "GET"}},
        {"name": ":authority", "string_match": {"exact": host}},
    ]
    for header in ("authorization", "if-none-match", "range", "x-regionctl-position"):
        conditions.append({"name": header, "present_match": False})
    paths = [{"name": ":path", "string_match": {"exact": path}} for path in KEPT]
    paths.append(_regex(":path", KEPT_FILES))
    use = {"@type": f"{TYPES}.config.route.v3.FilterConfig", "config": {}}
    return [
        {
            "match": {"prefix": "/", "headers": [path, *conditions]},
            "route": {"cluster": ORIGIN, "timeout": "15s"},
            "typed_per_filter_config": {f"envoy.filters.http.{CACHE}": use},
        }
        for path in paths
    ]


def _safety() -> JSON:
    """The first filter is the last that sees an answer: its headers are on all of them."""
    mutations: list[JSON] = [{"append": header} for header in set_headers(SAFETY)]
    mutations.append({"remove": "x-envoy-upstream-service-time"})
    return http_filter(
        "header_mutation",
        "header_mutation.v3.HeaderMutation",
        {"mutations": {"response_mutations": mutations}},
    )


def _cache() -> JSON:
    store = {"@type": f"{TYPES}.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig"}
    kept = http_filter(CACHE, "cache.v3.CacheConfig", {"typed_config": store})
    return {**kept, "disabled": True}


def _flood_guard(guard: Guard) -> JSON:
    """One bucket for each client address. The number of buckets is bounded: a flood from more
    addresses than that is not one that a single address makes."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    bucket = {
        "max_tokens": guard.burst,
        "tokens_per_fill": guard.per_second,
        "fill_interval": "1s",
    }
    whole = {"max_tokens": 1 << 30, "tokens_per_fill": 1 << 30, "fill_interval": "1s"}
    return http_filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        {
            "stat_prefix": "flood",
            "filter_enabled": always,
            "filter_enforced": always,
            "always_consume_default_token_bucket": False,
            "max_dynamic_descriptors": 50_000,
            "token_bucket": whole,
            "descriptors": [{"entries": [{"key": "remote_address"}], "token_bucket": bucket}],
            "rate_limits": [{"actions": [{"remote_address": {}}]}],
        },
    )


def _cors(origins: Sequence[str]) -> JSON:
    """Tokens are sent by the script, not by the browser, so credentials are not allowed."""
    return {
        "@type": f"{TYPES}.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin} for origin in origins],
        "allow_methods": ", ".join(METHODS),
        "allow_headers": ", ".join(SENT_HEADERS),
        "expose_headers": ", ".join(READ_HEADERS),
        "max_age": "600",
        "allow_credentials": False,
    }
