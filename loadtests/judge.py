"""Judges a load run: is it valid at all, and then, does it hold its gates?

    python -m loadtests.judge DIR [--gate slo.yaml] [--drill drill.json]
    python -m loadtests.judge --lint slo.yaml

DIR has the run.json of `loadtests.run`; verdict, gates, validity and budgets are written into it,
and report.html, report.md and junit.xml beside it. Judging again gives the same again. One line of
JSON on stdout says the verdict. Exit: 0 passed, 10 a gate is not met, 9 the run is invalid (that
goes first: a measurement that cannot be trusted proves nothing), 2 a file cannot be used.

`--drill` has what the drill around the run measured: {"rtoSeconds", "lost", "fault": {"kind",
"target", "at"}, "phases": [{"name", "from", "to"}]}, times in seconds since the run's start.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.gatefile import GateFile, Unreadable, lint, parse

JSON = dict[str, Any]

PASSED, FAILED, INVALID = "passed", "failed", "invalid"
EXITS = {PASSED: 0, FAILED: 10, INVALID: 9}
USAGE = 2


def judged(run: Mapping[str, Any], file: GateFile) -> JSON:
    """The run with its verdict. Pure."""
    # Histograms need the extra [load]; looking a file over does not.
    from loadtests import budget, gate, validity

    run = {**run, "endpoints": in_order(run)}
    # A drill ends its load when it has seen enough: that is its plan.
    faults = validity.faults({**run, "partial": run["partial"] and "drill" not in run})
    verdicts = gate.judge(run, file.gates, file.objectives)
    because = [
        *faults,
        *_around(run),
        *(f"{v.gate.metric}: {v.because}" for v in verdicts if v.met is None),
    ]
    missed = any(verdict.met is False for verdict in verdicts)
    return {
        **run,
        "slo": file.name,
        "validity": {"valid": not because, "because": because},
        "gates": [verdict.to_json() for verdict in verdicts],
        "budget": [each.to_json() for each in budget.of(run, file.objectives)],
        "verdict": INVALID if because else FAILED if missed else PASSED,
    }


def _around(run: Mapping[str, Any]) -> list[str]:
    """What a drill's load has to have seen. Phases are only those that it lasted for."""
    drill = run.get("drill") or {}
    names = {each["name"] for each in drill.get("phases", ())}
    if drill.get("rtoSeconds") is None or "phases" not in drill or "recovery" in names:
        return []
    return ["the load ended before the recovery: what the fault cost is not known"]


def in_order(run: Mapping[str, Any]) -> list[JSON]:
    """The endpoints by name, each in the order of the phases."""
    place = {each["name"]: number for number, each in enumerate(run["plan"]["phases"])}
    return sorted(
        run["endpoints"],
        key=lambda each: (each["name"], each["journey"], place.get(each["phase"], len(place))),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.judge", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where run.json is")
    parser.add_argument("--gate", type=Path, help="the file with the gates; none: only validity")
    parser.add_argument("--drill", type=Path, help="what the drill around the run measured")
    parser.add_argument("--lint", type=Path, help="check a gate file instead")
    asked = parser.parse_args(arguments)
    try:
        if asked.lint is not None:
            return _lint(asked.lint)
        if asked.folder is None:
            parser.error("a folder, or --lint FILE")
        return _judge(asked.folder, asked.gate, asked.drill)
    except (Unreadable, OSError, ValueError) as error:
        print(json.dumps({"error": str(error)}))  # noqa: T201  what the caller reads
        return USAGE


def _lint(path: Path) -> int:
    """`usable`: nothing is wrong but gates that no run can hold; such a run fails."""
    text = path.read_text(encoding="utf-8")
    found = lint(text, str(path))
    try:
        usable = bool(parse(text, str(path)).gates)
    except Unreadable:
        usable = False
    print(json.dumps({"file": str(path), "usable": usable, "faults": found}))  # noqa: T201
    return USAGE if found else 0


def _judge(folder: Path, gate_file: Path | None, drill: Path | None) -> int:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if drill is not None:
        run["drill"] = json.loads(drill.read_text(encoding="utf-8"))
    file = GateFile("")
    if gate_file is not None:
        file = parse(gate_file.read_text(encoding="utf-8"), str(gate_file))
    document = judged(run, file)
    _write_reports(folder, document)
    line = {key: document[key] for key in ("id", "verdict", "validity", "gates")}
    print(json.dumps(line))  # noqa: T201
    return EXITS[document["verdict"]]


def _write_reports(folder: Path, run: JSON) -> None:
    """Beside run.json, and it last: a run that is judged has its reports."""
    from loadtests import report_html, report_junit, report_text

    write(folder / "report.html", report_html.page(run))
    write(folder / "report.md", report_text.markdown(run))
    write(folder / "junit.xml", report_junit.junit(run))
    write(folder / "run.json", json.dumps(run, indent=1))


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
