"""Shows the steps of an operation as they happen, on stderr.

A terminal gets a live list with timings; anything else one line for each finished step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from cli import render
from cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

JSON = Mapping[str, Any]
SHOWN = ("instance", "region", "target", "database", "standby", "name", "kind", "scenario")


class Progress(Protocol):
    """Used as a context manager; `tell` takes every event of the operation in order."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def tell(self, event: JSON) -> None: ...


def of(operation: JSON) -> Progress:
    """The progress display for an operation that is about to be followed."""
    return LiveSteps(operation.get("steps", [])) if Settings.read().live else PlainSteps()


def subject(args: JSON) -> str:
    """What a step is about, short enough for one line: "s1.us-east-1b", "s1, s2, catalog"."""
    if isinstance(args.get("source"), str) and isinstance(args.get("target"), str):
        first, last = args.get("slots") or (args.get("first"), args.get("last"))
        ends = (args["source"], args["target"])
        one, other = reversed(ends) if args.get("back") else ends
        return f"{one} to {other}, slots {first}-{last}"
    if isinstance(args.get("service"), str) and isinstance(args.get("zone"), str):
        return f"{args['service']}.{args['zone']}: {args.get('count')}"
    for key in SHOWN:
        if isinstance(args.get(key), str):
            return str(args[key])
    if isinstance(args.get("fault"), Mapping):
        return f"{args['fault'].get('kind')} {args['fault'].get('target')}"
    names: list[str] = []
    for value in args.values():
        if isinstance(value, list):
            names += [_name(item) for item in value]
    shown = ", ".join(name for name in names[:3] if name)
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _name(item: object) -> str:
    match item:
        case {"from": source, "to": taker} | {"source": source, "target": taker}:
            return f"{source} to {taker}"
        case {"instance": name} | {"database": name}:
            return str(name)
        case [*words]:
            return " ".join(str(word) for word in words)
        case _:
            return "" if isinstance(item, Mapping) else str(item)


def line(mark: str, name: str, about: str, seconds: float | None, word: str = "") -> str:
    """ "✓ promote s1.us-east-1b 0.31 s" """
    parts = [mark, name, about, render.seconds(seconds) if seconds is not None else "", word]
    return " ".join(part for part in parts if part)


class Pace:
    """How long a copy of rows or bytes still takes, by how fast it went since it was first heard
    of."""

    def __init__(self) -> None:
        self._first: dict[object, JSON] = {}

    def left(self, event: JSON) -> float | None:
        """In seconds, by the times of the events; None: not known yet, or nothing is counted."""
        data = event.get("data") or {}
        done, all_of = _counted(data)
        if not all_of or done is None:
            return None
        first = self._first.setdefault(_piece(data), event)
        copied = done - (_counted(first["data"])[0] or 0)
        spent = _time(event) - _time(first)
        if copied <= 0 or spent <= 0:
            return None
        return max(0.0, (all_of - done) * spent / copied)

    def remark(self, event: JSON) -> str:
        left = self.left(event)
        return remark(event) + (f", about {render.seconds(left)} left" if left else "")


class PlainSteps:
    """A line as each step ends, and a line for what was remarked meanwhile."""

    def __init__(self) -> None:
        self.about: dict[int, str] = {}
        self.tenths: object = None
        self.pace = Pace()

    def __enter__(self) -> PlainSteps:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def tell(self, event: JSON) -> None:
        data = event.get("data") or {}
        number = int(data.get("number", -1))
        match event["kind"]:
            case "step-started":
                self.about[number] = subject(data.get("args") or {})
            case "step-succeeded":
                about = self.about.get(number, "")
                render.note(line("✓", data["step"], about, data.get("seconds")))
            case "step-failed":
                about = self.about.get(number, "")
                render.note(line("✗", data["step"], about, data.get("seconds"), "failed"))
            case kind if not kind.startswith(("operation-", "step-")):
                said = self.pace.remark(event)
                if kind not in ("move-progress", "work-progress") or not self._as_before(data):
                    render.note(f"  {said}")

    def _as_before(self, data: JSON) -> bool:
        """A copy tells how far it is each second; a line for every tenth is enough."""
        done, all_of = _counted(data)
        share = int(10 * (done or 0) / all_of) if all_of else 10
        before, self.tenths = self.tenths, (_piece(data), share)
        return before == self.tenths


def _counted(data: JSON) -> tuple[int | None, int | None]:
    """Done and in all: rows of a move, bytes of a backup or restore."""
    if "phase" in data:
        return data.get("done"), data.get("all")
    return data.get("copied"), data.get("rows")


