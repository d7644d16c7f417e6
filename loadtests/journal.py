"""The probe's journal: one JSON document a line, written before and after every attempt.

Lines, told apart by `line`; times are seconds of CLOCK_MONOTONIC:

    start    schema, pid, run, monotonic, wall, url, rate, seed, max_seconds: once, first
    ready    monotonic, users: the open-loop arrivals begin
    intent   n, kind, key, user, intended, sent, body: before the request leaves
    outcome  n, outcome, status, done, shard, epoch, region, order_id, user_id, amount_cents,
             replayed, error: when the answer arrived, or was given up
    end      monotonic, planned, sent, reason: once, last

An intent without an outcome is an attempt whose outcome is unknown. `planned` counts the arrivals
that were due, so that a probe that fell behind or died can be told from one that kept pace.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO

SCHEMA = 1
JSON = dict[str, Any]


class Journal:
    """An append-only file that only one probe may ever write; it appears with its first line.

    Raises `FileExistsError` when the file exists: of two probes started for one journal (a
    controller died between the two starts), exactly one goes on.
    """

    def __init__(self, path: Path, **start: Any) -> None:
        handle, draft = tempfile.mkstemp(".tmp", f"{path.name}.", path.parent)
        self._file: BinaryIO = open(handle, "wb", buffering=0)  # noqa: PTH123, SIM115
        try:
            self.write("start", **start)
            path.hardlink_to(draft)
        except BaseException:
            self.close()
            raise
        finally:
            Path(draft).unlink()

    def write(self, line: str, **fields: Any) -> None:
        self._file.write(json.dumps({"line": line, **fields}).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[JSON]:
    """Every whole line. A last line that was torn by a kill is left out."""
    return list(_parse(path.read_bytes().splitlines()))


def _parse(lines: list[bytes]) -> Iterator[JSON]:
    for number, line in enumerate(lines):
        try:
            yield json.loads(line)
        except ValueError:
            if number != len(lines) - 1:
                raise


def attempts(lines: Iterable[JSON]) -> list[JSON]:
    """Each intent joined with its outcome; without one, its `outcome` is "unknown"."""
    joined: dict[int, JSON] = {}
    for line in lines:
        if line["line"] == "intent":
            joined[line["n"]] = {**line, "outcome": "unknown", "done": None}
        elif line["line"] == "outcome":
            joined[line["n"]].update(line)
    return list(joined.values())


def cents(order: JSON) -> int | None:
    """An order's total in cents; None when the document has none."""
    try:
        return int(Decimal(order["total"]["amount"]).scaleb(2))
    except (KeyError, TypeError, InvalidOperation):
        return None
