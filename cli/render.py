"""The only writer of stdout, and of messages on stderr.

stdout carries the answer and nothing else: one JSON document, JSON lines, YAML, names, or a table.
Everything a person reads on the way (progress, hints, errors) goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.settings import Output as Output
from cli.settings import Settings
from runtime.errors import Problem
from runtime.plain import plain

COLOURS = {
    "32": ("running", "healthy", "ok", "passed", "met", "succeeded", "proven", "primary*", "yes"),
    "33": ("degraded", "warn", "stale", "frozen", "pending", "not proven", "void", "aborted"),
    "31": ("failed", "down", "fail", "missed", "absent", "stopped", "unreachable", "no"),
}
CODES = {word: code for code, words in COLOURS.items() for word in words}


@dataclass(frozen=True)
class Table:
    """Rows of text under `columns` (all empty: no header), between a title and the foot."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    foot: Sequence[str] = field(default=())


def listing(kind: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document of a list of things."""
    return {"apiVersion": "regionctl/v1", "kind": kind, "items": [dict(item) for item in items]}


def show(
    output: Output,
    document: Any,
    *,
    tables: Sequence[Table] = (),
    names: Iterable[str] = (),
) -> None:
    """Writes the answer of a command to stdout in the form that was asked for."""
    match output:
        case Output.json:
            text = json.dumps(document, indent=2, ensure_ascii=False)
        case Output.jsonl:
            items = document.get("items") if isinstance(document, dict) else None
            lines = [document] if items is None else items
            text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        case Output.yaml:
            import yaml

            simple = json.loads(json.dumps(document))
            text = yaml.safe_dump(simple, sort_keys=False, allow_unicode=True).rstrip("\n")
        case Output.name:
            text = "\n".join(names)
        case Output.table:
            text = "\n\n".join(lay_out(table) for table in tables)
    if text:
        out(text)


def out(text: str) -> None:
    """One piece of the answer."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def clear() -> None:
    """Wipes the terminal, if it can be, before a watched table is drawn again."""
    if Settings.read().repaint:
        sys.stdout.write("\x1b[H\x1b[2J")


def note(text: str) -> None:
    """A message for the person who waits: stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def lay_out(table: Table) -> str:
    """The table as aligned text; states are coloured on a terminal."""
    colour = Settings.read().colour
    rows = [[_text(cell) for cell in row] for row in table.rows]
    widths = [
        max([len(column), *(len(row[index]) for row in rows)])
        for index, column in enumerate(table.columns)
    ]
    lines = [plain(table.title, keep="\n")] if table.title else []
    head = [_pad(c.upper(), width) for c, width in zip(table.columns, widths, strict=True)]
    if any(table.columns):
        lines.append("  ".join(head))
    for row in rows:
        cells = [
            _paint(cell, _pad(cell, width), colour) for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(cells))
    lines += [plain(line, keep="\n") for line in table.foot]
    return "\n".join(line.rstrip() for line in lines)


def _text(cell: object) -> str:
    match cell:
        case None | "":
            return "-"
        case bool():
            return "yes" if cell else "no"
        case float():
            return f"{cell:.3f}".rstrip("0").rstrip(".")
        case _:
            return plain(str(cell))


def _pad(text: str, width: int) -> str:
    return text + " " * (width - len(text))


def _paint(word: str, padded: str, colour: bool) -> str:
    code = CODES.get(word) if colour else None
    return f"\x1b[{code}m{padded}\x1b[0m" if code else padded


def seconds(value: float | None) -> str:
    """A time for people: 0.31 s, 12 s, 4 min, 1 h 30 min, 24 h; "-" when not known."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f} s" if value else "0 s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def moment(text: str | None) -> str:
    """An ISO 8601 time for people, to the second: 2026-01-31 23:59:59Z; "-" when not known."""
    if not text:
        return "-"
    zone = "Z" if text.endswith(("+00:00", "Z")) else ""
    return text[:19].replace("T", " ") + zone


def problem(problem: Problem, *, as_json: bool, operation: str | None = None) -> None:
    """What happened, what to type next, what to read: to stderr."""
    operation = operation or problem.extra.get("operationId") or problem.extra.get("operation")
    if as_json:
        note(json.dumps({"error": _error(problem, operation)}, ensure_ascii=False))
        return
    lines = [f"error: {problem.detail}"]
    for key, value in problem.extra.items():
        if key == "lines" or key == "lastLines":
            lines += [f"    {line}" for line in value]
        elif isinstance(value, str | int | float) and str(value) not in problem.detail:
            lines.append(f"  {key}: {value}")
    if problem.hint:
        lines.append(f"try: {problem.hint}")
    if problem.runbook:
        lines.append(f"runbook: regionctl runbook show {problem.runbook}")
    note(plain("\n".join(lines), keep="\n\t"))


def _error(problem: Problem, operation: str | None) -> dict[str, Any]:
    kind = type(problem).__name__
    error = {
        "id": "".join("_" + c if c.isupper() and i else c for i, c in enumerate(kind)).upper(),
        "exit": int(problem.exit),
        "message": problem.detail,
        "hint": problem.hint,
        "operationId": operation,
    }
    if problem.runbook:
        error["runbook"] = problem.runbook
    if problem.extra:
        error["extra"] = problem.extra
    return error
