"""Takes the pictures of the dashboard in the README: the app itself over example documents.

python -m docs.pictures
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from cli.dash.actions import Consent
from tests.cli.dash.desk import Desk, picture_of, settle, until
from tests.control_plane import overviews

FOLDER = Path(__file__).parent
SIZE = (110, 30)


async def picture(desk: Desk, pilot: Pilot[None], name: str) -> None:
    await settle(pilot)
    (FOLDER / f"dash-{name}.svg").write_text(picture_of(desk.app), encoding="utf-8")


async def main() -> None:
    desk = Desk(overviews.degraded())
    async with desk.open(SIZE) as pilot:
        await picture(desk, pilot, "degraded")
        desk.document = overviews.failover_in_progress()
        await desk.again(pilot)
        await pilot.press("4")
        await until(lambda: steps_shown(desk))
        await picture(desk, pilot, "failover")
        desk.document = overviews.healthy()
        await desk.again(pilot)
        await pilot.press("3", "W")
        await until(lambda: isinstance(desk.app.screen, Consent) and bool(desk.app.screen.plan))
        await picture(desk, pilot, "plan")
        await pilot.press("escape", "1")
        await desk.lose(pilot)
        await picture(desk, pilot, "unreachable")


def steps_shown(desk: Desk) -> bool:
    board: Any = desk.app.board
    return getattr(board, "operation", None) is not None


if __name__ == "__main__":
    asyncio.run(main())
