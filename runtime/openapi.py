"""The OpenAPI documents: what FastAPI cannot know of a service, and the one document of all.

python -m runtime.openapi     writes runtime/static/openapi.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from runtime.operations import (
    ABSENT,
    CONFLICTS,
    EXAMPLES,
    FORBIDDEN,
    GRANTS,
    LINKS,
    NAMES,
    NO_TOKEN,
    REFUSALS,
    Key,
)
from runtime.ratelimit import limit_of
from runtime.settings import Settings

FILE = Path(__file__).parent / "static" / "openapi.json"
FORM = "application/x-www-form-urlencoded"
ABOUT = """\
Users, products and orders of a shop that runs in several regions.

Get an access token from `POST /oauth/token` and send it as `Authorization: Bearer TOKEN`. Send an
`Idempotency-Key` with what must not happen twice, and repeat the request with the same key until
it is answered. Send back the `X-Regionctl-Position` of a write to read what was written, from any
copy. Refusals are RFC 9457 problem documents. Ids are 63-bit integers, written as strings.
"""
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457: why not, and what to do",
    "required": ["type", "title", "status", "detail", "requestId"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:regionctl:problem:NotFound"]},
        "title": {"type": "string", "examples": ["Not found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "examples": ["There is no order 1."]},
        "hint": {"type": "string"},
        "runbook": {"type": "string"},
        "extra": {"type": "object"},
        "requestId": {"type": "string"},
    },
}
_WHOLE = {"type": "string", "pattern": "^[0-9]+$"}
HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Id": ("Names the request in logs", {"type": "string"}),
    "RateLimit-Limit": ("Requests allowed in a minute", _WHOLE),
    "RateLimit-Remaining": ("Requests left of these", _WHOLE),
    "RateLimit-Reset": ("Seconds until one more is allowed", _WHOLE),
    "Retry-After": ("Seconds to wait before trying again", _WHOLE),
    "WWW-Authenticate": ("How to authenticate (RFC 6750)", {"type": "string"}),
    "ETag": ("Send it back as If-None-Match to learn whether there is news", {"type": "string"}),
    "X-Regionctl-Position": ("Send it back to read what was written", {"type": "string"}),
    "Idempotent-Replay": (
        "There when the Idempotency-Key was met before: this is the first answer",
        {"type": "string", "enum": ["true"]},
    ),
}
LIMITED = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
WRITES = frozenset(["post", "patch", "put", "delete"])
ID = "^[1-9][0-9]{0,18}$"
NONE_OR_ID = "^([1-9][0-9]{0,18})?$"
PATTERNS = {
    "order_id": ID,
    "user_id": ID,
    "cursor": NONE_OR_ID,
    "X-Regionctl-Position": r"^([a-z][a-z0-9-]{0,39}\.[0-9]{1,9}\.[0-9]{1,18})?$",
}


def describe(app: FastAPI, entry_url: str) -> None:
    """Adds to the document how operations refuse, their headers, names, examples and links, and
    the scheme that they name as {"oauth2": []}."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain(), entry_url)
        return plain()

    app.openapi = described  # type: ignore[method-assign]


def merged() -> dict[str, Any]:
    """One document of all services, the same whenever it is made. Nothing is connected to."""
    from runtime.app import SERVICES, build

    document: dict[str, Any] = {}
    for name in SERVICES:
        settings = Settings(name, name, "", "", Path(), "", "")
        part = build(settings).openapi()
        if not document:
            document = {**part, "info": {}, "paths": {}, "components": {}}
        document["paths"] |= part["paths"]
        for kind, things in part["components"].items():
            _merge(document["components"].setdefault(kind, {}), things)
    document["info"] = {"title": "regionctl", "version": "1.0.0", "description": ABOUT}
    document["servers"] = [{"url": "/"}]
    document["tags"] = [{"name": name} for name in SERVICES]
    document["paths"] = dict(sorted(document["paths"].items()))
    document["components"] = {
        kind: dict(sorted(things.items())) for kind, things in document["components"].items()
    }
    return document


def text() -> str:
    """The merged document as the file has it."""
    return json.dumps(merged(), indent=1, ensure_ascii=False) + "\n"


def _merge(into: dict[str, Any], things: Mapping[str, Any]) -> None:
    for name, thing in things.items():
        if into.setdefault(name, thing) != thing:
            raise ValueError(f"two services mean different things by {name}")


