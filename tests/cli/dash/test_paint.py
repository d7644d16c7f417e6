"""What is not seen to change is not painted again. Counted, because a loaded machine is slow."""

from __future__ import annotations

from copy import deepcopy

from cli.dash.board import Line
from cli.dash.grid import Grid
from tests.cli.dash.desk import Desk, settle, still, text_of, until
from tests.control_plane import overviews


def painted(desk: Desk) -> int:
    """Cells and lines that were written so far."""
    board = desk.app.board
    return sum(grid.writes for grid in board.query(Grid)) + sum(
        line.paints for line in board.query(Line)
    )


async def test_the_same_document_again_paints_nothing() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await desk.draw(pilot)
        before = painted(desk)
        await desk.again(pilot)
        await desk.draw(pilot)
        assert painted(desk) == before


async def test_one_new_figure_writes_one_cell() -> None:
    desk = Desk(overviews.big(50, 200))
    async with desk.open() as pilot:
        await desk.draw(pilot)
        await still(desk.app, pilot)
        grid = desk.app.board.query_one("#regions", Grid)
        before, builds = painted(desk), grid.builds
        desk.document = deepcopy(desk.document)
        desk.document["regions"][7]["lagSeconds"] = 0.07
        await desk.again(pilot)
        assert painted(desk) == before + 1
        assert grid.builds == builds


async def test_when_every_figure_of_fifty_regions_changes_nothing_is_laid_out_anew() -> None:
    desk = Desk(overviews.big(50, 200))
    async with desk.open((200, 60)) as pilot:
        await pilot.press("3")
        await desk.draw(pilot)
        grid = desk.app.board.query_one("#databases", Grid)
        builds, writes = grid.builds, grid.writes
        for shard in desk.document["shards"]:
            for standby in shard["standbys"]:
                standby["lagSeconds"] = 0.25
        await desk.again(pilot)
        assert grid.builds == builds
        assert grid.writes - writes == len(desk.document["shards"])


async def test_a_screen_that_is_not_seen_is_not_drawn() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        hidden = desk.app.board
        await pilot.press("3")
        await desk.draw(pilot)
        before = hidden.draws
        desk.document = overviews.degraded()
        await desk.again(pilot)
        await desk.draw(pilot)
        assert hidden.draws == before


async def test_ten_documents_between_two_ticks_are_not_ten_repaints() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        before, polls = desk.app.board.draws, desk.feed.polls
        for number in range(10):
            desk.document = deepcopy(desk.document)
            desk.document["regions"][0]["lagSeconds"] = number / 100
            desk.clock.advance(1.0)
            await until(lambda seen=polls + number: desk.feed.polls > seen)  # type: ignore[misc]
        desk.app.tick()
        await settle(pilot)
        assert "0.09" in text_of(desk.app)
        # The dashboard's own ticks, one a second, may have come in between.
        assert before < desk.app.board.draws < before + 10
