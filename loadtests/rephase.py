"""Shares the samples of a run out to other phases, once it is known when what happened.

    python -m loadtests.rephase DIR --phase fault=12.3 --phase recovery=20.1

A drill knows only afterwards when its fault was and when it was over. So it runs its load with
`--raw`, and this reads samples.csv again: a sample belongs to the last phase that had begun when it
was meant to start. Seconds count from the run's start. Whole journeys keep the phases they had.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.arrivals import Phase
from loadtests.collector import rows
from loadtests.record import write
from loadtests.recorder import Key, Pair

JSON = dict[str, Any]
NS_PER_US = 1000


def rephased(
    run: Mapping[str, Any], samples: Iterable[Mapping[str, str]], phases: Sequence[Phase]
) -> JSON:
    """The run with its endpoints by `phases`. Pure. `samples`: the lines of samples.csv."""
    merged: dict[Key, Pair] = defaultdict(Pair)
    for sample in samples:
        intended, start, end = (int(sample[key]) for key in ("intendedNs", "startNs", "endNs"))
        phase = phases[0].name
        for each in phases:
            if intended >= each.begin * 1e9:
                phase = each.name
        key = (sample["endpoint"], sample["journey"], phase, sample["outcome"])
        merged[key].record(
            max(round((end - intended) / NS_PER_US), 0), max(round((end - start) / NS_PER_US), 0)
        )
    plan = {**run["plan"], "phases": [phase.document() for phase in phases]}
    return {**run, "plan": plan, "endpoints": rows(merged)}


def begun(plan: Mapping[str, Any], begins: Mapping[str, float]) -> list[Phase]:
    """The plan's phases, and those that begin at `begins`, one after the other."""
    found = {str(each["name"]): float(each["from"]) for each in plan["phases"]} | dict(begins)
    marks = sorted(found.items(), key=lambda mark: mark[1])
    ends = [*(begin for _, begin in marks[1:]), float(plan["seconds"])]
    return [Phase(name, begin, end) for (name, begin), end in zip(marks, ends, strict=True)]


def _mark(text: str) -> tuple[str, float]:
    name, equals, seconds = text.partition("=")
    try:
        if name and equals:
            return name, float(seconds)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"NAME=SECONDS is wanted, not {text!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.rephase", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--phase", type=_mark, action="append", required=True)
    asked = parser.parse_args(arguments)
    try:
        run = json.loads((asked.folder / "run.json").read_text(encoding="utf-8"))
        phases = begun(run["plan"], dict(asked.phase))
        with (asked.folder / "samples.csv").open(encoding="utf-8", newline="") as file:
            write(asked.folder, rephased(run, csv.DictReader(file), phases))
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"{asked.folder} cannot be shared out anew: {error!r}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
