"""Nothing is done before its plan was seen and agreed to."""

from __future__ import annotations

import asyncio
from typing import Any

from textual.widgets import Button, Input

from cli.dash.actions import Abort, Consent
from cli.dash.board import Line
from cli.dash.modals import Choice
from runtime.errors import Refused
from tests.cli.dash.desk import Desk, refused, settle, text_of, until
from tests.control_plane import overviews


def failover(verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """A plan that gives something up."""
    return {
        "kind": verb,
        "target": args["target"],
        "steps": [{"name": "promote", "args": {"instance": "s1.us-west-2a"}}],
        "locks": ["platform"],
        "premises": {"s1": ["s1.us-east-1a", 7, ["s1.us-east-1b"]]},
        "expected": {"home": "us-west-2", "lossSeconds": 0.21},
    }


async def consent(desk: Desk) -> Consent:
    await until(lambda: isinstance(desk.app.screen, Consent) and settled(desk.app.screen))
    assert isinstance(desk.app.screen, Consent)
    return desk.app.screen


def settled(screen: Consent) -> bool:
    """The plan or its refusal is there."""
    return screen.is_mounted and "planning" not in (screen.query_one("#plan").shown or "planning")  # type: ignore[attr-defined]


async def test_a_plan_opens_with_the_cursor_on_cancel_and_enter_does_nothing() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("3", "W")
        screen = await consent(desk)
        assert isinstance(screen.focused, Button)
        assert screen.focused.id == "cancel"
        assert "same as: regionctl switchover run s1" in text_of(desk.app)
        assert "in sync s1.us-east-1b" in text_of(desk.app)
        await pilot.press("enter")
        assert desk.app.on_board
        assert desk.asked == []


async def test_what_was_agreed_to_is_started_for_the_platform_that_was_seen() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("3", "W")
        screen = await consent(desk)
        screen.query_one("#reason", Input).value = "patch night"
        await pilot.press("down", "enter")
        await until(lambda: desk.app.on_board)
        ((verb, asked),) = desk.asked
        assert (verb, asked["target"], asked["reason"]) == ("switchover", "s1", "patch night")
        assert asked["expect_generation"] == desk.document["generation"]
        assert asked["idempotency_key"]
        assert desk.app.board.name_of == "operations"


async def test_a_failover_wants_its_name_typed_and_says_what_it_may_lose() -> None:
    desk = Desk(overviews.healthy())
    desk.plan_of = failover
    async with desk.open() as pilot:
        await pilot.press("F")
        screen = await consent(desk)
        await settle(pilot)
        shown = text_of(desk.app)
        assert "loss: up to 0.21 s of the newest writes" in shown
        assert "--confirm us-east-1" in shown
        go = screen.query_one("#go", Button)
        assert go.disabled
        screen.query_one("#typed", Input).value = "us-east-"
        await settle(pilot)
        assert go.disabled
        screen.query_one("#typed", Input).value = "us-east-1"
        await settle(pilot)
        assert not go.disabled
        go.press()
        await until(lambda: desk.app.board.name_of == "operations")
        assert desk.asked[0][0] == "failover"


async def test_a_refused_plan_says_why_and_cannot_be_carried_out() -> None:
    desk = Desk(overviews.healthy())
    desk.plan_of = refused(Refused("s1 answers: nothing has failed.", hint="switchover run s1"))
    async with desk.open((80, 24)) as pilot:
        await pilot.press("3", "F")
        screen = await consent(desk)
        await settle(pilot)
        assert "refused: s1 answers: nothing has failed." in text_of(desk.app)
        assert "try: switchover run s1" in text_of(desk.app)
        screen.query_one("#typed", Input).value = "s1"
        await settle(pilot)
        assert screen.query_one("#go", Button).disabled


async def test_accepted_loss_is_planned_anew_with_its_reason() -> None:
    desk = Desk(overviews.healthy())
    seen: list[dict[str, Any]] = []

    def plan(verb: str, args: dict[str, Any]) -> dict[str, Any]:
        seen.append(args)
        if not args.get("accept_data_loss"):
            raise Refused("no standby of s1 is in sync")
        return failover(verb, args)

    desk.plan_of = plan
    async with desk.open() as pilot:
        await pilot.press("3", "F")
        screen = await consent(desk)
        screen.query_one("#reason", Input).value = "INC-441"
        screen.query_one("#loss").toggle()  # type: ignore[attr-defined]
        await until(lambda: screen.plan is not None)
        await settle(pilot)
        assert seen[-1] == {"target": "s1", "accept_data_loss": True, "reason": "INC-441"}
        assert "--accept-data-loss --reason INC-441 --confirm s1" in text_of(desk.app)


async def test_while_it_is_planned_anew_the_old_plan_cannot_be_agreed_to() -> None:
    desk = Desk(overviews.healthy())
    desk.plan_of = failover
    async with desk.open() as pilot:
        await pilot.press("3", "F")
        screen = await consent(desk)
        screen.query_one("#typed", Input).value = "s1"
        await until(lambda: not screen.query_one("#go", Button).disabled)
        screen._ask()
        assert screen.query_one("#go", Button).disabled
        assert "planning" in (screen.query_one("#plan", Line).shown or "")
        await until(lambda: not screen.query_one("#go", Button).disabled)


async def test_who_cancels_after_it_was_sent_is_told_so() -> None:
    desk = Desk(overviews.healthy())
    sent, answered = asyncio.Event(), asyncio.Event()

    async def slow(verb: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
        sent.set()
        await answered.wait()
        return {"id": "op-99"}

    async with desk.open() as pilot:
        await pilot.press("3", "W")
        screen = await consent(desk)
        desk.start = slow  # type: ignore[method-assign]
        screen.query_one("#go", Button).press()
        async with asyncio.timeout(10):
            await sent.wait()
        await pilot.press("escape")
        await until(lambda: desk.app.on_board)
        said = [each.message for each in desk.app._notifications]
        assert said == ["Already sent: whether it began is on screen 4."]
        answered.set()


async def test_a_drill_is_chosen_from_those_there_are_and_shown_before_it_runs() -> None:
    desk = Desk(overviews.healthy())
    async with desk.open() as pilot:
        await pilot.press("D")
        await until(lambda: isinstance(desk.app.screen, Choice))
        await pilot.press("down", "enter")
        screen = await consent(desk)
        await settle(pilot)
        assert screen.intent.args == {"drill": "region-failure"}
        assert "inject-fault  kill-region us-east-1" in text_of(desk.app)
        await pilot.press("ctrl+x")
        assert desk.app.clipboard == "regionctl drill run region-failure"
        await pilot.press("escape")
        assert desk.asked == []


async def test_an_abort_takes_the_running_operation_and_asks_first() -> None:
    desk = Desk(overviews.drill_running())
    async with desk.open() as pilot:
        await pilot.press("A")
        await until(lambda: isinstance(desk.app.screen, Abort))
        await settle(pilot)
        assert "What it did so far stays done." in text_of(desk.app)
        await pilot.press("enter")
        assert desk.asked == []
        await pilot.press("A")
        await until(lambda: isinstance(desk.app.screen, Abort))
        await pilot.press("down", "enter")
        await until(lambda: bool(desk.asked))
        assert desk.asked == [("abort", {"id": "op-14", "reason": ""})]


async def test_a_key_that_is_out_of_place_says_why() -> None:
    desk = Desk(overviews.drill_running())
    async with desk.open() as pilot:
        await pilot.press("D")
        await settle(pilot)
        assert desk.app.on_board
        assert desk.app.check_action("plan", ("drill",)) is None
        assert desk.app.check_action("plan", ("failover",)) is True
        said = [each.message for each in desk.app._notifications]
        assert said == ["op-14 drill region-failure is running."]


async def test_a_read_only_dashboard_has_no_keys_that_change_anything() -> None:
    desk = Desk(overviews.drill_running())
    desk.app.read_only = True
    async with desk.open() as pilot:
        await pilot.press("F", "W", "D", "R", "A", "H", "B")
        await settle(pilot)
        assert desk.app.on_board
        assert "READ-ONLY" in text_of(desk.app)
        assert "failover" not in text_of(desk.app).splitlines()[-1]


async def test_who_may_only_look_gets_a_dashboard_that_only_looks() -> None:
    desk = Desk(overviews.healthy())
    desk.role = "viewer"
    async with desk.open() as pilot:
        await until(lambda: desk.app.read_only)
        await desk.draw(pilot)
        assert "READ-ONLY" in text_of(desk.app)
        assert desk.app.check_action("plan", ("failover",)) is False
