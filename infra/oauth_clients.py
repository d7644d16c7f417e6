"""The client programs of a platform: what each may do, and how it logs in. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

ROLES = {"probe": "service", "operator": "admin"}


def hashes(secrets: Mapping[str, str]) -> dict[str, tuple[str, bytes]]:
    """client id → (role, SHA-256 of its secret), as the catalog keeps them."""
    return {name: (role, digest(secrets[name])) for name, role in ROLES.items()}


def digest(secret: str) -> bytes:
    """Enough for a random secret of this length, which nobody can guess from it."""
    return hashlib.sha256(secret.encode()).digest()


def file(name: str, secret: str, entry_url: str) -> str:
    """The file by which the client `name` logs in, as load programs read it."""
    document = {
        "client_id": name,
        "client_secret": secret,
        "token_url": f"{entry_url}/oauth/token",
    }
    return json.dumps(document, indent=1)
