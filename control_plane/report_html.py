"""A drill report as one HTML page that needs nothing else, with a picture of what clients saw.

Pure. The picture is drawn from the raw journal of the slowest repeat: every attempt is a dot, at
the moment when it was meant to be sent and as high as its answer took; the phases lie below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from control_plane import evidence, ledger, report
from control_plane.report_text import ledger_rows, seconds
from runtime.errors import MeasurementVoid

JSON = Mapping[str, Any]
Across = Callable[[float], float]

WIDTH, HEIGHT, LEFT, TOP, BAND = 960, 260, 64, 16, 22
BEFORE_SECONDS = 3.0
FLOOR, CEILING = 0.001, 20.0
LINES = ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"))
COLOURS = {"ok": "#2a7f62", "failed": "#c2410c", "unknown": "#a21caf"}
PHASE_COLOURS = ("#94a3b8", "#64748b", "#b45309", "#1d4ed8", "#0f766e", "#4d7c0f", "#15803d")

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#1e293b;background:#fff}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid #e2e8f0;
vertical-align:top;font-variant-numeric:tabular-nums}
th{color:#64748b;font-weight:500}.verdict{display:inline-block;padding:.1rem .6rem;
border-radius:.3rem;color:#fff}.passed{background:#15803d}.failed{background:#b91c1c}
.void{background:#7e22ce}.no{color:#b91c1c;font-weight:600}p.quiet,li{color:#475569}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#475569}
code{font-size:.8rem;word-break:break-all}
"""


def page(document: JSON, files: Mapping[str, bytes]) -> str:
    """The whole page."""
    fault, spread = document["fault"], document["distribution"]["rtoSeconds"]
    verdict = document["verdict"]
    blocks = [
        f"<h1>{escape(document['title'])} "
        f'<span class="verdict {escape(verdict)}">{escape(verdict)}</span></h1>',
        f'<p class="quiet">{escape(document["hypothesis"])}</p>',
        f"<p>{escape(str(document['operation']))} · {escape(str(fault['kind']))} "
        f"{escape(str(fault['target']))} · {len(document['repeats'])} run(s) · "
        f"{escape(document['startedAt'])} to {escape(document['finishedAt'])}</p>",
        "<ul>" + "".join(f"<li>{escape(why)}</li>" for why in document["because"]) + "</ul>"
        if document["because"]
        else "",
        _table(
            ("objective", "limit", "measured", "margin", ""),
            [_objective(each) for each in document["objectives"]],
        ),
        f"<p>Recovery time p50 {seconds(spread['p50'])}, p95 {seconds(spread['p95'])}, "
        f"max {seconds(spread['max'])}.</p>",
        "<h2>What clients saw in the slowest run</h2>",
        timeline(document, files),
        "<h2>Phases</h2>",
        _table(
            ("phase", "took", "ended after the fault"),
            [
                (p["name"], seconds(p["seconds"]), seconds(p["endedAtSeconds"]))
                for p in document["phases"]
            ],
        ),
        "<h2>Ledger</h2>",
        _table(*ledger_rows(document["ledger"])),
        "<h2>Invariants</h2>",
        _table(
            ("invariant", "held", "detail"),
            [(i["name"], _yes(i["held"]), i["detail"]) for i in document["invariants"]],
        ),
        "<h2>Test of the meter</h2>",
        _table(
            ("planted", "caught", "the meter saw"),
            [(c["kind"], _yes(c["caught"]), c["saw"]) for c in document["selfTest"]["controls"]],
        ),
        "<h2>Runs</h2>",
        _table(
            ("run", "verdict", "target", "recovery", "write gap", "lost", "failed", "unknown"),
            [_repeat(each) for each in document["repeats"]],
        ),
        "<h2>Made with</h2>",
        _table(("what", "version"), sorted(document["versions"].items())),
        f"<p class=quiet>Topology {escape(document['topology']['name'])}, digest "
        f"<code>{escape(document['topology']['digest'])}</code>. Seal "
        f"<code>{escape(document['seal'])}</code>. Check with "
        "<code>regionctl drill verify-report report.json</code>.</p>",
    ]
    body = "\n".join(block for block in blocks if block)
    title = f"{escape(document['drill'])}: {escape(verdict)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>\n{body}\n</body></html>\n"
    )


def _objective(each: JSON) -> tuple[str, ...]:
    limit, measured = each["limitSeconds"], each["measuredSeconds"]
    margin = None if measured is None else limit - measured
    met = "met" if each["met"] else "missed"
    return each["name"].upper(), seconds(limit), seconds(measured), seconds(margin), met


