"""Each screen in each state, at two sizes, as a picture (`--snapshot-update` takes new ones)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from syrupy.assertion import SnapshotAssertion

from cli.dash.app import BOARDS
from tests.cli.dash.desk import Desk, picture_of, settle
from tests.control_plane import overviews

SIZES = [(80, 24), (120, 36)]
STATES: dict[str, Callable[[], dict[str, object]]] = {
    "healthy": overviews.healthy,
    "degraded": overviews.degraded,
    "drill": overviews.drill_running,
    "failover": overviews.failover_in_progress,
    "unreachable": overviews.healthy,
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_looks_as_it_did_in_every_state(
    size: tuple[int, int], pictures: SnapshotAssertion
) -> None:
    desk = Desk(overviews.healthy())
    differ = []
    async with desk.open(size) as pilot:
        for state, document in STATES.items():
            desk.document = document()
            if state == "unreachable":
                await desk.lose(pilot)
            else:
                await desk.again(pilot)
            for number, name in enumerate(BOARDS, start=1):
                await pilot.press(str(number))
                await settle(pilot)
                shown = f"{name}-{state}-{size[0]}x{size[1]}"
                if picture_of(desk.app) != pictures(name=shown):
                    differ.append(shown)
    assert not differ
