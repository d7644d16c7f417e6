"""An alert in a drill: which came to the receiver, and how long after the fault.

    python benchmarks/alert_drill.py [--drill database-failure] [--scrape-seconds 15] [--offset N]

A fresh platform with Prometheus and Alertmanager (`make tools` brings them), the drill, and a
webhook receiver that notes what it is sent and when. Prints a table and exits with 10 when the
alert that the drill must raise did not come. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from regionctl_peer import free_offset

EXPECTED = {
    "database-failure": "DatabaseFailedOver",
    "zone-failure": "DatabaseFailedOver",
    "region-failure": "RegionDown",
}
# How many times the pace of the scrapes quiet and alert are waited for: a rule looks at the last
# twenty, holds for four, and a group waits for two.
PATIENCE = 40
MISSED = 10


@dataclass(frozen=True)
class Told:
    """`at`: when the receiver was told, in seconds of the Unix clock."""

    at: float
    status: str
    labels: dict[str, str]
    summary: str

    @property
    def about(self) -> str:
        known = ("database", "instance", "component", "replica", "group", "region", "slo")
        return next((self.labels[name] for name in known if name in self.labels), "")


class Receiver:
    def __init__(self) -> None:
        self.told: list[Told] = []
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                now, body = time.time(), self.rfile.read(int(self.headers["content-length"]))
                for each in json.loads(body)["alerts"]:
                    summary = each["annotations"].get("summary", "")
                    told.append(Told(now, each["status"], each["labels"], summary))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def first(self, alert: str, since: float) -> Told | None:
        for each in self.told:
            named = each.labels["alertname"] == alert
            if named and each.status == "firing" and each.at >= since:
                return each
        return None


class Platform:
    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.environment = {**os.environ, **environment}
        self.program = str(Path(sys.executable).parent / "regionctl")

    def run(self, *words: str, may_fail: bool = False) -> Any:
        print("$ regionctl " + " ".join(words), file=sys.stderr)
        done = subprocess.run(
            [self.program, *words, "-o", "json", "--state-dir", str(self.root)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode and not may_fail:
            raise SystemExit(f"regionctl {words[0]} ended with exit code {done.returncode}")
        return json.loads(done.stdout or "{}")


def firing(prometheus: str) -> set[str]:
    """The alerts that Prometheus says fire now."""
    with urlopen(f"{prometheus}/api/v1/alerts", timeout=10) as answer:
        alerts = json.load(answer)["data"]["alerts"]
    return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def table(told: list[Told], since: float) -> str:
    """Each alert once: after how many seconds it fired, and was over."""
    rows = ["| alert | severity | about | told after | over after |", "|---|---|---|---:|---:|"]
    seen: set[tuple[str, str]] = set()
    for each in told:
        key = (each.labels["alertname"], each.about)
        if each.status != "firing" or each.at < since or key in seen:
            continue
        seen.add(key)
        over = [
            f"{other.at - since:.1f} s"
            for other in told
            if other.status == "resolved"
            and (other.labels["alertname"], other.about) == key
            and other.at > each.at
        ]
        cells = (key[0], each.labels["severity"], key[1], f"{each.at - since:.1f} s", *over[:1])
        rows.append("| " + " | ".join([*cells, *["-"] * (5 - len(cells))]) + " |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drill", choices=sorted(EXPECTED), default="database-failure")
    parser.add_argument("--scrape-seconds", type=int, default=15)
    parser.add_argument("--offset", type=int)
    asked = parser.parse_args()
    receiver = Receiver()
    folder = Path(tempfile.mkdtemp(prefix="regionctl-alerts-", dir="/var/tmp"))
    folder.chmod(0o711)
    seconds = asked.scrape_seconds
    choices = {
        "REGIONCTL_ALERT_WEBHOOK": receiver.url,
        "REGIONCTL_SCRAPE_SECONDS": str(seconds),
    }
    platform = Platform(folder / "state", choices)
    try:
        return measure(platform, receiver, asked, PATIENCE * seconds)
    finally:
        if platform.root.exists():
            platform.run("down", "--delete-data", "--confirm", "two-regions", may_fail=True)
        shutil.rmtree(folder, ignore_errors=True)


def measure(
    platform: Platform, receiver: Receiver, asked: argparse.Namespace, patience: float
) -> int:
    offset = free_offset() if asked.offset is None else asked.offset
    made = platform.run("up", "--with", "monitoring", "--port-offset", str(offset))
    prometheus = made["monitoring"]["prometheus"]
    if not wait(lambda: not firing(prometheus), patience):
        print(f"still firing before the drill: {sorted(firing(prometheus))}", file=sys.stderr)
    report = platform.run("drill", "run", asked.drill, "--yes", may_fail=True)
    fault = report.get("fault") or {}
    if not fault.get("injectedAt"):
        raise SystemExit(f"the drill's verdict is {report.get('verdict')}: no fault was injected")
    since = datetime.fromisoformat(fault["injectedAt"]).timestamp()
    expected = EXPECTED[asked.drill]
    came = wait(lambda: receiver.first(expected, since) is not None, patience)
    print(f"{asked.drill} ({report['verdict']}), metrics every {asked.scrape_seconds} s,")
    print(f"fault {fault['kind']} {fault['target']} at {fault['injectedAt']}\n")
    print(table(receiver.told, since))
    if not came:
        print(f"\n{expected} did not come within {patience:g} s")
        return MISSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
