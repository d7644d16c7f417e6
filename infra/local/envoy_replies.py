"""Answers that Envoy itself gives to a request that it refuses or cannot deliver, as RFC 9457
problem documents, and the log of such requests. Plain JSON values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from infra.local.envoy_config import JSON, TYPES

MAX_BODY = 1 << 20
MAX_HEADERS = 100
MAX_HEADERS_KB = 32
MAX_URL = 8192
METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")
# Envoy's own text about the request; the detail of a refusal that has no text of its own.
REASON = "%LOCAL_REPLY_BODY%"
LOGIN = "POST /oauth/token, then send the header Authorization: Bearer TOKEN."
BAD = "The proxy does not take a request with such a path, such headers or such a body."
MISSING = "jwt_authn_access_denied{Jwt_is_missing}"
NO_KEYS = "jwt_authn_access_denied{Jwks_remote_fetch_is_failed}"
# Response flags that are worth a line: all but those of answers from the cache and of floods.
TROUBLES = (
    *("LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "UAEX", "RLSE", "DC"),
    *("URX", "SI", "IH", "DPE", "UMSDR", "NFCF", "NC", "OM", "DF", "DO", "DR", "UDO", "DT"),
    "UPE",
)
CHALLENGE = 'Bearer realm="regionctl"'
FOUND: tuple[tuple[int, str, str, str, str], ...] = (
    (400, "Invalid", "Bad request", BAD, ""),
    (403, "Forbidden", "Refused by the proxy", "The proxy does not do that.", ""),
    (404, "NotFound", "Not found", "Nothing has that path.", ""),
    (405, "Invalid", "Method not allowed", "The platform has no such method.", ""),
    (413, "Invalid", "Content too large", f"A body has {MAX_BODY} bytes at most.", ""),
    (414, "Invalid", "URI too long", f"A URL has {MAX_URL} bytes at most.", ""),
    (
        415,
        "Invalid",
        "Unsupported media type",
        "That is no type of content that the platform reads.",
        "Send Content-Type: application/json.",
    ),
    (
        429,
        "TooManyRequests",
        "Too many requests",
        "This address sends more requests than the platform takes from one.",
        "Wait as long as Retry-After says.",
    ),
    (
        431,
        "Invalid",
        "Request header fields too large",
        f"A request has {MAX_HEADERS} headers and {MAX_HEADERS_KB} KiB of them at most.",
        "",
    ),
    (503, "Unavailable", "Unavailable", "No server can take this request now. Try again.", ""),
    (
        504,
        "TimedOut",
        "Timed out",
        "The server did not answer in time. Ask what became of it.",
        "",
    ),
)
HEADERS: Mapping[int, Mapping[str, str]] = {
    405: {"allow": ", ".join(METHODS)},
    429: {"retry-after": "1"},
    503: {"retry-after": "1"},
}


def local_replies(extra: Mapping[str, str] | None = None) -> list[JSON]:
    """How each refusal is worded; `extra` are headers that all of them get."""
    headers = extra or {}
    mappers = [
        _mapper(
            _status_filter("EQ", status, "local_reply"),
            _document(kind, title, detail, hint),
            {**headers, **HEADERS.get(status, {})},
        )
        for status, kind, title, detail, hint in FOUND
    ]
    other = _document("", "Refused by the proxy", REASON, "")
    mappers.append(_mapper(_status_filter("GE", 400, "local_reply"), other, headers))
    return mappers


def token_replies() -> list[JSON]:
    """What the token check says of its own: these come before `local_replies`.

    Without keys no token can be checked, which is no fault of the client: 503, not 401. A token
    for another audience is 401 here as in the services; Envoy's own answer is 403. Envoy's own
    challenge would repeat the URL.
    """
    no_keys = "Tokens cannot be checked just now. Try again."
    unavailable = _document("Unavailable", "Unavailable", no_keys, "")
    missing = _document("Unauthorized", "Unauthorized", "This needs an access token.", LOGIN)
    wrong = _document("Unauthorized", "Unauthorized", f"{REASON}.", LOGIN)
    refused = {"www-authenticate": f'{CHALLENGE}, error="invalid_token"'}
    found = [
        _mapper(_code_details(NO_KEYS), unavailable, {"retry-after": "1"}) | {"status_code": 503},
        _mapper(_code_details(MISSING), missing, {"www-authenticate": CHALLENGE}),
    ]
    for status in (401, 403):
        condition = _status_filter("EQ", status, "local_reply")
        found.append(_mapper(condition, wrong, refused) | {"status_code": 401})
    return found


def _document(kind: str, title: str, detail: str, hint: str) -> JSON:
    document: JSON = {
        "type": f"urn:regionctl:problem:{kind}" if kind else "about:blank",
        "title": title,
        "status": "%RESPONSE_CODE%",
        "detail": detail,
        "requestId": "%REQ(X-REQUEST-ID)%",
    }
    return document | ({"hint": hint} if hint else {})


def _mapper(condition: JSON, document: JSON, headers: Mapping[str, str]) -> JSON:
    mapper: JSON = {
        "filter": condition,
        "body_format_override": {
            "json_format": document,
            "content_type": "application/problem+json",
            "omit_empty_values": True,
        },
    }
    if headers:
        mapper["headers_to_add"] = set_headers(headers)
    return mapper


def set_headers(headers: Mapping[str, str]) -> list[JSON]:
    """Headers with exactly these values, whatever was there before."""
    return [
        {
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for name, value in headers.items()
    ]


def _status_filter(operator: str, status: int, key: str) -> JSON:
    value = {"default_value": status, "runtime_key": f"{key}_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _code_details(text: str) -> JSON:
    """Whether Envoy's reason for the answer is exactly `text`."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": f"{TYPES}.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": f"response.code_details == '{text}'",
            },
        }
    }


def trouble_log() -> JSON:
    """Requests that failed, on stderr. Response flags also show answers that broke off."""
    return {
        "name": "envoy.access_loggers.stderr",
        "filter": {
            "or_filter": {
                "filters": [
                    _status_filter("GE", 500, "trouble"),
                    {"response_flag_filter": {"flags": list(TROUBLES)}},
                ]
            }
        },
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.stream.v3.StderrAccessLog",
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "request": "%REQ(X-REQUEST-ID)%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%PATH(NQ)%",
                    "status": "%RESPONSE_CODE%",
                    "flags": "%RESPONSE_FLAGS%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "upstream": "%UPSTREAM_HOST%",
                    "milliseconds": "%DURATION%",
                }
            },
        },
    }
