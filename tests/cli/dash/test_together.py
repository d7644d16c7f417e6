"""The dashboard on a real control plane over the platform in memory."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import OptionList

from cli.dash.actions import Consent
from cli.dash.app import Dashboard
from cli.dash.feed import Feed, Sources
from cli.dash.modals import Choice, Page
from cli.dash.view import Probe
from control_plane.client import Client
from runtime.clock import SystemClock
from tests.cli.dash.desk import text_of, until
from tests.control_plane.served import served, state_dir


async def nobody(document: object) -> Probe:
    return Probe("edge", None, 2.0)


async def test_a_drill_is_run_and_its_report_read_without_leaving_the_dashboard(
    tmp_path: Path,
) -> None:
    folder = state_dir(tmp_path / "state")
    async with served(folder) as address, Client(address, state_dir=folder) as client:
        provision = await client.start("provision", {})
        async for _ in client.follow(provision["id"]):
            pass

        async def connect() -> Client:
            return client

        app = Dashboard(Feed(Sources(client.overview, nobody), SystemClock()), "x", connect)
        async with app.run_test(size=(120, 36)) as pilot:
            await until(lambda: "ALL HEALTHY" in text_of(app))
            await pilot.press("D")
            await until(lambda: isinstance(app.screen, Choice))
            app.screen.query_one(OptionList).highlighted = 0
            await pilot.press("enter")
            await until(lambda: isinstance(app.screen, Consent) and bool(app.screen.plan))
            assert "start-probe" in text_of(app)
            await pilot.press("down", "enter")
            await until(lambda: "◆ DRILL service-outage" in text_of(app))
            await until(lambda: "verdict:" in text_of(app), 60)
            await pilot.press("enter")
            await until(lambda: isinstance(app.screen, Page))
            await until(lambda: "One instance of the orders service is lost" in text_of(app))
