"""Plants a failure in a copy of a journal, so that a drill can prove that its meter sees it.

    python -m loadtests.plant lost|stall|second-writer --journal J --out COPY --fault SECONDS

lost            one more acknowledged order, with an id that no database has
stall           every answer to what was sent after the fault comes 30 s later
second-writer   a write of a newer epoch is acknowledged before writes that an older one took

The journal itself is never touched. `--fault` is when the fault took effect (CLOCK_MONOTONIC).
Prints what was planted as one JSON document; exit code 1 when the journal has nothing to plant in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests import journal

JSON = dict[str, Any]
STALL_SECONDS = 30.0
NOWHERE = "4611686018427387904"


def plant(kind: str, lines: list[JSON], fault: float) -> tuple[list[JSON], JSON]:
    """The lines with the failure, and what it is. Raises `LookupError` when there is no place."""
    if kind == "stall":
        return _stall(lines, fault), {"planted": kind, "seconds": STALL_SECONDS}
    orders = [
        attempt
        for attempt in journal.attempts(lines)
        if attempt["kind"] == "create-order" and attempt["outcome"] == "ok" and attempt["shard"]
    ]
    if len(orders) < 2:
        raise LookupError("the journal has no two acknowledged orders")
    last = max(attempt["n"] for attempt in journal.attempts(lines))
    if kind == "lost":
        copy = {**orders[-1], "n": last + 1, "key": "planted", "order_id": NOWHERE}
        return _insert(lines, copy), {"planted": kind, "order": NOWHERE}
    same = _of_one_user(orders)
    first, shard = same[0], same[0]["shard"]
    newest = max(attempt["epoch"] or 0 for attempt in orders)
    copy = {**first, "n": last + 1, "key": "planted", "epoch": newest + 1}
    return _insert(lines, copy), {"planted": kind, "shard": shard, "epoch": newest + 1}


def _of_one_user(orders: list[JSON]) -> list[JSON]:
    """The orders of a user of whom one was sent after another of the same shard was acknowledged.

    Of one user, so that it is also one slot whose owner changed.
    """
    for first in sorted(orders, key=lambda each: each["sent"]):
        place = (first["user"], first["shard"])
        same = [each for each in orders if (each["user"], each["shard"]) == place]
        if any(each["sent"] > first["done"] for each in same):
            return sorted(same, key=lambda each: each["sent"])
    raise LookupError("no user has an order sent after another was acknowledged")


def _stall(lines: list[JSON], fault: float) -> list[JSON]:
    """Reads and writes alike; the journal's end moves as well."""
    late = {line["n"] for line in lines if line["line"] == "intent" and line["sent"] >= fault}
    if not late:
        raise LookupError("nothing was sent after the fault")
    moved = []
    for line in lines:
        changed = dict(line)
        if line["line"] == "outcome" and line["n"] in late:
            changed["done"] += STALL_SECONDS
        if line["line"] == "end":
            changed["monotonic"] += STALL_SECONDS
        moved.append(changed)
    return moved


def _insert(lines: list[JSON], attempt: JSON) -> list[JSON]:
    """The lines with one more attempt, before the end line."""
    asked = ("kind", "key", "user", "intended", "sent", "body")
    intent = {"line": "intent", "n": attempt["n"], **{name: attempt.get(name) for name in asked}}
    outcome = {name: value for name, value in attempt.items() if name not in asked}
    outcome["line"] = "outcome"
    end = [line for line in lines if line["line"] == "end"]
    rest = [line for line in lines if line["line"] != "end"]
    return [*rest, intent, outcome, *end]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.plant", description=__doc__)
    parser.add_argument("kind", choices=("lost", "stall", "second-writer"))
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fault", type=float, required=True)
    asked = parser.parse_args(arguments)
    try:
        lines, what = plant(asked.kind, journal.read(asked.journal), asked.fault)
    except LookupError as error:
        sys.stderr.write(f"cannot plant {asked.kind}: {error}\n")
        return 1
    draft = asked.out.with_suffix(".tmp")
    draft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    draft.replace(asked.out)
    sys.stdout.write(json.dumps(what) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
