"""A drill on emulators never says how long a recovery took, nor what it lost."""

from __future__ import annotations

import json
import re
from typing import Any

from control_plane import drills, evidence, report, report_html, report_text
from tests.control_plane import test_report as reports

TIMED = {"rtoSeconds", "measuredSeconds", "lossSeconds", "longestWriteGapSeconds", "p50", "p95"}


def emulated() -> tuple[dict[str, Any], dict[str, bytes]]:
    """The report of a good run, made on servers that only pretend."""
    real, files = reports.made()
    spec = drills.find(real["drill"])
    run = evidence.judge(spec, 1, report.run_files(files, 1))
    limits = [report.Objective(each["name"], each["limitSeconds"]) for each in real["objectives"]]
    names = ("operation", "startedAt", "finishedAt", "versions", "topology", "plan", "machine")
    facts = {name: real[name] for name in names if name in real} | {"faultKind": "kill"}
    made = report.document(
        spec, [run], limits, facts={**facts, "mode": "emulated"}, events=[], files=files
    )
    return json.loads(json.dumps(made)), files


def values(document: Any, names: set[str]) -> list[Any]:
    if isinstance(document, list):
        return [found for each in document for found in values(each, names)]
    if isinstance(document, dict):
        own = [value for name, value in document.items() if name in names]
        return own + [f for v in document.values() for f in values(v, names)]
    return []


def figures(document: Any) -> list[Any]:
    return [v for v in values(document, TIMED) if isinstance(v, int | float)]


def test_an_emulated_drill_says_so_and_has_no_recovery_time_and_no_loss() -> None:
    real, _ = reports.made()
    assert real["mode"] == "applied"
    assert figures(real)
    made, _ = emulated()
    assert (made["mode"], made["verdict"]) == ("emulated", "void")
    assert figures(made) == []
    assert made["phases"] == made["repeats"][0]["phases"] == []


def test_what_is_printed_of_an_emulated_drill_has_none_either() -> None:
    made, files = emulated()
    text = report_text.markdown(made)
    assert re.search(r"Recovery time: p50 -, p95 -, max -", text)
    assert "nothing here was measured" in text
    assert "void" in report_html.page(made, files)
    assert 'time="0.0"' in report_text.junit(made) or "time" not in report_text.junit(made)


def test_nobody_can_turn_an_emulated_report_into_a_measured_one() -> None:
    made, files = emulated()
    assert report.check(made, files) == []
    forged = {**made, "mode": "applied"}
    forged["seal"] = report.seal(forged)
    assert any("verdict" in finding for finding in report.check(forged, files))
