"""What the console takes from its environment: the only place in `cli` that reads it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

DEFAULT_NAME = "two-regions"
BASE_PORT = 18000


@dataclass(frozen=True)
class Settings:
    """`state_dir` is set when the environment names one platform; else platforms are looked for
    in `state_root`, one folder each. `cache_dir` holds what may be lost.

    `server` is the URL of a control plane elsewhere, `token_file` has the token for it (or one to
    use instead of root's), `ca_file` who vouches for its certificate."""

    state_root: Path
    cache_dir: Path
    state_dir: Path | None
    colour: bool
    live: bool
    postgres_bin: Path | None
    server: str | None
    token_file: Path | None
    ca_file: Path | None

    @staticmethod
    def read() -> Settings:
        environment = os.environ
        named = environment.get("REGIONCTL_STATE_DIR")
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        binaries = environment.get("REGIONCTL_POSTGRES_BIN")
        return Settings(
            state_root=_state_root(environment.get("XDG_STATE_HOME")),
            cache_dir=_cache_dir(environment.get("XDG_CACHE_HOME")),
            state_dir=Path(named).expanduser().absolute() if named else None,
            colour=sys.stdout.isatty() and not plain,
            live=sys.stderr.isatty() and not plain,
            postgres_bin=Path(binaries) if binaries else None,
            server=environment.get("REGIONCTL_SERVER") or None,
            token_file=_path(environment.get("REGIONCTL_TOKEN_FILE")),
            ca_file=_path(environment.get("REGIONCTL_CA_FILE")),
        )


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser().absolute() if text else None


def _state_root(xdg: str | None) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/regionctl")
    base = Path(xdg).expanduser() if xdg else Path.home() / ".local" / "state"
    return base / "regionctl"


def _cache_dir(xdg: str | None) -> Path:
    """Of this user, also when that is root: what is in it may be lost at any time."""
    base = Path(xdg).expanduser() if xdg else Path.home() / ".cache"
    return base / "regionctl"
