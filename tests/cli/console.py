"""Runs `regionctl` without a terminal and keeps its two outputs apart."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import run

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """One in which nothing of the developer's own platform can be seen."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("REGIONCTL_", "XDG_", "_TYPER"))
    }
    own = {
        "REGIONCTL_STATE_DIR": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    return {**kept, **own, **(extra or {})}


def regionctl(*arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Ended:
    """`regionctl ARGUMENTS` within this process; its state directory is `home`/state."""
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        wanted = environment(home, env)
        for name in set(os.environ) - set(wanted):
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        try:
            code = run(arguments)
        except SystemExit as ended:  # Typer's way to end a completion
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), errors.getvalue())


def program(*arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Ended:
    """The same the way a person does it: a process, which takes some 0.4 s to begin."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        env=environment(home, env),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
