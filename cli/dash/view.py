"""What the dashboard says, from the overview and its age. Pure: text and tones, no widgets.

A state is never colour alone: a glyph, a word and a tone. Ages and elapsed times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

JSON = Mapping[str, Any]

STALE_SECONDS = 10.0
RUNNING = ("pending", "running")
FAILING = ("failover", "queue-failover")
BARS = "▁▂▃▄▅▆▇█"
KEYS_OF_STATE = {
    "healthy": ("●", "OK", "ok"),
    "degraded": ("▲", "DEGRADED", "warn"),
    "down": ("✖", "DOWN", "bad"),
    "drill": ("◆", "DRILL", "drill"),
    "failover": ("⇄", "FAILOVER", "failover"),
    "stale": ("?", "STALE", "stale"),
    "running": ("▶", "running", "work"),
    "pending": ("·", "pending", "dim"),
    "succeeded": ("✓", "succeeded", "ok"),
    "failed": ("✖", "failed", "bad"),
    "aborted": ("■", "aborted", "warn"),
}


@dataclass(frozen=True)
class Cell:
    """`tone` is ok, warn, bad, drill, failover, stale, work, dim or nothing."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Probe:
    """What the edge said when asked directly; `answer` is None when it said nothing.

    Not `known`: nobody here knows where to ask.
    """

    name: str
    answer: str | None
    seconds: float
    known: bool = True


@dataclass(frozen=True)
class Contact:
    """How fresh the document is. `lost` is for how long nobody has answered; None: in contact.

    `paused`: it is kept on the screen on purpose, whatever has come since.
    """

    age: float | None = None
    paused: bool = False
    lost: float | None = None
    word: str = "unreachable"
    why: str = ""
    attempts: int = 0
    retry_in: float = 0.0
    probes: tuple[Probe, ...] = ()

    @property
    def stale(self) -> bool:
        old = self.age is None or (self.age > STALE_SECONDS and not self.paused)
        return self.lost is not None or old


def state(word: str) -> Cell:
    """Glyph and word: "● OK"; a word that nobody foresaw is shown as it is."""
    glyph, text, tone = KEYS_OF_STATE.get(word, ("?", word, "stale"))
    return Cell(f"{glyph} {text}", tone)


def duration(seconds: float | None) -> str:
    """A running time: 00:12, 01:02:03."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def ago(seconds: float) -> str:
    """An age for people: 0.4s, 12s, 3m, 2h, 5d; rounded down, so that it changes seldom."""
    if seconds < 1:
        return f"{max(0.0, seconds):.1f}s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def between(start: str | None, end: str | None) -> float | None:
    """Seconds from one ISO 8601 time to another."""
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def number(value: float | None, form: str = "{:.0f}") -> str:
    return "-" if value is None else form.format(value)


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value * 100:.{digits}f}%"


def meter(share: float | None, width: int) -> str:
    """`share` (0 to 1) of `width` blocks, in eighths of a block."""
    if share is None:
        return "·" * width
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    text = "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return text.ljust(width, "░")


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The newest `width` values as bars from zero to the highest; a gap stays a gap."""
    shown = list(values[-width:])
    top = max((value for value in shown if value is not None), default=0.0)
    steps = len(BARS) - 1
    bars = [
        " " if value is None else BARS[round(value / top * steps) if top else 0] for value in shown
    ]
    return "".join(bars).rjust(width)


