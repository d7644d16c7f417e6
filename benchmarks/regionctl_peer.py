"""regionctl's own figure: a fresh platform, and its database-failure drill N times."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from patroni_peer import Sample

FIRST_PORT, PORTS = 18000, 400


def free_offset() -> int:
    """A port offset at which the platform's ports are free."""
    for offset in range(0, 12000, 400):
        if all(_free(FIRST_PORT + offset + port) for port in range(PORTS)):
            return offset
    raise SystemExit(f"no {PORTS} neighbouring ports are free above {FIRST_PORT}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def measure(regionctl: Path, state: Path, repeat: int) -> list[Sample]:
    """Runs the drill as a user would and takes the repeats' figures from its report."""
    where = ["--state-dir", str(state)]
    try:
        _run([str(regionctl), "up", "--port-offset", str(free_offset()), *where])
        drill = ["drill", "run", "database-failure", "--repeat", str(repeat), "-o", "json"]
        report: dict[str, Any] = json.loads(_run([str(regionctl), *drill, *where]))
        if report["verdict"] != "passed":
            raise SystemExit(f"the drill's verdict is {report['verdict']}: no figure to compare")
        return [Sample(float(one["rtoSeconds"]), int(one["lost"])) for one in report["repeats"]]
    finally:
        if state.exists():
            _run([str(regionctl), "down", "--delete-data", "--confirm", "two-regions", *where])
            shutil.rmtree(state, ignore_errors=True)


def _run(command: list[str]) -> str:
    print("$ " + " ".join(["regionctl", *command[1:]]), file=sys.stderr)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:4])} ended with exit code {done.returncode}")
    return done.stdout
