"""The client programs of a platform on this machine: the files by which they log in."""

from __future__ import annotations

from infra import oauth_clients
from infra.local import layout as files
from infra.local.layout import Layout, Secrets


def hashes(secrets: Secrets) -> dict[str, tuple[str, bytes]]:
    """client id → (role, SHA-256 of its secret), as the catalog keeps them."""
    return oauth_clients.hashes(vars(secrets))


def write(layout: Layout, secrets: Secrets, entry_url: str) -> None:
    """`control/clients/NAME.json` (0600) for each client."""
    known = vars(secrets)
    files.make_folder(layout.control / "clients", mode=0o700)
    for name in oauth_clients.ROLES:
        files.replace_file(layout.client(name), oauth_clients.file(name, known[name], entry_url))
