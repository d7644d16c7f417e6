"""Names of what is there, for shell completion.

Commands that have just been told such names keep them in a file (`cli.remembering`). Completion
reads that file while it is fresh, and asks nobody: a key press must not wait for a network.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from zlib import crc32

import typer

from cli import find
from cli.settings import Settings, cache_dir
from runtime.errors import Problem

FRESH_SECONDS = 60.0
WORD = re.compile(r"[\w.:@+-]+", re.ASCII)


def keep(place: str, kind: str, names: Iterable[str]) -> None:
    """Replaces what is kept of `kind`. `place` is the platform's state directory or its server.

    Only plain words: shells evaluate what completion prints. What cannot be kept is not missed.
    """
    path = _file(place, kind)
    text = "\n".join(name for name in names if WORD.fullmatch(name))
    half = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        half.write_text(text, encoding="ascii")
        half.replace(path)
    except OSError:
        return


def kept(place: str, kind: str) -> list[str]:
    """What was kept in the last minute."""
    path = _file(place, kind)
    try:
        if abs(time.time() - path.stat().st_mtime) > FRESH_SECONDS:
            return []
        return [word for word in path.read_text(encoding="ascii").split() if WORD.fullmatch(word)]
    except (OSError, ValueError):
        return []


def known(*kinds: str) -> Callable[[typer.Context, str], list[str]]:
    """Completes names of these kinds: region, instance, database, operation and so on."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            place = _place(ctx.params.get("state_dir"))
        except Problem:
            return []
        return [name for kind in kinds for name in kept(place, kind) if name.startswith(incomplete)]

    return complete


def _place(state_dir: Path | None) -> str:
    server = Settings.read().server if state_dir is None else None
    return server or str(find.state_dir(state_dir))


def _file(place: str, kind: str) -> Path:
    return cache_dir() / "names" / f"{crc32(place.encode()):08x}-{kind}"
