"""The client programs of a platform: what each may do, and the file by which it logs in."""

from __future__ import annotations

import hashlib
import json

from infra.local import layout as files
from infra.local.layout import Layout, Secrets

ROLES = {"probe": "service", "operator": "admin"}


def hashes(secrets: Secrets) -> dict[str, tuple[str, bytes]]:
    """client id → (role, SHA-256 of its secret), as the catalog keeps them."""
    known = vars(secrets)
    return {name: (role, digest(known[name])) for name, role in ROLES.items()}


def digest(secret: str) -> bytes:
    """Enough for a random secret of this length, which nobody can guess from it."""
    return hashlib.sha256(secret.encode()).digest()


def write(layout: Layout, secrets: Secrets, entry_url: str) -> None:
    """`control/clients/NAME.json` (0600) for each client."""
    known = vars(secrets)
    files.make_folder(layout.control / "clients", mode=0o700)
    for name in ROLES:
        document = {
            "client_id": name,
            "client_secret": known[name],
            "token_url": f"{entry_url}/oauth/token",
        }
        files.replace_file(layout.client(name), json.dumps(document, indent=1))
