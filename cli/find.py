"""Finds the platform that a command is about, on this machine, without asking anybody.

`--state-dir` names it, or the environment does; else it is `two-regions`, or the only one there is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.settings import BASE_PORT, DEFAULT_NAME, Settings
from runtime.errors import Invalid, Refused, Unavailable

STATE_FORMAT = 1


@dataclass(frozen=True)
class Platform:
    """`name` is that of its topology; the API listens on `address`, the edge on `edge_port`."""

    name: str
    state_dir: Path
    port_offset: int
    created_at: str = ""

    @property
    def address(self) -> str:
        from control_plane import listen

        return listen.read(self.state_dir / "control").address(BASE_PORT + self.port_offset)

    @property
    def edge_port(self) -> int:
        return BASE_PORT + self.port_offset + 1

    @property
    def option(self) -> str:
        """What to add to the next command so that it means this platform too."""
        settings = Settings.read()
        usual = settings.state_dir or settings.state_root / DEFAULT_NAME
        return "" if self.state_dir == usual else f" --state-dir {self.state_dir}"


def state_dir(asked: Path | None, name: str | None = None) -> Path:
    """The state directory meant by `--state-dir`, or the usual one of the platform `name`."""
    settings = Settings.read()
    if asked is not None:
        return asked.expanduser().absolute()
    if settings.state_dir is not None:
        return settings.state_dir
    if name is not None:
        return settings.state_root / name
    usual = settings.state_root / DEFAULT_NAME
    if (usual / "state.json").exists():
        return usual
    others = sorted(file.parent for file in settings.state_root.glob("*/state.json"))
    if len(others) > 1:
        names = ", ".join(other.name for other in others)
        raise Invalid(f"Several platforms are here: {names}.", hint=f"add --state-dir {others[0]}")
    return others[0] if others else usual


def platform(asked: Path | None) -> Platform:
    """The platform to talk to. Raises `Unavailable` when there is none."""
    directory = state_dir(asked)
    try:
        text = (directory / "state.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        made_by = found["format"]
        offset = int(found["portOffset"])
        name = str(found["topology"])
    except (FileNotFoundError, NotADirectoryError):
        raise Unavailable(f"There is no platform in {directory}.", hint="regionctl up") from None
    except PermissionError:
        owner = _owner(directory)
        raise Refused(
            f"{directory} belongs to {owner}.", hint=f"run it as {owner}, or use --state-dir"
        ) from None
    except OSError as error:
        raise Invalid(
            f"{directory} is no state directory: {error.strerror}.", hint="regionctl info"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{directory}/state.json is damaged ({type(error).__name__}: {error}).",
            hint="regionctl doctor",
        ) from error
    if made_by != STATE_FORMAT:
        raise Refused(
            f"{directory} was made by another version of regionctl: it has format {made_by}, "
            f"this version reads format {STATE_FORMAT}.",
            hint="use that version, or another --state-dir",
        )
    return Platform(name, directory, offset, str(found.get("createdAt", "")))


def _owner(path: Path) -> str:
    for place in (path, *path.parents):
        try:
            return place.owner()
        except (OSError, KeyError):
            continue
    return "another user"
