"""Each screen in each state, at two sizes, as a picture (`--snapshot-update` takes new ones)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from syrupy.assertion import SnapshotAssertion

from cli.dash.app import BOARDS
from cli.dash.board import Board
from cli.dash.infrastructure import Infrastructure
from cli.dash.logs import Logs
from cli.dash.operations import Operations
from cli.dash.region import Region
from tests.cli.dash.desk import Desk, picture_of, settle, still, until
from tests.cli.dash.test_actions import consent, failover
from tests.control_plane import overviews

SIZES = [(80, 24), (120, 36)]
STATES: dict[str, Callable[[], dict[str, object]]] = {
    "healthy": overviews.healthy,
    "degraded": overviews.degraded,
    "drill": overviews.drill_running,
    "failover": overviews.failover_in_progress,
    "unreachable": overviews.healthy,
}


def fetched(board: Board) -> bool:
    """What the screen asks for beside the overview has come."""
    match board:
        case Operations():
            return board.operation is not None and board.operation["id"] == board.chosen
        case Region() | Infrastructure():
            return board.status is not None
        case Logs():
            return bool(board.entries)
    return True


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_looks_as_it_did_in_every_state(
    size: tuple[int, int], pictures: SnapshotAssertion
) -> None:
    desk = Desk(overviews.healthy())
    differ = []
    async with desk.open(size) as pilot:
        for state, document in STATES.items():
            desk.document = document()
            await desk.again(pilot)
            if state == "unreachable":
                await pilot.press("4")
                await until(lambda: fetched(desk.app.board))
                await desk.lose(pilot)
            for name in BOARDS:
                desk.app.jump(name)
                await until(lambda name=name: desk.app.board.name_of == name)  # type: ignore[misc]
                await until(lambda: fetched(desk.app.board))
                await desk.draw(pilot)
                await still(desk.app, pilot)
                shown = f"{name}-{state}-{size[0]}x{size[1]}"
                if picture_of(desk.app) != pictures(name=shown):
                    differ.append(shown)
    assert not differ


WINDOWS = {"keys": ("question_mark",), "drills": ("D",), "plan": ("3", "W"), "severe": ("F",)}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("window", WINDOWS)
async def test_every_window_looks_as_it_did(
    window: str, size: tuple[int, int], pictures: SnapshotAssertion
) -> None:
    desk = Desk(overviews.healthy())
    if window == "severe":
        desk.plan_of = failover
    async with desk.open(size) as pilot:
        await pilot.press(*WINDOWS[window])
        await until(lambda: not desk.app.on_board)
        if window in ("plan", "severe"):
            await consent(desk)
        await settle(pilot)
        await still(desk.app, pilot)
        assert picture_of(desk.app) == pictures(name=f"{window}-{size[0]}x{size[1]}")
