"""What each key does, on a dashboard over documents."""

from __future__ import annotations

import re

import pytest
from textual.widgets import Input

from cli.dash import view
from cli.dash.app import Dashboard
from cli.dash.grid import Grid
from tests.cli.dash.desk import OPERATIONS, Desk, picture_of, settle, text_of, until
from tests.control_plane import overviews


def keys_of(app: Dashboard, id: str) -> list[str]:
    return [row.key for row in app.board.query_one(f"#{id}", Grid).sheet.rows]


async def test_enter_goes_in_and_escape_goes_out_again_along_the_breadcrumbs() -> None:
    desk = Desk(overviews.degraded())
    async with desk.open() as pilot:
        await pilot.press("down", "enter")
        await settle(pilot)
        assert "two-regions › region › us-west-2" in text_of(desk.app)
        await pilot.press("enter")
        await settle(pilot)
        assert desk.app.board.name_of == "logs"
        server = desk.app.board.subject
        assert f"two-regions › logs › {server}" in text_of(desk.app)
        await pilot.press("escape")
        assert (desk.app.board.name_of, desk.app.board.subject) == ("region", "us-west-2")
        await pilot.press("escape")
        assert desk.app.board.name_of == "overview"
        await pilot.press("escape", "escape")
        assert desk.app.board.name_of == "overview"


async def test_minus_goes_back_to_the_screen_before() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("3", "5", "minus")
        assert desk.app.board.name_of == "data"


async def test_the_filter_takes_expressions_their_inverse_and_fuzzy_words() -> None:
    desk = Desk(overviews.big(12, 3))
    async with desk.open() as pilot:
        await pilot.press("slash", *"0[34]", "enter")
        assert keys_of(desk.app, "regions") == ["region-03", "region-04"]
        assert "/0[34]" in text_of(desk.app)
        await pilot.press("slash")
        desk.app.board.query_one("#filter", Input).value = "!region-[01]"
        await settle(pilot)
        assert keys_of(desk.app, "regions") == []
        desk.app.board.query_one("#filter", Input).value = "-f rg12"
        await settle(pilot)
        assert keys_of(desk.app, "regions") == ["region-12"]
        await pilot.press("escape")
        await settle(pilot)
        assert len(keys_of(desk.app, "regions")) == 12


async def test_letters_typed_into_the_filter_are_no_commands() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("slash", "z", "p", "7")
        assert desk.app.board.filter.text == "zp7"
        assert not desk.app.faults_only
        assert not desk.app.paused


async def test_faults_only_leaves_what_is_not_as_it_should_be() -> None:
    desk = Desk(overviews.failover_in_progress())
    async with desk.open() as pilot:
        await pilot.press("z")
        assert keys_of(desk.app, "regions") == ["us-east-1"]
        assert keys_of(desk.app, "operations") == ["op-15", "op-14"]
        await pilot.press("6")
        await until(lambda: "stock did not answer" in text_of(desk.app))
        assert "map 31" not in text_of(desk.app)


async def test_a_paused_screen_keeps_its_figures_until_it_goes_on() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("p")
        desk.document = overviews.degraded()
        await desk.again(pilot)
        assert "PAUSED, data 1s old" in text_of(desk.app)
        assert "ALL HEALTHY" in text_of(desk.app)
        await desk.again(pilot, 20.0)
        assert "PAUSED, data 21s old" in text_of(desk.app)
        assert "ALL HEALTHY" in text_of(desk.app)
        await pilot.press("down", "3", "1")
        assert "DEGRADED" not in text_of(desk.app)
        await desk.lose(pilot, 1)
        assert "control plane unreachable" in text_of(desk.app)
        desk.away = False
        await desk.again(pilot)
        await pilot.press("p")
        assert "PAUSED" not in text_of(desk.app)
        assert "DEGRADED" in text_of(desk.app)


async def test_an_operation_that_is_resumed_is_followed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(overviews.degraded())
    async with desk.open() as pilot:
        await pilot.press("4")
        await until(lambda: "op-13 backup s1: ✖ failed" in text_of(desk.app))
        for state in ("running", "succeeded"):
            operation = overviews._backup(13, state).to_json()
            monkeypatch.setitem(OPERATIONS, "op-13", operation)
            one = next(each for each in desk.document["operations"] if each["id"] == "op-13")
            one |= {"state": state, "finishedAt": operation["finishedAt"]}
            await desk.again(pilot)
            said = f"op-13 backup s1: {view.state(state).text}"
            await until(lambda said=said: said in text_of(desk.app))  # type: ignore[misc]


