"""The pictures of a load report, as SVG that takes its colours from the page. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from loadtests import histograms
from loadtests.budget import phase_at

JSON = Mapping[str, Any]
Scale = Callable[[float], float]

WIDTH, LEFT, RIGHT = 960, 56, 12
TOP, BOTTOM = 18, 22
TALL, SHORT = 220, 110
MOST_POINTS = 480
FLOOR_MS, CEILING_MS = 0.1, 100_000.0
# The latency curve ends where a run of 100 000 requests does.
SHARES = (
    *(float(share) for share in range(0, 90, 5)),
    *(90 + each / 2 for each in range(0, 18)),
    *(99 + each / 10 for each in range(0, 9)),
    *(99.9 + each / 100 for each in range(0, 10)),
    99.999,
)
MARKS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


def timeline(run: JSON) -> str:
    """Latency and outcome of each second (of several, in a long run), with phases and the fault."""
    points = thinned(run["timeline"])
    if not points:
        return ""
    last = max(float(run["plan"]["seconds"]), points[-1]["t"] + 1)
    across = linear((0.0, last), (LEFT, WIDTH - RIGHT))
    times = [each[name] for each in points for name in ("p50Ms", "p99Ms") if each[name]]
    up = logarithmic(_span(times), (TALL - BOTTOM, TOP))
    latency = [
        *_phases(run, across, TALL),
        *_levels(up, times),
        *_line(points, "p50Ms", across, up, "p50"),
        *_line(points, "p99Ms", across, up, "p99"),
        *_fault(run, across, TALL),
        *_seconds(across, last, TALL),
    ]
    most = max(each["ok"] + each["errors"] for each in points) or 1
    counts = [
        *_phases(run, across, SHORT),
        *_bars(points, across, linear((0.0, most), (SHORT - BOTTOM, TOP)), last),
        _text(LEFT - 6, TOP + 8, f"{most}/s", "end"),
        *_fault(run, across, SHORT),
        *_seconds(across, last, SHORT),
    ]
    return _svg("Latency of each second", TALL, latency) + _svg(
        "Answers of each second", SHORT, counts
    )


def curves(run: JSON) -> str:
    """Latency by percentile, from the intended start and from the real one."""
    chosen = histograms.selected(run, {})
    found = {
        clock: histograms.curve(histograms.merged(chosen, clock), SHARES)
        for clock in ("intended", "service")
    }
    times = [each for line in found.values() for _, each in line if each > 0]
    if not times:
        return ""
    samples = sum(each["ok"] + each["errors"] for each in chosen)
    furthest = min(100 * (1 - 1 / max(samples, 2)), SHARES[-1])
    across = _percentiles((LEFT, WIDTH - RIGHT))
    up = logarithmic(_span(times), (TALL - BOTTOM, TOP))
    drawn = list(_levels(up, times))
    for mark in MARKS:
        x = across(mark)
        drawn.append(f'<path class="grid" d="M{x:.1f} {TOP}V{TALL - BOTTOM}"/>')
        drawn.append(_text(x, TALL - 6, f"{mark:g} %", "end" if mark == MARKS[-1] else "middle"))
    for clock, line in found.items():
        path = _path((across(share), up(value)) for share, value in line if share <= furthest)
        drawn.append(f'<path class="{clock}" d="{path}"/>')
    return _svg("Latency by percentile", TALL, drawn)


def thinned(seconds: Sequence[JSON]) -> list[JSON]:
    """At most `MOST_POINTS`: of seconds put together the mean counts and the worst latency."""
    width = math.ceil(len(seconds) / MOST_POINTS)
    if width <= 1:
        return list(seconds)
    return [_together(seconds[at : at + width]) for at in range(0, len(seconds), width)]


def _together(seconds: Sequence[JSON]) -> JSON:
    counts = {
        name: round(sum(each[name] for each in seconds) / len(seconds), 1)
        for name in ("started", "ok", "errors")
    }
    times = {
        name: max((each[name] for each in seconds if each[name] is not None), default=None)
        for name in ("p50Ms", "p99Ms")
    }
    return {"t": seconds[0]["t"], **counts, **times}


def linear(of: tuple[float, float], to: tuple[float, float]) -> Scale:
    span = (of[1] - of[0]) or 1.0
    return lambda value: to[0] + (value - of[0]) / span * (to[1] - to[0])


def logarithmic(of: tuple[float, float], to: tuple[float, float]) -> Scale:
    inner = linear((math.log10(of[0]), math.log10(of[1])), to)
    return lambda value: inner(math.log10(min(max(value, of[0]), of[1])))


def _percentiles(to: tuple[float, float]) -> Scale:
    """Each nine is as wide as the one before."""
    inner = linear((0.0, 5.0), to)
    return lambda share: inner(-math.log10(max(1 - share / 100, 1e-5)))


def _span(times: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around all times, in milliseconds."""
    low = max(min(times, default=1.0), FLOOR_MS)
    high = min(max(times, default=10.0), CEILING_MS)
    below, above = math.floor(math.log10(low)), math.ceil(math.log10(high * 1.001))
    return 10.0**below, 10.0 ** max(above, below + 1)


