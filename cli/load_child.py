"""Starts the load programs, which the console may not import, and follows them.

They are processes of their own because Locust changes the interpreter that it is imported by. A
load program writes JSON lines, and what it found out into a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import find, programs
from cli.settings import Settings, child_environment
from cli.suggest import unknown
from runtime.errors import Exit, Invalid, Problem, Refused

JSON = dict[str, Any]
NEEDS = ("locust", "hdrh")
INSTALL = "pip install 'regionctl[load]'"
# A whole run in one line; beside that nothing is long.
LINE_BYTES = 1 << 24
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Target:
    """Who is shot at. `ca`, `client`: files; None: the system's authorities, no token."""

    url: str
    ca: Path | None
    client: Path | None

    def words(self) -> list[str]:
        words = ["--url", self.url]
        for option, path in (("--ca", self.ca), ("--client", self.client)):
            words += [option, str(path.absolute())] if path else []
        return words


def find_target(
    state_dir: Path | None, url: str | None, ca: Path | None, client: Path | None
) -> Target:
    """The platform elsewhere at `url`, else the edge of the one on this machine.

    Raises `Unavailable` or `Refused`.
    """
    if url:
        return Target(url.rstrip("/"), ca, client)
    if Settings.read().server and state_dir is None:
        raise Refused(
            "The platform is elsewhere, and only its control plane is known here.",
            hint="add --url https://ITS-EDGE --ca FILE --client FILE, or --state-dir",
        )
    home = find.platform(state_dir)
    return Target(
        f"https://127.0.0.1:{home.edge_port}",
        ca or _if_there(home.state_dir / "ca" / "ca.pem"),
        client or _if_there(home.state_dir / "control" / "clients" / "probe.json"),
    )


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


async def profiles() -> list[JSON]:
    found = await programs.call("loadtests.profiles")
    return list(found["profiles"])


async def plan_of(profile: str, options: Mapping[str, Any]) -> JSON:
    """Raises `NotFound` for an unknown profile, `Invalid` for a plan that cannot be."""
    names = {each["name"]: each for each in await profiles()}
    if profile not in names:
        raise unknown("load profile", profile, names)
    return await programs.call("loadtests.profiles", profile, *words(options))


def words(options: Mapping[str, Any]) -> list[str]:
    """Options for a program; those that are None are left out."""
    return [str(word) for pair in options.items() if pair[1] is not None for word in pair]


def new_folder(state_dir: Path | None, asked: Path | None, url: str | None) -> tuple[str, Path]:
    """The id of a run that begins now, and where its reports go: beside the platform's others, or
    here for a platform that is elsewhere."""
    id = time.strftime("load-%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.getpid()}"
    usual = Path("load") if url else find.platform(state_dir).state_dir / "load"
    return id, (asked or usual / id).expanduser().absolute()


def check_installed() -> None:
    """Raises `Refused`."""
    if any(importlib.util.find_spec(name) is None for name in NEEDS):
        raise Refused("Load tests need Locust, which is not installed here.", hint=INSTALL)


async def check_gates(file: Path) -> None:
    """Raises `Invalid` for a gate file that cannot be used. One with a gate that no run can hold
    can be: the run will fail by it."""
    code, said, errors = await _ended("loadtests.judge", "--lint", str(file))
    found = _document(said)
    if code == Exit.OK or found.get("usable"):
        return
    faults = found.get("faults") or [found.get("error") or errors.strip()[-400:]]
    raise Invalid(
        f"{file} cannot be used: {faults[0]}",
        hint=f"regionctl slo lint {file}",
        extra={"lines": [str(fault) for fault in faults]},
    )


async def judge(folder: Path, gate: Path | None) -> tuple[int, JSON]:
    """The exit code of the verdict, and the run as it was judged. Raises `Problem`."""
    words = ["--gate", str(gate)] if gate else []
    code, said, errors = await _ended("loadtests.judge", str(folder), *words)
    if code not in (Exit.OK, Exit.VOID, Exit.MISSED):
        found = _document(said)
        detail = found.get("error") or f"the run could not be judged (exit code {code})"
        lines = errors.strip().splitlines()[-15:]
        raise Problem(f"{folder}: {detail}", hint="regionctl doctor", extra={"lines": lines})
    return code, json.loads((folder / "run.json").read_text(encoding="utf-8"))


async def follow(module: str, words: Sequence[str], tell: Callable[[JSON], None]) -> int:
    """Runs a load program to its end; `tell` gets each of its lines. Returns its exit code.

    Cancelled, it asks the program to write down what it has, and returns when it has ended.
    Raises `Refused` or `Invalid` for what the program refuses.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *words,
        env=child_environment(),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
        limit=LINE_BYTES,
    )
    reading = asyncio.ensure_future(_read(process, tell))
    try:
        errors = await asyncio.shield(reading)
    except asyncio.CancelledError:
        errors = await _interrupt(process, reading)
    code = await process.wait()
    last = errors.strip().splitlines()[-1:] or [f"it ended with exit code {code}"]
    match code:
        case Exit.REFUSED:
            raise Refused(f"No load was started: {last[0]}.", hint="regionctl load run -h")
        case Exit.USAGE:
            raise Invalid(f"No load was started: {last[0]}", hint="regionctl load profiles")
        case Exit.OK | Exit.VOID | Exit.INTERRUPTED:
            return code
    lines = errors.strip().splitlines()[-15:]
    raise Problem(f"The load program failed: {last[0]}", extra={"lines": lines})


async def _read(process: Process, tell: Callable[[JSON], None]) -> str:
    """All that it writes on stderr; the lines of stdout are told as they come."""
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(process.stderr.read())
    async for line in process.stdout:
        if document := _document(line.decode("utf-8", "replace")):
            tell(document)
    return (await errors).decode("utf-8", "replace")


async def _interrupt(process: Process, reading: asyncio.Future[str]) -> str:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            return await asyncio.shield(reading)
    except (TimeoutError, asyncio.CancelledError):
        # Asked twice, or it does not listen.
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await reading


async def _ended(module: str, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *words,
        env=child_environment(),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    said, errors = await process.communicate()
    return (
        await process.wait(),
        said.decode("utf-8", "replace"),
        errors.decode("utf-8", "replace"),
    )


def _document(text: str) -> JSON:
    """The last line that is a JSON object; empty without one."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return {}
