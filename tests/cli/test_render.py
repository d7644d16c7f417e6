from __future__ import annotations

import io
import json
import sys

import pytest
import yaml

from cli import render
from cli.render import Output, Table
from runtime.errors import OperationFailed, Refused

DOCUMENT = render.listing("RegionList", [{"name": "us-east-1"}, {"name": "us-west-2"}])
TABLE = Table(("name", "lag"), [("us-east-1", 0.25), ("us-west-2", None)])


def shown(capsys: pytest.CaptureFixture[str], output: Output) -> str:
    render.show(output, DOCUMENT, tables=[TABLE], names=["us-east-1", "us-west-2"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(capsys, Output.json)) == DOCUMENT


def test_jsonl_is_one_item_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, Output.jsonl).splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["us-east-1", "us-west-2"]


def test_yaml_says_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert yaml.safe_load(shown(capsys, Output.yaml)) == DOCUMENT


def test_name_is_one_name_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, Output.name) == "us-east-1\nus-west-2\n"


def test_a_table_is_aligned_and_shows_a_dash_for_what_is_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(capsys, Output.table).splitlines() == [
        "NAME       LAG",
        "us-east-1  0.25",
        "us-west-2  -",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (0.314, "0.31 s"),
        (12.4, "12 s"),
        (300, "5 min"),
        (5400, "1 h 30 min"),
        (86400, "24 h"),
    ],
)
def test_times_read_as_people_say_them(value: float | None, text: str) -> None:
    assert render.seconds(value) == text


def test_an_error_says_what_happened_what_to_type_and_what_to_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = OperationFailed(
        "Step promote failed.",
        hint="regionctl op resume op_1",
        runbook="database-failure",
        extra={"log": "/state/s1.log", "lines": ["FATAL: no space"]},
    )
    render.problem(problem, as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: Step promote failed.",
        "  log: /state/s1.log",
        "    FATAL: no space",
        "try: regionctl op resume op_1",
        "runbook: regionctl runbook show database-failure",
    ]


def test_an_error_as_json_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    render.problem(Refused("No.", hint="wait"), as_json=True, operation="op_1")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {
        "error": {
            "id": "REFUSED",
            "exit": 5,
            "message": "No.",
            "hint": "wait",
            "operationId": "op_1",
        }
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "colours", "repainted"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
)
def test_a_terminal_is_coloured_and_repainted_unless_it_is_asked_not_to_be(
    env: dict[str, str], colours: bool, repainted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "REGIONCTL_COLOUR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert ("\x1b[32m" in render.lay_out(Table(("state",), [("healthy",)]))) == colours
    render.clear()
    assert (terminal.getvalue() == "\x1b[H\x1b[2J") == repainted
