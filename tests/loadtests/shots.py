"""Whole load runs by Locust, against a server of which everything is known."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loadtests.arrivals import STEADY, WARM_UP, Plan, Segment, phases

JSON = dict[str, Any]
STEADY_RUN = Plan(
    profile="test",
    seed=5,
    spacing="poisson",
    segments=(Segment("constant", 300, 300, 12),),
    phases=phases([(WARM_UP, 1.0), (STEADY, 12.0)]),
    mix={"browse": 1.0},
    users=2,
)
GATES = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: test}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  objectives: [{displayName: answers, target: 0.99}]
x-regionctl:
  gates:
    - {metric: latency.p99, op: "<=", value: 1s, where: {phase: steady}}
    - {metric: errors.ratio, op: "<=", value: 1%}
"""


class Shot:
    """A load run in `folder`, with its lines of progress as they come."""

    def __init__(self, folder: Path, plan: Plan, url: str, *more: object) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan.document()))
        words = ("--plan", folder / "plan.json", "--url", url, "--out", folder, *more)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.run", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> Iterator[JSON]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, condition: Callable[[JSON], bool]) -> JSON:
        return next(line for line in self.lines() if condition(line))

    def end(self) -> tuple[int, JSON]:
        """Exit code and run.json."""
        self.process.communicate(timeout=120)
        return self.process.returncode, read(self.folder)


def read(folder: Path) -> JSON:
    found: JSON = json.loads((folder / "run.json").read_text())
    return found


def judge(folder: Path) -> tuple[int, JSON]:
    (folder / "slo.yaml").write_text(GATES)
    words = [str(folder), "--gate", str(folder / "slo.yaml")]
    ended = subprocess.run([sys.executable, "-m", "loadtests.judge", *words], check=False)
    return ended.returncode, read(folder)


def samples(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def running(line: JSON) -> bool:
    return line.get("t", 0) >= 2


def patient() -> tuple[str, str]:
    """Where lag is not what the test is about: a busy machine is not to decide."""
    return "--lag-limit-ms", "20000"
