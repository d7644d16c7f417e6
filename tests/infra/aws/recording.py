"""Plans recorded for tests: each once for all workers of a session, by the real child process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest


def record(topology: str, into: Path, **environment: str) -> str:
    """The bytes that the child writes for this topology, made once under this path."""
    with into.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not into.exists():
            said = child(topology, into, **environment)
            assert said.returncode == 0, said.stderr
    return into.read_text(encoding="utf-8")


def child(topology: str, into: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the child says; `into` is there when it went well."""
    command = [sys.executable, "-m", "infra.aws.record", "--topology", topology]
    return subprocess.run(
        [*command, "--out", str(into)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def shared(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the session see."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