def _complete(document: dict[str, Any], entry_url: str) -> None:
    url = f"{entry_url}/oauth/token"
    flows = {
        "password": {"tokenUrl": url, "refreshUrl": url, "scopes": {}},
        "clientCredentials": {"tokenUrl": url, "scopes": {}},
    }
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"oauth2": {"type": "oauth2", "flows": flows}}
    components["headers"] = {
        name: {"description": about, "schema": schema} for name, (about, schema) in HEADERS.items()
    }
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, example in EXAMPLES.items():
        if name in schemas:
            schemas[name]["examples"] = [example]
    if "NewUser" in schemas:
        schemas["NewUser"]["properties"]["email"]["format"] = "email"
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _operation((method, path), operation, components)


def _operation(key: Key, operation: dict[str, Any], components: dict[str, Any]) -> None:
    if key in NAMES:
        service, name, summary = NAMES[key]
        operation |= {"tags": [service], "operationId": name, "summary": summary}
    operation.setdefault("security", [])
    for parameter in operation.get("parameters", ()):
        _parameter(parameter)
    bodies = operation.get("requestBody", {}).get("content", {})
    for body in bodies.values():
        components["schemas"] |= body["schema"].pop("$defs", {})
    form = bodies.get(FORM)
    if form and key[1] == "/oauth/token":
        form["schema"]["properties"]["grant_type"] = {
            "enum": ["password", "refresh_token", "client_credentials"]
        }
        form["examples"] = {name: {"value": value} for name, value in GRANTS.items()}
    responses = operation["responses"]
    responses.pop("422", None)
    _answers(key, operation)
    counted = _counted(key, operation)
    shared = components.setdefault("responses", {})
    for status in _refusals(key, operation):
        name = f"Problem{status}{'Counted' if counted else ''}"
        shared[name] = _refusal(status, counted)
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}


def _parameter(parameter: dict[str, Any]) -> None:
    """Ids are checked by services themselves, so FastAPI knows only that they are strings."""
    name, schema = parameter["name"], parameter["schema"]
    pattern = PATTERNS.get(name)
    if pattern and "maxLength" not in schema:
        parameter["schema"] = {"type": "string", "pattern": pattern}


def _answers(key: Key, operation: dict[str, Any]) -> None:
    """Headers and links of what goes well, and the answer that there is no news."""
    names = [each["name"].lower() for each in operation.get("parameters", ())]
    headers = ["X-Request-Id"]
    if _counted(key, operation):
        headers += LIMITED
    if "if-none-match" in names:
        headers.append("ETag")
    if "idempotency-key" in names or (key[0] in WRITES and "{" in key[1]):
        headers.append("X-Regionctl-Position")
    if "idempotency-key" in names and key[0] == "post":
        headers.append("Idempotent-Replay")
    for response in operation["responses"].values():
        response["headers"] = _headers(headers)
        if key in LINKS:
            response["links"] = dict(LINKS[key])
    if "if-none-match" in names:
        operation["responses"]["304"] = {
            "description": "What the client has is still true",
            "headers": _headers(headers),
        }


def _counted(key: Key, operation: Mapping[str, Any]) -> bool:
    """Whether there is a limit for some request of this kind."""
    query = any(each["in"] == "query" for each in operation.get("parameters", ()))
    return limit_of(key[0].upper(), key[1], "user", query=query) is not None


def _refusals(key: Key, operation: Mapping[str, Any]) -> list[int]:
    has_body = "requestBody" in operation
    parameters = operation.get("parameters", ())
    happens = {
        400: has_body,
        401: key not in NO_TOKEN,
        403: key in FORBIDDEN,
        404: "{" in key[1] or key in ABSENT,
        409: key in CONFLICTS,
        413: has_body,
        422: has_body or bool(parameters),
        425: any(each["name"] == "X-Regionctl-Position" for each in parameters),
        429: _counted(key, operation),
        503: True,
    }
    return [status for status, may in happens.items() if may]


def _refusal(status: int, counted: bool) -> dict[str, Any]:
    headers = ["X-Request-Id", *(LIMITED if counted else ())]
    if status == 401:
        headers.append("WWW-Authenticate")
    if status in (425, 429, 503):
        headers.append("Retry-After")
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": REFUSALS[status],
        "headers": _headers(headers),
        "content": {"application/problem+json": {"schema": schema}},
    }


def _headers(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
