"""What the console takes from its environment and its files: the only place in `cli` that reads it.

Of each setting the first of these that says something counts: an option of the command line, the
environment (`REGIONCTL_OUTPUT`), `regionctl.toml` of the working directory, the user's file, the
system's file. No secret is ever a setting: a token is named by its file.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from runtime.errors import Invalid

DEFAULT_NAME = "two-regions"
BASE_PORT = 18000
PORT_OFFSET_AT_MOST = 40000
PREFIX = "REGIONCTL_"
DEFAULT = "default"
PROJECT = 1
"""Rank of what a project's file says."""


class Output(StrEnum):
    table = "table"
    json = "json"
    jsonl = "jsonl"
    yaml = "yaml"
    name = "name"

    @property
    def for_people(self) -> bool:
        return self is Output.table


class Colour(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class Key:
    """One setting. `kind` is its type: text, a path, a whole number, or one of several words.

    Only one that is `harmless` is taken from a project's file. Such a file comes with whatever was
    downloaded; it must not say whom a token is sent to, nor which program is run.
    """

    kind: type[str | Path | int]
    says: str
    harmless: bool = True
    default: str | None = None


KEYS: Mapping[str, Key] = {
    "state_dir": Key(Path, "State directory of the platform on this machine that is meant."),
    "output": Key(Output, "Form of the answer.", default=Output.table),
    "colour": Key(Colour, "Colours in tables; auto: on a terminal.", default=Colour.auto),
    "port_offset": Key(int, "Added to every port (18000...) of a platform that is made."),
    "server": Key(str, "URL of a control plane elsewhere, which is then meant.", harmless=False),
    "token_file": Key(Path, "File with the token for the control plane.", harmless=False),
    "ca_file": Key(Path, "PEM file: who vouches for the server's certificate.", harmless=False),
    "postgres_bin": Key(Path, "Folder of PostgreSQL's programs to be used.", harmless=False),
}


@dataclass(frozen=True)
class Setting:
    """`value` None: not set. `rank`: 0 is the environment, and so on to the default."""

    value: Any
    origin: str
    rank: int


@dataclass(frozen=True)
class Settings:
    """`state_dir` is set when one platform is named; else platforms are looked for in
    `state_root`, one folder each. `cache_dir` holds what may be lost.

    `server` is None when a `state_dir` is named nearer by. `of_project`: the `state_dir` is one
    that a project's file names, which may be anybody's. `colour`: whether to colour stdout;
    `never_colour`: not even where it would be seen. `live`: whether stderr can be repainted,
    `repaint`: whether stdout can.
    """

    state_root: Path
    cache_dir: Path
    state_dir: Path | None
    of_project: bool
    output: Output
    colour: bool
    never_colour: bool
    live: bool
    repaint: bool
    port_offset: int | None
    postgres_bin: Path | None
    server: str | None
    token_file: Path | None
    ca_file: Path | None

    @staticmethod
    def read() -> Settings:
        """Raises `Invalid`, naming the file and the key."""
        found = effective()
        given = {name: setting.value for name, setting in found.items()}
        colour = given["colour"]
        moving = os.environ.get("TERM") != "dumb"
        here = found["state_dir"].rank < found["server"].rank
        return Settings(
            state_root=_state_root(os.environ.get("XDG_STATE_HOME")),
            cache_dir=cache_dir(),
            state_dir=given["state_dir"],
            of_project=found["state_dir"].rank == PROJECT,
            output=given["output"],
            colour=colour == "always" or (colour == "auto" and sys.stdout.isatty()),
            never_colour=colour == "never",
            live=moving and sys.stderr.isatty(),
            repaint=moving and sys.stdout.isatty(),
            port_offset=given["port_offset"],
            postgres_bin=given["postgres_bin"],
            server=None if here else given["server"],
            token_file=given["token_file"],
            ca_file=given["ca_file"],
        )


def child_environment() -> dict[str, str]:
    """The environment of a program that is started: what files say included. Raises `Invalid`."""
    binaries = effective()["postgres_bin"].value
    added = {} if binaries is None else {f"{PREFIX}POSTGRES_BIN": str(binaries)}
    return {**os.environ, **added}


def elsewhere(command: str, state_dir: Path | None) -> str:
    """`command` as a line that means the same where this environment and folder are not.

    `state_dir` is that of the platform that is meant; None: the one of the server that is set.
    """
    found = effective()
    names = (["server"] if state_dir is None else []) + ["token_file", "ca_file"]
    before = [
        f"{PREFIX}{name.upper()}={shlex.quote(str(found[name].value))}"
        for name in names
        if found[name].rank == 0
    ]
    usual = _state_root(os.environ.get("XDG_STATE_HOME")) / DEFAULT_NAME
    silent = found["state_dir"].origin == found["server"].origin == DEFAULT
    named = state_dir is not None and not (silent and state_dir == usual)
    after = ["--state-dir", shlex.quote(str(state_dir))] if named else []
    return " ".join([*before, command, *after])


def files() -> dict[str, Path]:
    """Where settings are looked for: project, user, system; the nearest first."""
    user = _expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    return {
        "project": Path("regionctl.toml"),
        "user": user / "regionctl" / "config.toml",
        "system": Path("/etc/regionctl/config.toml"),
    }


def effective() -> dict[str, Setting]:
    """Each setting as it counts, and where it comes from. Raises `Invalid`."""
    found = {name: Setting(key.default, DEFAULT, 4) for name, key in KEYS.items()}
    for rank, (scope, path) in reversed(list(enumerate(files().items(), start=1))):
        for name, value in _in_file(path, project=scope == "project"):
            found[name] = Setting(value, str(path.absolute()), rank)
    for name, origin, text in _in_environment():
        found[name] = Setting(_value(name, text, origin, Path()), origin, 0)
    return found


def _in_environment() -> Iterator[tuple[str, str, str]]:
    """(setting, variable, text)"""
    if os.environ.get("TERM") == "dumb":
        yield "colour", "TERM", "never"
    if os.environ.get("NO_COLOR"):
        yield "colour", "NO_COLOR", "never"
    for name in KEYS:
        variable = PREFIX + name.upper()
        if os.environ.get(variable):
            yield name, variable, os.environ[variable]


def _in_file(path: Path, *, project: bool) -> Iterator[tuple[str, Any]]:
    for name, value in _document(path).items():
        if name not in KEYS:
            raise _unknown(path, name)
        if project and not KEYS[name].harmless:
            raise Invalid(
                f"{path}: {name} is not taken from a project's file, which may be anybody's.",
                hint=f"Put it in {files()['user']}, or set {PREFIX}{name.upper()}.",
            )
        yield name, _value(name, value, str(path), path.absolute().parent)


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} cannot be read: {error}.", hint="regionctl config path") from error
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise Invalid(f"{path} is no TOML: {error}.", hint="such as: output = 'json'") from error


