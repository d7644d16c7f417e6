"""Reports of load runs: whole, small, well-formed, and true to run.json."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtests import judge, pictures, report_html, report_junit, report_text
from loadtests.gatefile import Gate, GateFile, Objective
from tests.loadtests.runs import JSON, endpoint, run

ODD = 'create"<b>&order|\x00'
PHASES = [
    {"name": "warm-up", "from": 0, "to": 10},
    {"name": "steady", "from": 10, "to": 30},
    {"name": "fault", "from": 30, "to": 34},
    {"name": "recovery", "from": 34, "to": 60},
]
DRILL = {
    "name": "database-failure",
    "rtoSeconds": 3.1,
    "lost": 0,
    "fault": {"kind": "kill", "target": "s1.us-east-1a", "at": 30.2},
}
FILE = GateFile(
    "shop",
    (
        Gate("latency.p99", "<=", 100.0, "100ms", {"phase": "steady"}),
        Gate("latency.p98", "<=", 100.0, "100ms"),
        Gate("latency.p999", "<=", 900.0, "900ms"),
    ),
    (Objective("latency", 0.99, milliseconds=100.0), Objective("up", 0.999, slice_seconds=5.0)),
)


@pytest.fixture(scope="module")
def judged() -> JSON:
    document = run(
        endpoint(phase="warm-up", intended=[9.0] * 100),
        endpoint(intended=[5.0] * 3000),
        endpoint(ODD, "fault", intended=[5.0 * each for each in range(1, 201)], errors=7),
        phases=PHASES,
        bad_seconds=(30, 31),
        drill=DRILL,
        errors=[{"endpoint": ODD, "kind": "503 <script>", "count": 7}],
    )
    return judge.judged(document, FILE)


class Whole(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = ("meta", "br", "rect", "path", "circle", "line")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parsed(page: str) -> Whole:
    parser = Whole()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_the_page_is_whole_needs_nothing_else_and_says_what_was_measured(judged: JSON) -> None:
    page = report_html.page(judged)
    seen = parsed(page).seen
    assert seen.count("svg") == 3
    assert "script" not in seen
    assert "http" not in page.replace(judged["target"], "")
    assert "&lt;script&gt;" in page
    assert "prefers-color-scheme:dark" in page
    assert 'class="fault"' in page
    assert 'class="intended"' in page
    assert 'class="service"' in page
    for each in judged["endpoints"]:
        assert f"<td>{each['intendedMs']['p99']:.1f}</td>" in page


def test_the_page_of_an_hour_stays_small() -> None:
    endpoints = [
        endpoint(f"endpoint-{n}", phase, intended=[1.0 * each for each in range(1, 50)])
        for n in range(8)
        for phase in ("warm-up", "steady")
    ]
    page = report_html.page(judge.judged(run(*endpoints, seconds=3600), FILE))
    assert len(page.encode()) < 300_000
    parsed(page)


def test_a_run_that_measured_nothing_has_reports_too() -> None:
    empty = judge.judged(run(seconds=0, ended="the target did not answer"), FILE)
    assert empty["verdict"] == "invalid"
    parsed(report_html.page(empty))
    assert "the target did not answer" in report_text.markdown(empty)
    assert "MeasurementVoid" in report_junit.junit(empty)


def test_each_picture_is_good_xml_and_draws_within_its_frame(judged: JSON) -> None:
    both = f"<all>{pictures.timeline(judged)}{pictures.curves(judged)}</all>"
    for svg in ElementTree.fromstring(both):
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for path in svg.iter("path"):
            for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.attrib["d"]):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height


def test_seconds_without_an_answer_break_the_line() -> None:
    document = run(endpoint(intended=[5.0] * 10))
    for second in document["timeline"][20:25]:
        second.update(p50Ms=None, p99Ms=None, ok=0, errors=0)
    drawn = pictures.timeline(document)
    assert drawn.count('class="p99"') == 2


def test_junit_has_a_case_for_each_gate_and_one_for_the_measurement(judged: JSON) -> None:
    suite = ElementTree.fromstring(report_junit.junit(judged).encode())[0]
    cases = {case.attrib["name"]: [each.tag for each in case] for case in suite}
    assert cases == {
        "measurement": ["error"],
        "latency.p99 phase=steady": [],
        "latency.p98": ["failure"],
        "latency.p999": ["error"],
    }


def test_junit_of_a_breach_is_a_failure_of_that_kind() -> None:
    document = judge.judged(run(endpoint(intended=[500.0] * 3000)), GateFile("slo", FILE.gates[:1]))
    suite = ElementTree.fromstring(report_junit.junit(document).encode())[0]
    assert suite.attrib["failures"] == "1"
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["type"] == "SloBreach"


def test_markdown_has_the_verdict_first_and_tables_that_hold(judged: JSON) -> None:
    lines = report_text.markdown(judged).splitlines()
    assert lines[0] == "## Load run baseline: invalid"
    rows = [line for line in lines if line.startswith("|")]
    columns = {row.count(" | ") for row in rows}
    assert len(rows) > 10
    assert columns <= {2, 4, 9}


def test_the_judge_writes_every_report_beside_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run(endpoint(intended=[5.0] * 3000))))
    assert judge.main([str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.json", "report.html", "report.md", "junit.xml"}
    assert "No gates." in (tmp_path / "report.md").read_text()