def latest(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def headline(document: JSON | None, contact: Contact) -> Cell:
    """What all of it amounts to: stale before failover before drill before the platform's state."""
    if document is None or contact.stale:
        return state("stale")
    activity = document.get("activity")
    if activity and activity["kind"] in FAILING:
        return state("failover")
    if activity and activity["kind"] == "drill":
        return state("drill")
    cell = state(document["state"])
    return Cell("● ALL HEALTHY", "ok") if document["state"] == "healthy" else cell


def freshness(contact: Contact) -> str:
    if contact.age is None:
        return "no data yet"
    if contact.paused:
        return f"PAUSED, data {ago(contact.age)} old"
    if contact.stale:
        return f"data {ago(contact.age)} old"
    return f"live {ago(contact.age)} ago"


def top_bar(document: JSON | None, contact: Contact, name: str, width: int, mode: str = "") -> Cell:
    """Context, mode and freshness in one line; what matters least goes first when it is narrow."""
    head = headline(document, contact)
    parts = [f"regionctl {document['name'] if document else name}", head.text]
    if document is not None:
        regions = document["regions"]
        ill = sum(region["state"] != "healthy" for region in regions)
        count = f"{ill} of {len(regions)} regions" if ill else f"{len(regions)} regions"
        parts += [count, f"{len(document['shards'])} databases", _budget(document)]
    parts += [mode, freshness(contact)]
    parts = [part for part in parts if part]
    for drop in (3, 3, 2):
        if len("  ".join(parts)) + 2 <= width or len(parts) <= 4:
            break
        parts.pop(drop)
    return Cell("  ".join(parts)[:width], head.tone)


def _budget(document: JSON) -> str:
    lefts = [each["budgetLeft"] for each in document["slo"] if each.get("budgetLeft") is not None]
    return f"SLO budget {percent(min(lefts))}" if lefts else ""


def banners(document: JSON | None, contact: Contact) -> list[Cell]:
    """What must not be scrolled away: lost contact, then the work that matters most."""
    lines = _lost(document, contact) if contact.lost is not None else []
    if document is None:
        return lines
    age = contact.age or 0.0
    shown = [document["activity"]] if document.get("activity") else []
    seen = {each["operation"] for each in shown}
    shown += [
        {**each, "operation": each["id"]}
        for each in document["operations"]
        if each["state"] in RUNNING
        and each["kind"] in (*FAILING, "drill")
        and each["id"] not in seen
    ]
    return lines + [_work(each, document["at"], age) for each in shown[:2]]


def _work(activity: JSON, at: str, age: float) -> Cell:
    kind = activity["kind"]
    glyph, word, tone = KEYS_OF_STATE[
        "failover" if kind in FAILING else "drill" if kind == "drill" else "running"
    ]
    word = kind.upper() if word == "running" else word
    elapsed = between(activity.get("startedAt"), at)
    reason = activity.get("reason")
    parts = [
        f"{glyph} {word} {activity['target']}",
        activity["operation"],
        f"step {activity['step']}/{activity['steps']} {activity.get('stepName') or ''}".rstrip(),
        duration(None if elapsed is None else elapsed + age),
        f"by {activity['requestedBy']}" if activity.get("requestedBy") else "",
        f'"{reason}"' if reason else "",
    ]
    return Cell("  ".join(part for part in parts if part), tone)


def _lost(document: JSON | None, contact: Contact) -> list[Cell]:
    first = (
        f"? STALE  control plane {contact.word} {duration(contact.lost)}"
        f"  retry {contact.attempts + 1} in {contact.retry_in:.0f}s  {contact.why}"
    )
    lines = [Cell(first, "stale")]
    if document is not None:
        at = document["at"][11:19]
        lines.append(Cell(f"all values are from {at}Z; actions are disabled", "stale"))
    for probe in contact.probes:
        if not probe.known:
            text = f"not asked directly: {probe.name} not known from here"
            lines.append(Cell(text, "dim"))
            continue
        said = f"{probe.answer}, {probe.seconds * 1000:.0f} ms" if probe.answer else "no answer"
        tone = "ok" if probe.answer else "bad"
        lines.append(Cell(f"asked directly: {probe.name} {said}", tone))
    lines.append(Cell("try: regionctl doctor · regionctl up   (ctrl+r asks now)", "dim"))
    return lines


def plain(document: JSON | None, contact: Contact) -> list[Cell]:
    """All that matters as sentences: for screen readers, small terminals and logs."""
    lines = [Cell(banner.text, banner.tone) for banner in banners(document, contact)]
    if document is None:
        return [*lines, Cell(freshness(contact))]
    head = headline(document, contact)
    lines.insert(0, Cell(f"{document['name']}: {head.text}; {freshness(contact)}", head.tone))
    for region in document["regions"]:
        traffic, cell = region["traffic"], state(region["state"])
        figures = [
            f"{percent(traffic['share'], 0)} of the traffic",
            f"{number(traffic['rate'], '{:.1f}')} requests/s",
            f"p99 {number(traffic['p99Ms'])} ms",
            f"errors {percent(traffic['errorRatio'], 2)}",
            f"lag {number(region['lagSeconds'], '{:.2f}')} s",
        ]
        text = f"region {region['name']} ({region['role']}): {cell.text}; {', '.join(figures)}"
        lines += [Cell(text, cell.tone), *_advice(region)]
    for shard in document["shards"]:
        if shard.get("state", "healthy") != "healthy":
            cell = state(shard["state"])
            lines += [Cell(f"database {shard['name']}: {cell.text}", cell.tone), *_advice(shard)]
    return lines


def _advice(thing: JSON) -> list[Cell]:
    why = [Cell(f"  why: {line}", "warn") for line in thing.get("why") or ()]
    return [*why, *(Cell(f"  try: {line}", "ok") for line in thing.get("try") or ())]
