"""A drill report as Markdown and as JUnit XML. Pure: text from the document alone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from control_plane import drills_load, figures

JSON = Mapping[str, Any]


def seconds(value: float | None) -> str:
    """A time for people: 0.83 s, 12.4 s, 5 min, 4 h."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:g} min" if value % 60 == 0 else f"{value / 60:.1f} min"
    return f"{value / 3600:g} h" if value % 3600 == 0 else f"{value / 3600:.1f} h"


def markdown(report: JSON) -> str:
    """The report on one page, for a summary of a build or a ticket."""
    fault, ledger, test = report["fault"], report["ledger"], report["selfTest"]
    spread = report["distribution"]["rtoSeconds"]
    blocks = [
        f"# {report['title']}: {report['verdict']}",
        f"Drill {report['drill']}, operation {report['operation']}, {report['startedAt']} to "
        f"{report['finishedAt']}. Fault: {fault['kind']} {fault['target']}, "
        f"{len(report['repeats'])} times.",
        f"> {report['hypothesis']}",
        _bullets(report["because"]),
        "## Objectives",
        _table(
            ("objective", "limit", "measured", "met"),
            [
                (
                    o["name"].upper(),
                    seconds(o["limitSeconds"]),
                    seconds(o["measuredSeconds"]),
                    "yes" if o["met"] else "**no**",
                )
                for o in report["objectives"]
            ],
        ),
        f"Recovery time: p50 {seconds(spread['p50'])}, p95 {seconds(spread['p95'])}, "
        f"max {seconds(spread['max'])}.",
        _bullets([*figures.lines(report), *drills_load.sentences(report)]),
        "## Phases of the slowest repeat",
        _table(
            ("phase", "took", "ended after the fault"),
            [
                (p["name"], seconds(p["seconds"]), seconds(p["endedAtSeconds"]))
                for p in report["phases"]
            ],
        ),
        "## Ledger",
        _table(*ledger_rows(ledger)),
        "## Invariants",
        _table(
            ("invariant", "held", "detail"),
            [
                (i["name"], "yes" if i["held"] else "**no**", i["detail"])
                for i in report["invariants"]
            ],
        ),
        f"The meter caught {test['caught']} of {test['planted']} planted failures.",
        "## Repeats",
        _table(
            ("run", "verdict", "recovery", "longest write gap", "lost", "failed", "unknown"),
            [
                (
                    str(r["run"]),
                    r["verdict"],
                    seconds(r["rtoSeconds"]),
                    seconds(r["longestWriteGapSeconds"]),
                    str(r["lost"]),
                    str(r["failed"]),
                    str(r["unknown"]),
                )
                for r in report["repeats"]
            ],
        ),
        *(
            block
            for title, head, rows in drills_load.tables(report)
            for block in (f"## {title}", _table(head, rows))
        ),
        "## Made with",
        _table(("what", "version"), sorted(report["versions"].items())),
        f"Topology {report['topology']['name']}, digest `{report['topology']['digest']}`. "
        f"Seal `{report['seal']}`. Check it with `regionctl drill verify-report report.json`.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def ledger_rows(ledger: JSON) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Writes and reads, one row each: attempted = acknowledged + failed + unknown."""
    counted = ("attempted", "acknowledged", "failed", "unknown")
    reads = ledger["reads"]
    cents = f"{ledger['lostCents'] / 100:.2f}"
    loss = (str(ledger["lost"]), cents, str(ledger["duplicated"]), seconds(ledger["lossSeconds"]))
    return ("requests", *counted, "lost", "value lost", "duplicated", "loss reaches back"), [
        ("writes", *(str(ledger[name]) for name in counted), *loss),
        ("reads", *(str(reads[name]) for name in counted), "-", "-", "-", "-"),
    ]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def junit(report: JSON) -> str:
    """One suite: a case for each objective, invariant, repeat, and for the meter's test."""
    suite = TestSuite(f"drill.{report['drill']}")
    void = report["verdict"] == "void"
    for objective in report["objectives"]:
        case = TestCase(f"objective {objective['name']}", suite.name)
        case.time = objective["measuredSeconds"] or 0.0
        _fail(case, objective["met"], objective["because"], "ObjectiveMissed")
        suite.add_testcase(case)
    for invariant in report["invariants"]:
        case = TestCase(f"invariant {invariant['name']}", suite.name)
        _fail(case, invariant["held"], invariant["detail"], "InvariantBroken")
        suite.add_testcase(case)
    for repeat in report["repeats"]:
        case = TestCase(f"run {repeat['run']}", suite.name)
        case.time = repeat["rtoSeconds"] or 0.0
        _fail(case, repeat["verdict"] == "passed", "; ".join(repeat["because"]), "RunFailed")
        suite.add_testcase(case)
    meter = TestCase("the meter sees planted failures", suite.name)
    if void:
        meter.result = [Error("; ".join(report["because"]), "MeasurementVoid")]
    suite.add_testcase(meter)
    document = JUnitXml("regionctl drill")
    document.add_testsuite(suite)
    out = io.BytesIO()
    document.write(out, pretty=True)
    return out.getvalue().decode()


def _fail(case: TestCase, good: bool, why: str, kind: str) -> None:
    if not good:
        case.result = [Failure(why, kind)]
