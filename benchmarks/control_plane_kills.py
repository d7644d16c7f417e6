"""Drills whose control plane is killed (-9) at a random moment: does each still end with a verdict?

    python benchmarks/control_plane_kills.py [--drills N] [--seed S]

`make kills` runs it with 20. The platform is its own and is removed at the end. Exit 1 unless every
drill passed with nothing lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from regionctl_peer import free_offset

LONGEST_DRILL_SECONDS = 9.5


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--drills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    asked = arguments.parse_args()
    state = Path(tempfile.mkdtemp(prefix="regionctl-kills-", dir="/var/tmp"))
    state.chmod(0o755)
    console = [str(Path(sys.executable).with_name("regionctl")), "--state-dir", str(state)]
    try:
        call(console, "up", "--port-offset", str(free_offset()))
        chance = random.Random(asked.seed)
        passed = [drill(console, number, chance) for number in range(1, asked.drills + 1)]
    finally:
        call(console, "down", "--delete-data", "--confirm", "two-regions")
        shutil.rmtree(state, ignore_errors=True)
    print(f"{sum(passed)} of {len(passed)} drills passed, each with its control plane killed once")
    return 0 if all(passed) else 1


def drill(console: list[str], number: int, chance: random.Random) -> bool:
    """One database-failure drill; its control plane dies somewhere between its first and last
    second."""
    pid = await_whole(console)["controlPlane"]["pid"]
    moment = chance.uniform(0, LONGEST_DRILL_SECONDS)
    running = subprocess.Popen(
        command(console, "drill", "run", "database-failure", "-o", "json", "--seed", str(number)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    output, _ = running.communicate(timeout=300)
    report: dict[str, Any] = json.loads(output) if output else {"verdict": "none"}
    repeat = report.get("repeats", [{}])[0]
    print(
        f"{number:3}  killed at {moment:4.1f} s  {report['verdict']}  "
        f"rto {repeat.get('rtoSeconds')}  lost {repeat.get('lost')}",
        flush=True,
    )
    return bool(report["verdict"] == "passed" and repeat.get("lost") == 0)


def await_whole(console: list[str], seconds: float = 120.0) -> dict[str, Any]:
    """The status of a platform on which everything runs and every database has a sync standby."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run(
            command(console, "status", "-o", "json"), capture_output=True, text=True
        )
        if done.stdout:
            status: dict[str, Any] = json.loads(done.stdout)
            joined = all(any(s["sync"] for s in d["standbys"]) for d in status["shards"])
            if status["state"] == "healthy" and joined:
                return status
        time.sleep(0.2)
    raise SystemExit(f"the platform was not whole within {seconds:g} s")


def command(console: list[str], *words: str) -> list[str]:
    return [console[0], *words, *console[1:]]


def call(console: list[str], *words: str) -> None:
    subprocess.run(command(console, *words), stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    raise SystemExit(main())
