"""What a terminal would obey is shown as U+FFFD."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import logs, render
from cli.dash.grid import styled
from cli.dash.view import Cell
from cli.render import Table
from control_plane import access
from runtime.errors import Refused
from runtime.plain import plain

EVIL = "s1\x1b[2J\x9b31m\u202etxt\u2028\x7f"
SHOWN = "s1\ufffd[2J\ufffd31m\ufffdtxt\ufffd\ufffd"


@given(st.text())
def test_nothing_is_left_that_moves_the_cursor_or_turns_a_line_around(text: str) -> None:
    shown = plain(text)
    assert len(shown) == len(text)
    assert not any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in shown)
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert not any(unicodedata.bidirectional(each) in directions for each in shown)
    assert plain(text, keep=text) == text


def test_what_is_recorded_of_a_request_is_plain() -> None:
    actor = access.Actor("ada", "operator")
    body = {"verb": "failover", "args": {"target": EVIL}, "reason": EVIL}
    asked = access.asked(actor, "POST", "/v1/operations", body)
    assert (asked.target, asked.reason) == (SHOWN, SHOWN)


def test_what_is_shown_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(("actor",), [(EVIL,)], title=EVIL, foot=[EVIL])
    assert render.lay_out(table).splitlines() == [SHOWN, "ACTOR", SHOWN, SHOWN]
    render.problem(Refused(EVIL, hint=EVIL), as_json=False)
    assert capsys.readouterr().err == f"error: {SHOWN}\ntry: {SHOWN}\n"
    assert styled(Cell(EVIL)).plain == SHOWN
    assert logs.lines_of(["a\tb\x1b[1m", "one\r\ntwo", ""]) == ["a\tb\ufffd[1m", "one", "two", ""]