def _piece(data: JSON) -> object:
    """What the counts belong to."""
    return data.get("source"), data.get("target"), data.get("phase")


def window(marks: Sequence[str], height: int) -> range:
    """The steps to show when only `height` lines are free: those around the one that is next."""
    if len(marks) <= height:
        return range(len(marks))
    current = next((i for i, mark in enumerate(marks) if mark != "succeeded"), len(marks) - 1)
    first = min(max(0, current - height // 2), len(marks) - height)
    return range(first, first + height)


class LiveSteps:
    """The list of steps, redrawn a few times a second while the operation runs.

    As much of it as fits on the screen while it runs, at the end the whole.

    It begins with what the operation says of its steps: the events of an old one may be forgotten.
    """

    def __init__(self, steps: Sequence[JSON]) -> None:
        self.steps = [(step["name"], subject(step.get("args", {}))) for step in steps]
        self.marks = [str(step.get("state", "pending")) for step in steps]
        self.seconds: list[float | None] = [step.get("seconds") for step in steps]
        self.since = time.monotonic()
        self.remark = ""
        self.pace = Pace()
        self._live: Live | None = None

    def __enter__(self) -> LiveSteps:
        from rich.console import Console
        from rich.live import Live

        colourless = Settings.read().never_colour
        self._live = Live(
            get_renderable=self._draw,
            console=Console(stderr=True, highlight=False, no_color=colourless or None),
            refresh_per_second=8,
            vertical_overflow="crop",
        )
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self.remark = ""
            live, self._live = self._live, None
            live.__exit__(kind, error, trace)

    def tell(self, event: JSON) -> None:
        data = event.get("data") or {}
        number = int(data.get("number", -1))
        kind = event["kind"]
        if not kind.startswith(("operation-", "step-")):
            self.remark = self.pace.remark(event)
        if not 0 <= number < len(self.steps):
            return
        self.remark = ""
        self.marks[number] = kind.removeprefix("step-")
        self.seconds[number] = data.get("seconds")
        if kind == "step-started":
            self.since = time.monotonic() - _age(event)

    def _draw(self) -> RenderableType:
        from rich.text import Text

        lines = Text(no_wrap=True, overflow="ellipsis")
        shown = window(self.marks, self._free())
        if shown.start:
            lines.append(f"✓ {shown.start} steps before\n", "dim")
        for index in shown:
            name, about = self.steps[index]
            mark = self.marks[index]
            if mark == "succeeded":
                lines.append("✓ ", "green")
                lines.append(line("", name, about, self.seconds[index]))
            elif mark == "failed":
                lines.append("✗ " + line("", name, about, self.seconds[index], "failed"), "red")
            elif mark in ("started", "running"):
                spent = time.monotonic() - self.since
                frame = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(spent * 8) % 10]
                lines.append(f"{frame} " + line("", name, about, spent), "bold")
            else:
                lines.append("· " + line("", name, about, None), "dim")
            lines.append("\n")
        if shown.stop < len(self.steps):
            lines.append(f"· {len(self.steps) - shown.stop} steps after\n", "dim")
        lines.append(self.remark, "yellow")
        return lines

    def _free(self) -> int:
        """Lines for steps, beside those that count the others and the remark."""
        if self._live is None:
            return len(self.steps)
        height = self._live.console.height
        return height if len(self.steps) < height - 1 else max(1, height - 4)


def _age(event: JSON) -> float:
    """How long ago it happened, in seconds: who comes later sees the same times."""
    return max(0.0, datetime.now(UTC).timestamp() - _time(event))


def _time(event: JSON) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def remark(event: JSON) -> str:
    """An event in one line."""
    data = event.get("data") or {}
    kind = str(event["kind"])
    if data.get("message"):
        return str(data["message"])
    if kind.startswith("step-"):
        about = subject(data.get("args") or {})
        return line(kind.removeprefix("step-"), str(data.get("step")), about, data.get("seconds"))
    problem = data.get("problem")
    if problem:
        return f"{kind} {problem.get('detail', '')}".strip()
    details = [f"{key}={_short(value)}" for key, value in data.items() if value not in (None, [])]
    return " ".join((kind, *details))


def _short(value: object) -> str:
    match value:
        case {"kind": kind, "target": target}:
            return f"{kind} {target}"
        case [*items]:
            return "; ".join(_short(item) for item in items)
        case _:
            return str(value)