def _levels(up: Scale, times: Sequence[float]) -> Iterable[str]:
    low, high = _span(times)
    value = low
    while value <= high * 1.001:
        y = up(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        told = f"{value:g} ms" if value < 1000 else f"{value / 1000:g} s"
        yield _text(LEFT - 6, y + 4, told, "end")
        value *= 10


def _line(points: Sequence[JSON], name: str, across: Scale, up: Scale, label: str) -> Iterable[str]:
    """Where nothing was answered the line is broken."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for each in points:
        if each[name] is None:
            pieces.append([])
        else:
            pieces[-1].append((across(each["t"] + 0.5), up(each[name])))
    for piece in pieces:
        if len(piece) == 1:
            x, y = piece[0]
            yield f'<circle class="{label}" cx="{x:.1f}" cy="{y:.1f}" r="1.5"/>'
        elif piece:
            yield f'<path class="{label}" d="{_path(piece)}"/>'


def _bars(points: Sequence[JSON], across: Scale, up: Scale, last: float) -> Iterable[str]:
    width = max((WIDTH - LEFT - RIGHT) / max(len(points), last / 1e9, 1) - 0.4, 0.6)
    for kind, below in (("ok", None), ("errors", "ok")):
        d = ""
        for each in points:
            base = up(each[below]) if below else up(0)
            top = up(each[kind] + (each[below] if below else 0))
            if each[kind]:
                d += f"M{across(each['t']):.1f} {base:.1f}V{top:.1f}h{width:.1f}V{base:.1f}z"
        if d:
            yield f'<path class="{kind}" d="{d}"/>'


def _phases(run: JSON, across: Scale, height: int) -> Iterable[str]:
    for number, phase in enumerate(run["plan"]["phases"]):
        begin, end = across(phase["from"]), across(phase["to"])
        kind = "fault-phase" if phase["name"] == "fault" else f"phase{number % 2}"
        yield (
            f'<rect class="{kind}" x="{begin:.1f}" y="{TOP}" width="{max(end - begin, 0):.1f}" '
            f'height="{height - TOP - BOTTOM}"/>'
        )
        yield _text(begin + 3, TOP - 5, escape(str(phase["name"])), "start")


def _fault(run: JSON, across: Scale, height: int) -> Iterable[str]:
    fault = (run.get("drill") or {}).get("fault")
    if not fault:
        return
    x = across(fault["at"])
    told = escape(f"{fault['kind']} {fault['target']}, {phase_at(run, fault['at'])}")
    yield f'<path class="fault" d="M{x:.1f} {TOP}V{height - BOTTOM}"><title>{told}</title></path>'


def _seconds(across: Scale, last: float, height: int) -> Iterable[str]:
    step = next(
        (each for each in (1, 5, 10, 30, 60, 300, 600, 1800, 3600) if last / each <= 12), 7200
    )
    for number in range(int(last // step) + 1):
        at = number * step
        anchor = "middle" if at + step / 2 < last else "end"
        yield _text(across(at), height - 6, f"{at} s", anchor)


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _svg(title: str, height: int, parts: Iterable[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
