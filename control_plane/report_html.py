"""A drill report as one HTML page that needs nothing else, with a picture of what clients saw.

Pure. The picture is drawn from the raw journal of the slowest repeat: every attempt is a dot, at
the moment when it was meant to be sent and as high as its answer took; the phases lie below. The
period without proven recovery is shaded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from control_plane import drills_load, evidence, figures, ledger, report
from control_plane.report_text import ledger_rows, seconds
from runtime.errors import MeasurementVoid

JSON = Mapping[str, Any]
Across = Callable[[float], float]

WIDTH, HEIGHT, LEFT, TOP, BAND = 960, 260, 64, 28, 22
BEFORE_SECONDS = 3.0
FLOOR, CEILING = 0.001, 20.0
LINES = ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"))
PHASES = 7  # colours of phases in the style sheet

STYLE = """
:root{color-scheme:light dark;--text:#1e293b;--quiet:#526077;--line:#dbe2ea;--paper:#fff;
--ok:#217a5b;--failed:#c2410c;--unknown:#a21caf;--fault:#b91c1c;--shade:#fdecec;
--p0:#94a3b8;--p1:#64748b;--p2:#b45309;--p3:#1d4ed8;--p4:#0f766e;--p5:#4d7c0f;--p6:#15803d}
@media(prefers-color-scheme:dark){:root{--text:#e2e8f0;--quiet:#9fb0c5;--line:#2d3a4d;
--paper:#0f172a;--ok:#4ade9f;--failed:#fb923c;--unknown:#e879f9;--fault:#f87171;--shade:#2a1720;
--p0:#64748b;--p1:#94a3b8;--p2:#f59e0b;--p3:#60a5fa;--p4:#2dd4bf;--p5:#a3e635;--p6:#4ade80}}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:var(--text);background:var(--paper)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}
div.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line);
vertical-align:top;font-variant-numeric:tabular-nums}
th{color:var(--quiet);font-weight:500}.verdict{display:inline-block;padding:.1rem .6rem;
border-radius:.3rem;color:#fff}.passed{background:#15803d}.failed{background:#b91c1c}
.void{background:#7e22ce}.no{color:var(--fault);font-weight:600}p.quiet,li{color:var(--quiet)}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--quiet)}
svg .grid{stroke:var(--line)}svg .fault{stroke:var(--fault);stroke-width:1.5}
svg .outage{fill:var(--shade)}svg .ok{fill:var(--ok)}svg .failed{fill:var(--failed)}
svg .unknown{fill:var(--unknown)}svg .dot{fill-opacity:.75}
svg .p0{fill:var(--p0)}svg .p1{fill:var(--p1)}svg .p2{fill:var(--p2)}svg .p3{fill:var(--p3)}
svg .p4{fill:var(--p4)}svg .p5{fill:var(--p5)}svg .p6{fill:var(--p6)}
code{font-size:.8rem;word-break:break-all}
@media print{body{margin:0;max-width:none}}
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
        f"{escape(str(fault['target']))} · {_runs(document)} · "
        f"{_moment(document['startedAt'])} to {_moment(document['finishedAt'])}</p>",
        "<ul>" + "".join(f"<li>{escape(why)}</li>" for why in document["because"]) + "</ul>"
        if document["because"]
        else "",
        _table(
            ("objective", "limit", "measured", "margin", ""),
            [_objective(each) for each in document["objectives"]],
        ),
        f"<p>Recovery time p50 {seconds(spread['p50'])}, p95 {seconds(spread['p95'])}, "
        f"max {seconds(spread['max'])}.</p>",
        "".join(
            f"<p>{escape(line)}.</p>"
            for line in (*figures.lines(document), *drills_load.sentences(document))
        ),
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
        *_load(document),
        "<h2>Made with</h2>",
        _table(("what", "version"), sorted(document["versions"].items())),
        f'<p class="quiet">Topology {escape(document["topology"]["name"])}, digest '
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


def _load(document: JSON) -> Iterable[str]:
    """What the load beside the drill met; its own pages lie beside this one."""
    for title, head, rows in drills_load.tables(document):
        yield f"<h2>{escape(title)}</h2>{_table(head, rows)}"
    for run in (document.get("load") or {"runs": ()})["runs"]:
        name = f"{report.run_folder(run['run'])}/load/report.html"
        yield f'<p><a href="{escape(name)}">The whole report of this load, over time</a></p>'


def _runs(document: JSON) -> str:
    number = len(document["repeats"])
    return "1 run" if number == 1 else f"{number} runs"


def _moment(at: str) -> str:
    """An ISO 8601 time in UTC, to the second."""
    return escape(at[:19].replace("T", " ") + " UTC")


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
    if not body:
        return '<p class="quiet">none</p>'
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


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

    shown = [a for a in book.attempts if -BEFORE_SECONDS <= a.intended - began <= span]
    shapes = [*_outage(run["rtoSeconds"], across, began, span), *_axes(across, began, span)]
    shapes += [*_dots(shown, across), *_bands(phases, across, began, span)]
    height = TOP + HEIGHT + 34 + BAND * len(phases)
    label = "Time that each answer took around the fault, and the phases of the recovery"
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        f"{_legend(shown)}{''.join(shapes)}</svg>"
    )


def _legend(shown: Sequence[ledger.Attempt]) -> str:
    """What the dots mean, each outcome with its count in the picture."""
    tally = Counter(attempt.outcome for attempt in shown)
    shapes = [f'<text x="{LEFT}" y="14">time to the answer, by outcome:</text>']
    x = LEFT + 216
    for name in ("ok", "failed", "unknown"):
        shapes.append(
            f'<circle cx="{x}" cy="10" r="4" class="{name}"/>'
            f'<text x="{x + 9}" y="14">{name} {tally[name]}</text>'
        )
        x += 110
    shapes.append(f'<text x="{x}" y="14">at the top edge: no answer at all</text>')
    return "".join(shapes)


def _outage(rto: float | None, across: Across, began: float, span: float) -> list[str]:
    """A shade from the fault to the recovery, or to the end when there was none."""
    first, last = across(began), across(began + (span if rto is None else min(rto, span)))
    return [
        f'<rect x="{first:.1f}" y="{TOP}" width="{last - first:.1f}" height="{HEIGHT}" '
        'class="outage"/>'
    ]


def _up(took: float) -> float:
    """Height of an answer that took so many seconds: logarithmic, 1 ms to 20 s."""
    share: float = math.log(min(max(took, FLOOR), CEILING) / FLOOR) / math.log(CEILING / FLOOR)
    return TOP + HEIGHT * (1 - share)


def _axes(across: Across, began: float, span: float) -> list[str]:
    shapes = []
    for took, name in LINES:
        y = _up(took)
        shapes.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
        )
    stride = 1 if span <= 15 else 5
    for tick in range(-int(BEFORE_SECONDS), int(span) + 1):
        if tick % stride:
            continue
        x, y = across(began + tick), TOP + HEIGHT
        name = f"{tick:+d} s" if tick else "0"
        shapes.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}" class="grid"/>'
            f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{name}</text>'
        )
    x, low = across(began), TOP + HEIGHT
    shapes.append(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{low}" class="fault"/>'
        f'<text x="{x + 5:.1f}" y="{low - 6}">fault</text>'
    )
    return shapes