def _unknown(path: Path, name: str) -> Invalid:
    from difflib import get_close_matches

    near = get_close_matches(name, KEYS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(KEYS)}"
    return Invalid(f"{path}: there is no setting {name!r}.", hint=hint)


def _value(name: str, given: object, origin: str, folder: Path) -> Any:
    """What `given` means: a path beside its file, a number that may be written as text."""
    kind = KEYS[name].kind
    if kind is int:
        text = str(given) if type(given) in (int, str) else ""
        if text.isdecimal() and int(text) <= PORT_OFFSET_AT_MOST:
            return int(text)
        wanted = f"a whole number up to {PORT_OFFSET_AT_MOST}"
    elif issubclass(kind, StrEnum):
        words = [str(word) for word in kind]
        if given in words:
            return kind(given)
        wanted = f"one of {', '.join(words)}"
    else:
        if isinstance(given, str) and given and "\0" not in given:
            return (folder / _expanded(given)).absolute() if kind is Path else given
        wanted = "text"
    raise Invalid(
        f"{origin}: {name} must be {wanted}; it is {given!r}.", hint="regionctl config --help"
    )


def _expanded(text: str) -> Path:
    """With `~` as somebody's home; a user whom the system does not know has none, and keeps it."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _state_root(xdg: str | None) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/regionctl")
    return _expanded(xdg or "~/.local/state") / "regionctl"


def cache_dir() -> Path:
    """Of this user, also when that is root: what is in it may be lost at any time."""
    xdg = os.environ.get("XDG_CACHE_HOME")
    return _expanded(xdg or "~/.cache") / "regionctl"
