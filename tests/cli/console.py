"""Runs `regionctl` the way a person does: as a program, with its two outputs apart."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    return {**kept, "REGIONCTL_STATE_DIR": str(home / "state"), **(extra or {})}


def regionctl(*arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Ended:
    """`regionctl ARGUMENTS` without a terminal; its state directory is `home`/state."""
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
