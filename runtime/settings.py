"""What a service process is told by its environment. The only reader of the environment.

REGIONCTL_SERVICE    users | orders | inventory
REGIONCTL_INSTANCE   its id, "orders.us-east-1a"
REGIONCTL_REGION     "us-east-1"
REGIONCTL_ZONE       "a"
REGIONCTL_SHARD_MAP  path of the shard map that is polled
REGIONCTL_SECRETS    path of {"app": database password, "valkey": password}
REGIONCTL_CACHE      "host:port" of the region's cache; empty: no cache
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import Invalid

DATABASE = "app"
ROLE = "app"


@dataclass(frozen=True)
class Settings:
    service: str
    instance: str
    region: str
    zone: str
    shard_map: Path
    database_password: str = field(repr=False)
    valkey_password: str = field(repr=False)
    cache: tuple[str, int] | None = None


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises `Invalid`, naming the variable or file at fault."""
    names = ("SERVICE", "INSTANCE", "REGION", "ZONE", "SHARD_MAP", "SECRETS")
    values = {name: environment.get(f"REGIONCTL_{name}", "") for name in names}
    missing = [f"REGIONCTL_{name}" for name, value in values.items() if not value]
    if missing:
        raise Invalid(
            f"The environment lacks {', '.join(missing)}.",
            hint="Services are started by `regionctl up`, which sets them.",
        )
    secrets = _secrets(Path(values["SECRETS"]))
    return Settings(
        service=values["SERVICE"],
        instance=values["INSTANCE"],
        region=values["REGION"],
        zone=values["ZONE"],
        shard_map=Path(values["SHARD_MAP"]),
        database_password=secrets.get("app", ""),
        valkey_password=secrets.get("valkey", ""),
        cache=_address(environment.get("REGIONCTL_CACHE", "")),
    )


def _secrets(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Invalid(f"REGIONCTL_SECRETS: {path}: {error}") from error
    if not isinstance(document, dict):
        raise Invalid(f"REGIONCTL_SECRETS: {path} is not a JSON object.")
    return document


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise Invalid(f"REGIONCTL_CACHE: {text!r} is not host:port.")
    return host, int(port)
