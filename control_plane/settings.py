"""What the environment says to the control plane: the only reader of it in this package.

REGIONCTL_STATE         the state directory, absolute
REGIONCTL_DATABASE_URL  where operations are recorded; default: SQLite in the state directory
REGIONCTL_PORT          the port that the API listens on, and
REGIONCTL_ADDRESS       its URL for clients of this machine (for its own status)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import Invalid


@dataclass(frozen=True)
class Settings:
    state_dir: Path
    database_url: str
    port: int
    url: str | None = None

    @property
    def control_dir(self) -> Path:
        return self.state_dir / "control"

    @property
    def token_file(self) -> Path:
        return self.control_dir / "token"

    @property
    def log_file(self) -> Path:
        """Where the control plane's supervisor keeps what it says."""
        return self.state_dir / "global" / "logs" / "control-plane.log"

    @property
    def address(self) -> str:
        return self.url or f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Choices:
    """What whoever starts the platform chose for it; None: the default."""

    database_url: str | None
    postgres_bin: str | None


def choices(environment: Mapping[str, str] | None = None) -> Choices:
    values = os.environ if environment is None else environment
    return Choices(
        values.get("REGIONCTL_DATABASE_URL") or None, values.get("REGIONCTL_POSTGRES_BIN") or None
    )


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Raises `Invalid` when a variable is missing or is not what it should be."""
    values = os.environ if environment is None else environment
    state = values.get("REGIONCTL_STATE", "")
    if not state:
        raise Invalid(
            "REGIONCTL_STATE is not set, so there is no state directory to serve.",
            hint="Start the control plane with: regionctl up",
        )
    port = values.get("REGIONCTL_PORT", "18000")
    if not port.isdecimal():
        raise Invalid(f"REGIONCTL_PORT is {port!r}; it must be a port number.")
    directory = Path(state)
    default = f"sqlite+aiosqlite:///{directory / 'control' / 'control.db'}"
    database_url = values.get("REGIONCTL_DATABASE_URL") or default
    return Settings(directory, database_url, int(port), values.get("REGIONCTL_ADDRESS"))
