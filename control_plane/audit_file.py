"""The audit log of what is done where no control plane is: `up`, `down`, `infra up`, `infra down`.

A file of the state directory, for its owner only; a line of JSON for each entry, in the form and
with the chain of the control plane's own log (`control_plane.chain`). The process that does the
work appends to it: what it is about to do, then how that ended. Deleting the data deletes it too.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from control_plane import chain
from control_plane.chain import FIRST, Broken, Entry, Kind, Verdict
from runtime.clock import SystemClock
from runtime.errors import Problem
from runtime.plain import plain

NAME = "audit.jsonl"
FIELDS = {field.name for field in fields(Entry)}


@contextmanager
def recorded(file: Path, action: str, target: str, reason: str) -> Iterator[None]:
    """Two entries about the block: it was asked for, and how it ended."""
    _append(file, "asked", action, target, reason)
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        _append(file, "ended", action, target, reason, "interrupted")
        raise
    except BaseException as error:
        why = error.detail if isinstance(error, Problem) else f"{type(error).__name__} {error}"
        _append(file, "ended", action, target, reason, f"failed: {why.strip()}")
        raise
    _append(file, "ended", action, target, reason, "succeeded")


def entries(file: Path) -> list[Entry]:
    """Oldest first; none when there is no file. What is no entry is left out."""
    return [entry for entry in _read(file) if entry is not None]


def verify(file: Path) -> Verdict:
    """Recomputes the chain."""
    found = _read(file)
    whole = found[: found.index(None)] if None in found else found
    good = [entry for entry in whole if entry is not None]
    broken = chain.first_broken(good)
    if broken is None and len(good) < len(found):
        broken = Broken(len(good) + 1, "it is no entry")
    if broken is not None:
        good = good[: broken.sequence - 1]
    return Verdict(len(found), good[-1].hash if good else FIRST, broken)


def _append(
    file: Path, kind: Kind, action: str, target: str, reason: str, outcome: str | None = None
) -> None:
    """One more line, on the disk before this returns. Writers of other processes take turns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        text = stream.read()
        found = [_entry(line) for line in text.splitlines()]
        last = next((entry for entry in reversed(found) if entry is not None), None)
        values: dict[str, Any] = {
            "sequence": 1 if last is None else last.sequence + 1,
            "at": SystemClock().now().isoformat(),
            "kind": kind,
            "actor": _person(),
            "role": "admin",
            "action": action,
            "target": plain(target),
            "reason": plain(reason),
            "operation": None,
            "plan": None,
            "steps": None,
            "outcome": None if outcome is None else plain(outcome),
            "previous": FIRST if last is None else last.hash,
        }
        entry = Entry(**values, hash=chain.seal(values))
        torn = text and not text.endswith("\n")  # by a power cut
        stream.write(("\n" if torn else "") + json.dumps(asdict(entry)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _read(file: Path) -> list[Entry | None]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [_entry(line) for line in text.splitlines()]


def _entry(line: str) -> Entry | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or set(values) != FIELDS:
        return None
    if not isinstance(values["sequence"], int) or not isinstance(values["at"], str):
        return None
    steps = values["steps"]
    return Entry(**{**values, "steps": None if steps is None else tuple(steps)})


def _person() -> str:
    """Who runs this process, as the machine knows them."""
    user = os.geteuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"{name}@{socket.gethostname()}"
