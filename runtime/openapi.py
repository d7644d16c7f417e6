"""What the OpenAPI documents of all services have in common."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

REFUSAL = {"$ref": "#/components/responses/Problem"}
PROBLEM: dict[str, Any] = {
    "description": "RFC 9457: why not, and what to do",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "requestId"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "hint": {"type": "string"},
                    "runbook": {"type": "string"},
                    "extra": {"type": "object"},
                    "requestId": {"type": "string"},
                },
            }
        }
    },
}


def describe(app: FastAPI, entry_url: str) -> None:
    """Adds to the OpenAPI document what all operations share: how they refuse, and the scheme that
    they name as {"oauth2": []}."""
    token_url = f"{entry_url}/oauth/token"
    flows = {
        "password": {"tokenUrl": token_url, "refreshUrl": token_url, "scopes": {}},
        "clientCredentials": {"tokenUrl": token_url, "scopes": {}},
    }
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        components = document.setdefault("components", {})
        components["securitySchemes"] = {"oauth2": {"type": "oauth2", "flows": flows}}
        components["responses"] = {"Problem": PROBLEM}
        for name in ("HTTPValidationError", "ValidationError"):
            components.get("schemas", {}).pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"] |= {"4XX": REFUSAL, "5XX": REFUSAL}
        return document

    app.openapi = described  # type: ignore[method-assign]
