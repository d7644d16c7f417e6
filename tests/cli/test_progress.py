from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli import progress
from cli.progress import LiveSteps, PlainSteps


def event(kind: str, **data: Any) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat()
    return {"sequence": 1, "operation": "op_1", "kind": kind, "at": at, "data": data}


def steps(*found: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "args": {"instance": about}, **more} for name, about in found]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"instance": "s1.us-east-1b", "upstream": "s1.us-east-1a"}, "s1.us-east-1b"),
        ({"promotions": [{"database": "s1", "instance": "s1.us-east-1b"}]}, "s1.us-east-1b"),
        ({"databases": ["s1", "s2", "catalog", "s3"]}, "s1, s2, catalog and 1 more"),
        ({}, ""),
    ],
)
def test_a_step_is_named_by_what_it_is_about(args: dict[str, Any], text: str) -> None:
    assert progress.subject(args) == text


def test_without_a_terminal_each_step_is_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainSteps() as shown:
        args = {"instance": "s1.us-east-1b"}
        shown.tell(event("step-started", number=0, step="promote", args=args))
        shown.tell(event("step-succeeded", number=0, step="promote", seconds=0.314))
        shown.tell(event("step-started", number=1, step="publish-map", args={}))
        shown.tell(event("step-failed", number=1, step="publish-map", seconds=0.02))
        shown.tell(event("operation-failed", problem={}))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "✓ promote s1.us-east-1b 0.31 s",
        "✗ publish-map 0.02 s failed",
    ]


def test_the_live_list_marks_what_is_done_running_and_to_come() -> None:
    shown = LiveSteps(steps(("fence-instance", "a"), ("promote", "b"), ("publish-map", "")))
    shown.tell(event("step-succeeded", number=0, step="fence-instance", seconds=0.1))
    shown.tell(event("step-started", number=1, step="promote", args={}))
    lines = str(shown._draw()).splitlines()
    assert lines[0] == "✓ fence-instance a 0.10 s"
    assert lines[1].split()[1:3] == ["promote", "b"]
    assert lines[2] == "· publish-map"


def test_a_second_console_sees_how_long_a_step_has_been_running() -> None:
    shown = LiveSteps(steps(("await-copy", "s1")))
    began = datetime.now(UTC) - timedelta(seconds=90)
    shown.tell({**event("step-started", number=0, step="await-copy"), "at": began.isoformat()})
    assert 90 <= time.monotonic() - shown.since < 100


def test_an_operation_whose_events_are_forgotten_still_shows_its_steps() -> None:
    shown = LiveSteps(steps(("promote", "b"), state="succeeded", seconds=0.31))
    assert str(shown._draw()).splitlines()[0] == "✓ promote b 0.31 s"


def copied(rows: int, second: int, *, source: str = "s1") -> dict[str, Any]:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    data = {"source": source, "target": "s3", "rows": 1000, "copied": rows, "message": "copying"}
    return {"kind": "move-progress", "at": at.isoformat(), "data": data}


def test_a_copy_says_how_long_it_still_takes_by_how_fast_it_went() -> None:
    pace = progress.Pace()
    assert pace.left(copied(100, 0)) is None
    assert pace.left(copied(300, 10)) == 35.0
    assert pace.left(copied(0, 20, source="s2")) is None
    assert pace.remark(copied(1000, 45)) == "copying"
    assert pace.remark(copied(500, 20)) == "copying, about 25 s left"


def test_a_restore_says_how_long_its_phase_still_takes() -> None:
    def downloaded(done: int, second: int, phase: str = "download") -> dict[str, Any]:
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        data = {"target": "s1", "phase": phase, "done": done, "all": 900, "message": "s1"}
        return {"kind": "work-progress", "at": at.isoformat(), "data": data}

    pace = progress.Pace()
    assert pace.remark(downloaded(100, 0)) == "s1"
    assert pace.remark(downloaded(300, 10)) == "s1, about 30 s left"
    assert pace.left(downloaded(400, 20, phase="upload")) is None
    assert pace.left(downloaded(0, 20, phase="recover")) is None


def test_a_copy_is_told_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainSteps() as shown:
        for second, rows in enumerate((0, 50, 99, 100, 180, 500)):
            shown.tell(copied(rows, second))
    assert capsys.readouterr().err.splitlines() == [
        "  copying",
        "  copying, about 27 s left",
        "  copying, about 5.00 s left",
    ]


def test_the_live_list_shows_how_far_a_copy_is() -> None:
    shown = LiveSteps(steps(("await-copy", "s1")))
    shown.tell(copied(100, 0))
    shown.tell(copied(300, 10))
    assert str(shown._draw()).splitlines()[-1] == "copying, about 35 s left"


@pytest.mark.parametrize(
    ("done", "shown"), [(0, range(0, 4)), (5, range(3, 7)), (9, range(6, 10)), (10, range(6, 10))]
)
def test_of_a_list_that_is_too_long_the_steps_around_the_next_one_are_shown(
    done: int, shown: range
) -> None:
    marks = ["succeeded"] * done + ["pending"] * (10 - done)
    assert progress.window(marks, 4) == shown
    assert progress.window(marks, 10) == range(10)
