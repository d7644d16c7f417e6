"""The control plane goes and comes back; the dashboard stays."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

from cli.dash.app import Dashboard
from cli.dash.feed import Feed, Sources, backoff
from cli.dash.view import Probe
from control_plane.client import Client
from runtime.clock import SystemClock
from runtime.errors import Unauthorized
from tests.cli.dash.desk import Desk, StillClock, text_of, until
from tests.control_plane import overviews
from tests.control_plane.served import served, state_dir


async def nobody(document: object) -> Probe:
    return Probe("edge", None, 2.0)


async def test_a_lost_control_plane_dims_the_screen_and_ends_nothing() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await desk.lose(pilot)
        shown = text_of(desk.app)
        assert "control plane unreachable 00:07  retry 5 in 8s  connect refused" in shown
        assert "all values are from 09:14:07Z; actions are disabled" in shown
        assert "asked directly: edge HTTP/1.1 200 OK, 11 ms" in shown
        assert "us-east-1  ● OK" in shown
        assert desk.app.board.has_class("-stale")
        assert desk.app.check_action("plan", ("failover",)) is None
        await pilot.press("F")
        assert desk.app.on_board


async def test_it_comes_back_by_itself_and_every_key_with_it() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await desk.lose(pilot)
        desk.away = False
        await desk.again(pilot, 8.0)
        assert "ALL HEALTHY" in text_of(desk.app)
        assert "live 0.0s ago" in text_of(desk.app)
        assert not desk.app.board.has_class("-stale")
        assert desk.app.check_action("plan", ("failover",)) is True


async def test_ctrl_r_asks_at_once() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await desk.lose(pilot)
        desk.away = False
        await pilot.press("ctrl+r")
        await until(lambda: not desk.feed.contact.stale)
        await until(lambda: "ALL HEALTHY" in text_of(desk.app))


async def test_old_data_is_stale_even_if_nobody_refused_an_answer() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        desk.clock._monotonic += 11
        await desk.draw(pilot)
        assert "? STALE" in text_of(desk.app)
        assert "data 11s old" in text_of(desk.app)


async def test_a_token_that_is_no_longer_good_is_said_and_the_screen_stays() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:

        async def overview() -> dict[str, object]:
            raise Unauthorized("The request carries no valid token.")

        desk.feed._sources = Sources(overview, desk.probe)
        await desk.again(pilot)
        shown = text_of(desk.app)
        assert "control plane answers with an error" in shown
        assert "The request carries no valid token." in shown


async def test_a_document_of_another_version_does_not_end_it() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        del desk.document["regions"][0]["traffic"]
        await desk.again(pilot)
        assert "this screen cannot be drawn" in text_of(desk.app)
        desk.document = overviews.healthy()
        await desk.again(pilot)
        assert "cannot be drawn" not in text_of(desk.app)


async def test_a_real_control_plane_may_end_and_start_again_under_it(tmp_path: Path) -> None:
    folder = state_dir(tmp_path / "state")
    clients: list[Client] = []

    async def client() -> Client:
        return clients[0]

    async def overview() -> dict[str, object]:
        return await clients[0].overview()

    feed = Feed(Sources(overview, nobody), SystemClock(), spread=lambda: 0.0)
    app = Dashboard(feed, "two-regions", client)
    async with AsyncExitStack() as stack:
        async with served(folder) as address:
            clients.append(Client(address, state_dir=folder))
            await stack.enter_async_context(clients[0])
            await stack.enter_async_context(app.run_test(size=(120, 36)))
            await until(lambda: "us-east-1" in text_of(app))
        app.action_hurry()
        await until(lambda: "control plane unreachable" in text_of(app))
        assert "us-east-1" in text_of(app)
        async with served(folder, int(address.rpartition(":")[2])):
            app.action_hurry()
            await until(lambda: not feed.contact.stale)
            await until(lambda: "live" in text_of(app))


def test_retries_become_rarer_and_never_fall_together() -> None:
    assert [backoff(n, 0.0) for n in range(1, 8)] == [1, 2, 4, 8, 15, 15, 15]
    assert backoff(5, 1.0) == 15 * 0.75
    assert backoff(10_000, 0.0) == 15


async def test_the_last_document_is_there_at_once_the_next_time(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "overview.json"
    desk = Desk(overviews.healthy())
    first = Feed(Sources(desk.overview, desk.probe), desk.clock, kept)
    await first.poll()
    assert kept.stat().st_mode & 0o077 == 0
    assert not list(kept.parent.glob("*.new"))
    clock = StillClock(overviews.NOW)
    second = Feed(Sources(desk.overview, desk.probe), clock, kept)
    second.load()
    assert second.document == json.loads(json.dumps(desk.document))
    assert second.contact.age is not None


async def test_a_damaged_snapshot_is_as_good_as_none(tmp_path: Path) -> None:
    kept = tmp_path / "overview.json"
    for text in ("", "[]", '{"kind":"Something"}', "{"):
        kept.write_text(text)
        feed = Feed(Sources(Desk(overviews.empty()).overview, nobody), SystemClock(), kept)
        feed.load()
        assert feed.document is None
