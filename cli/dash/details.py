"""Steps of an operation, moves, archives and log lines, as text for a given room. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cli import render
from cli.dash.view import JSON, Cell, meter, state
from cli.progress import subject

GLYPHS = {"succeeded": ("✓", "ok"), "failed": ("✖", "bad"), "running": ("▶", "work")}
VERDICTS = {
    "passed": ("✓ passed", "ok"),
    "failed": ("✖ an objective was missed", "bad"),
    "void": ("▲ void: the measurement cannot be trusted", "warn"),
}
TROUBLE = re.compile(r"\b(error|fatal|panic|critical|warn(ing)?|traceback|failed)\b", re.IGNORECASE)
STAMP = re.compile(r"^\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:[.,]\d+)?)(?:Z| UTC)?\]?")


def steps(operation: JSON, room: int) -> list[Cell]:
    """The operation's steps; when there are more than `room`, those around the one in flight."""
    title = f"{operation['id']} {operation['kind']} {operation['target']}: "
    head = state(operation["state"])
    lines = [Cell(title + head.text, head.tone)]
    verdict = verdict_of(operation)
    if verdict:
        told, tone = VERDICTS.get(verdict, (verdict, "warn"))
        lines.append(Cell(f"verdict: {told}   (enter opens the report)", tone))
    if operation.get("reason"):
        lines.append(Cell(f"reason: {operation['reason']}  by {operation['requestedBy']}", "dim"))
    problem = operation.get("problem")
    if problem:
        lines.append(Cell(f"why: {problem.get('detail', '')}", "bad"))
        if problem.get("hint"):
            lines.append(Cell(f"try: {problem['hint']}", "ok"))
    found = [_step(number, each) for number, each in enumerate(operation["steps"], start=1)]
    room = max(3, room - len(lines))
    if len(found) > room:
        states = [each["state"] for each in operation["steps"]]
        at = next((n for n, each in enumerate(states) if each != "succeeded"), len(found))
        first = max(0, min(at - room // 2, len(found) - room))
        found = found[first : first + room]
    return lines + found


def verdict_of(operation: JSON) -> str:
    """What a drill proved: a drill that was carried out has not yet passed. "" when unknown."""
    results = [each.get("result") for each in operation["steps"] if each["name"] == "write-report"]
    return str(results[-1].get("verdict", "")) if results and results[-1] else ""


def _step(number: int, step: JSON) -> Cell:
    glyph, tone = GLYPHS.get(step["state"], ("·", "dim"))
    took = step.get("seconds")
    parts = [f"{glyph} {number:>3} {step['name']}", subject(step.get("args", {}))]
    parts += [render.seconds(took)] if took is not None else []
    parts += [f"attempt {step['attempts']}"] if step.get("attempts", 0) > 1 else []
    return Cell("  ".join(part for part in parts if part), tone)


def moves(found: Sequence[JSON], room: int) -> list[Cell]:
    """How far each move of slots is."""
    lines = []
    for move in found[:room]:
        share = move["slotsMoved"] / move["slots"] if move["slots"] else 1.0
        copied = ""
        if move.get("rows"):
            copied = f"  copied {move['copied']:,} of {move['rows']:,}"
        lag = f"  behind {move['lagBytes']:,} B" if move.get("lagBytes") is not None else ""
        text = (
            f"{move['source']} → {move['target']}  slots {move['first']}-{move['last']}  "
            f"{meter(share, 12)} {move['slotsMoved']}/{move['slots']}{copied}{lag}"
        )
        trouble = move.get("problem")
        lines.append(Cell(text, "" if move["healthy"] else "warn"))
        lines += [Cell(f"  why: {trouble}", "warn")] if trouble else []
    return lines or [Cell("no slots are moving", "dim")]


def archives(found: Sequence[JSON], room: int) -> list[Cell]:
    """Whether what is written is also kept in another region."""
    lines = []
    for each in found[:room]:
        whole = each["running"] and not each["gap"]
        age = each.get("ageSeconds")
        text = f"{each['database']:<10} {'●' if whole else '▲'} "
        text += "archived" if whole else f"not whole: {each['gap'] or 'not running'}"
        text += f", newest {render.seconds(age)} ago" if age is not None else ""
        lines.append(Cell(text, "" if whole else "warn"))
    return lines or [Cell("no archives", "dim")]


@dataclass(frozen=True)
class Entry:
    """A line of a log. `at` is its time as text that sorts, "" before the first that has one."""

    at: str
    source: str
    text: str

    @property
    def faulty(self) -> bool:
        return TROUBLE.search(self.text) is not None

    @property
    def line(self) -> str:
        return f"{self.source}  {self.text}"


def merge(logs: Mapping[str, Sequence[str]], events: Sequence[JSON] = ()) -> list[Entry]:
    """The logs of all instances and the events as one, by time.

    A line without a time (a traceback, a continued statement) stays with the one before it.
    """
    found = [entry for name, lines in logs.items() for entry in _entries(name, lines)]
    found += [Entry(_sortable(each["at"]), "event", _told(each)) for each in events]
    return sorted(found, key=lambda entry: entry.at)


def _entries(name: str, lines: Sequence[str]) -> list[Entry]:
    at, found = "", []
    for line in lines:
        stamp, text = _read(line)
        at = stamp or at
        found.append(Entry(at, name, text))
    return found


def _read(line: str) -> tuple[str, str]:
    """Time and message of a line: JSON with "at", or text that begins with a time."""
    if line.startswith("{"):
        try:
            found = json.loads(line)
            at, level = str(found.get("at", "")), str(found.get("level", ""))
            said = str(found.get("message") or found.get("event") or line)
            return _sortable(at), f"{level} {said}".strip()
        except ValueError:
            return "", line
    match = STAMP.match(line)
    if match is None:
        return "", line
    return f"{match[1]} {match[2].replace(',', '.')}", line[match.end() :].strip()


def _sortable(at: str) -> str:
    try:
        return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except ValueError:
        return at


def _told(event: JSON) -> str:
    from cli.progress import remark

    about = f"{event['operation']} " if event.get("operation") else ""
    told = remark(event)
    kind = (
        ""
        if event["kind"].startswith("step-") or told.startswith(event["kind"])
        else event["kind"] + " "
    )
    return f"{about}{kind}{told}"