async def test_x_copies_the_cure_of_a_sick_row_and_c_its_name() -> None:
    desk = Desk(overviews.degraded())
    async with desk.open() as pilot:
        await pilot.press("x")
        assert desk.app.clipboard == "regionctl logs s2.us-east-1b -n 50"
        await pilot.press("c")
        assert desk.app.clipboard == "us-east-1"
        await pilot.press("4", "x")
        assert desk.app.clipboard == "regionctl op show op-13"
        desk.app.line = "{} --state-dir /mine".format
        await pilot.press("x")
        assert desk.app.clipboard == "regionctl op show op-13 --state-dir /mine"
        await pilot.press("3", "W")
        await until(lambda: "same as: " in text_of(desk.app))
        await pilot.press("ctrl+x")
        assert desk.app.clipboard == "regionctl switchover run s1 --state-dir /mine"


async def test_the_page_of_keys_opens_and_closes() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open((80, 24)) as pilot:
        await pilot.press("question_mark")
        assert "failover of the row's database or region" in text_of(desk.app)
        await pilot.press("escape")
        assert "Regions" in text_of(desk.app)


async def test_details_are_what_the_control_plane_said_about_the_row() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("3", "d")
        assert "primary: s1.us-east-1a" in text_of(desk.app)


async def test_the_palette_jumps_to_any_region() -> None:
    desk = Desk(overviews.big(12, 3))
    async with desk.open() as pilot:
        await pilot.press("colon", *"region region-07")
        await until(lambda: "region region-07" in text_of(desk.app))
        await pilot.pause(0.1)
        await pilot.press("down", "enter")
        await until(lambda: desk.app.board.name_of == "region")
        assert desk.app.board.subject == "region-07"


async def test_logs_are_merged_by_time_and_can_be_shown_without_it() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("6")
        await until(lambda: "stale epoch" in text_of(desk.app))
        found = [line for line in text_of(desk.app).splitlines() if "│09:1" in line]
        assert [line[1:9] for line in found] == sorted(line[1:9] for line in found)
        assert "op-12" in text_of(desk.app)
        await pilot.press("t")
        await settle(pilot)
        assert "│09:1" not in text_of(desk.app)
        await pilot.press("slash", *"!LOG", "enter")
        await settle(pilot)
        assert "checkpoint starting" not in text_of(desk.app)
        assert "map 31" in text_of(desk.app)
        await pilot.press("t", "escape")
        await settle(pilot)
        assert "│09:1" in text_of(desk.app)
        assert "checkpoint starting" in text_of(desk.app)
        await pilot.press("1")
        assert desk.app.board.name_of == "overview"


async def test_a_terminal_that_is_too_small_gets_sentences() -> None:
    desk = Desk(overviews.degraded())
    async with desk.open((60, 15)) as pilot:
        shown = text_of(desk.app)
        assert "region us-east-1 (primary): ▲ DEGRADED" in shown
        await pilot.resize_terminal(120, 36)
        await settle(pilot)
        assert "REGION" in text_of(desk.app)


async def test_without_colours_everything_is_still_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    desk = Desk(overviews.degraded())
    async with desk.open((80, 24)):
        assert "▲ DEGRADED" in text_of(desk.app)
        inks = set(re.findall(r"fill: #(\w+)", picture_of(desk.app)))
        greys = {ink for ink in inks if ink[:2] == ink[2:4] == ink[4:]}
        assert len(greys) > 3
        assert inks - greys <= {"c5c8c6"}  # which every picture has, for text of no style


async def test_the_cursor_stays_on_its_row_when_others_come_and_go() -> None:
    desk = Desk(overviews.big(12, 3))
    async with desk.open() as pilot:
        await pilot.press("down", "down", "down")
        desk.document = overviews.big(20, 3)
        desk.document["regions"].insert(0, desk.document["regions"].pop())
        await desk.again(pilot)
        chosen = desk.app.board.query_one("#regions", Grid).chosen
        assert chosen is not None
        assert chosen.key == "region-04"