def _repeat(each: JSON) -> tuple[str, ...]:
    return (
        str(each["run"]),
        each["verdict"],
        str(each["fault"]["target"]),
        seconds(each["rtoSeconds"]),
        seconds(each["longestWriteGapSeconds"]),
        str(each["lost"]),
        str(each["failed"]),
        str(each["unknown"]),
    )


def _yes(held: bool) -> str:
    return "yes" if held else "no"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        mark = ' class="no"' if text in ("no", "missed") else ""
        return f"<td{mark}>{escape(text)}</td>"

    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def timeline(document: JSON, files: Mapping[str, bytes]) -> str:
    """The picture, as inline SVG; a sentence when the raw journal cannot be read."""
    run = max(document["repeats"], key=lambda each: each["rtoSeconds"] or math.inf)
    own = report.run_files(files, run["run"])
    try:
        book = evidence.parse_journal(own)
        began = float(evidence.load(own, "fault.json")["began"])
    except MeasurementVoid as problem:
        return f"<p>{escape(problem.detail)}</p>"
    phases = run["phases"]
    after: float = max(
        [each["endedAtSeconds"] for each in phases if each["name"] == "steady"] or [10.0]
    )
    span = min(max(after + 1.0, 5.0), 60.0)

    def across(at: float) -> float:
        return LEFT + (at - began + BEFORE_SECONDS) / (span + BEFORE_SECONDS) * (WIDTH - LEFT - 8)

    shapes = [*_axes(across, began, span), *_dots(book, across, began, span)]
    shapes += _bands(phases, across, began, span)
    height = TOP + HEIGHT + 30 + BAND * max(len(phases), 1) + 26
    legend = "".join(
        f'<circle cx="{LEFT + 90 * n}" cy="{height - 8}" r="4" fill="{colour}"/>'
        f'<text x="{LEFT + 10 + 90 * n}" y="{height - 4}">{name}</text>'
        for n, (name, colour) in enumerate(COLOURS.items())
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Time of every answer around '
        f'the fault, and the phases of the recovery">{"".join(shapes)}{legend}</svg>'
    )


def _up(took: float) -> float:
    """Height of an answer that took so many seconds: logarithmic, 1 ms to 20 s."""
    share: float = math.log(min(max(took, FLOOR), CEILING) / FLOOR) / math.log(CEILING / FLOOR)
    return TOP + HEIGHT * (1 - share)


def _axes(across: Across, began: float, span: float) -> list[str]:
    shapes = []
    for took, name in LINES:
        y = _up(took)
        shapes.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
        )
    stride = 1 if span <= 12 else 5
    for tick in range(-int(BEFORE_SECONDS), int(span) + 1, stride):
        x = across(began + tick)
        shapes.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{tick:+d} s</text>'
        )
    x = across(began)
    shapes.append(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="#b91c1c" '
        f'stroke-width="1.5"/><text x="{x + 5:.1f}" y="{TOP + 10}">fault</text>'
    )
    return shapes


def _dots(book: ledger.Ledger, across: Across, began: float, span: float) -> list[str]:
    shapes = []
    for attempt in book.attempts:
        if not -BEFORE_SECONDS <= attempt.intended - began <= span:
            continue
        took = CEILING if attempt.done is None else attempt.done - attempt.intended
        shapes.append(
            f'<circle cx="{across(attempt.intended):.1f}" cy="{_up(took):.1f}" r="2.2" '
            f'fill="{COLOURS[attempt.outcome]}" fill-opacity=".7"/>'
        )
    return shapes


def _bands(phases: Sequence[JSON], across: Across, began: float, span: float) -> list[str]:
    shapes = []
    for number, phase in enumerate(phases):
        end = min(phase["endedAtSeconds"], span)
        start = max(min(phase["endedAtSeconds"] - phase["seconds"], span), 0.0)
        y = TOP + HEIGHT + 30 + BAND * number
        x, width = across(began + start), max(across(began + end) - across(began + start), 2.0)
        colour = PHASE_COLOURS[number % len(PHASE_COLOURS)]
        label = f"{phase['name']} {seconds(phase['seconds'])}"
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAND - 6}" fill="{colour}"/>'
        )
        near = x + width + 6 < WIDTH - 150
        at, anchor = (x + width + 6, "start") if near else (x - 6, "end")
        shapes.append(
            f'<text x="{at:.1f}" y="{y + BAND - 10}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    return shapes