def _dots(shown: Sequence[ledger.Attempt], across: Across) -> list[str]:
    """Troubles are drawn last, so that no success covers one."""
    shapes = []
    for attempt in sorted(shown, key=lambda each: not each.ok):
        took = CEILING if attempt.done is None else attempt.done - attempt.intended
        shapes.append(
            f'<circle cx="{across(attempt.intended):.1f}" cy="{_up(took):.1f}" '
            f'r="{2.2 if attempt.ok else 3}" class="dot {attempt.outcome}"/>'
        )
    return shapes


def _bands(phases: Sequence[JSON], across: Across, began: float, span: float) -> list[str]:
    """A bar for each phase; one that reaches past the picture says so."""
    shapes = []
    for number, phase in enumerate(phases):
        ended = phase["endedAtSeconds"]
        start = max(min(ended - phase["seconds"], span), -BEFORE_SECONDS)
        y = TOP + HEIGHT + 34 + BAND * number
        x = min(across(began + start), WIDTH - 10.0)
        width = max(across(began + min(ended, span)) - x, 2.0)
        label = f"{phase['name']} {seconds(phase['seconds'])}"
        if ended > span:
            label += f", until {seconds(ended)} after the fault →"
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAND - 6}" rx="2" '
            f'class="p{number % PHASES}"/>'
        )
        near = x + width + 6 < WIDTH - 200
        at, anchor = (x + width + 6, "start") if near else (x - 6, "end")
        shapes.append(
            f'<text x="{at:.1f}" y="{y + BAND - 10}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    return shapes
