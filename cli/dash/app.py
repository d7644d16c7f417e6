"""The dashboard: screens by number, one feed, one repaint a second; only its user ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from cli.dash import asking, intents
from cli.dash.actions import Connect
from cli.dash.board import Board
from cli.dash.data import Data
from cli.dash.feed import Feed
from cli.dash.infrastructure import Infrastructure
from cli.dash.load import Load
from cli.dash.logs import Logs
from cli.dash.modals import KEYS, Page
from cli.dash.operations import Operations
from cli.dash.overview import Overview
from cli.dash.palette import Places
from cli.dash.region import Region
from runtime.errors import Problem

JSON = dict[str, Any]

REPAINT_SECONDS = 1.0
FETCH_SECONDS = 2.0
BOARDS: dict[str, type[Board]] = {
    board.name_of: board
    for board in (Overview, Region, Data, Operations, Load, Logs, Infrastructure)
}
NUMBERS = [
    Binding(str(number), f"jump('{name}')", name, show=False)
    for number, name in enumerate(BOARDS, start=1)
]


class Dashboard(App[None]):
    """`platform` is its name; `connect` gives the client for what the overview does not have.

    `subjects` says what a screen is about, `trail` where `esc` goes back to.
    """

    TITLE = "regionctl"
    CSS_PATH = "dash.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = dict(BOARDS)
    DEFAULT_MODE = "overview"
    COMMANDS = App.COMMANDS | {Places}
    BINDINGS: ClassVar[list[BindingType]] = [
        *NUMBERS,
        Binding("question_mark,f1", "keys", "keys", key_display="?"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("colon", "command_palette", "jump", key_display=":"),
        Binding("z", "faults", "faults"),
        Binding("x", "copy_command", "copy"),
        Binding("F", "plan('failover')", "failover"),
        Binding("W", "plan('switchover')", "switch"),
        Binding("D", "plan('drill')", "drill"),
        Binding("R", "plan('reshard')", "reshard"),
        Binding("A", "abort", "abort"),
        Binding("H", "plan('failback')", "failback", show=False),
        Binding("B", "plan('backup')", "back up", show=False),
        Binding("p", "pause", "pause", show=False),
        Binding("d", "details", "details", show=False),
        Binding("c", "copy_name", "copy the name", show=False),
        Binding("escape", "out", "back", show=False),
        Binding("minus", "last", "last screen", show=False),
        Binding("ctrl+r", "hurry", "ask now", show=False),
        Binding("ctrl+q", "quit", "quit", priority=True),
    ]

    def __init__(
        self,
        feed: Feed,
        platform: str,
        connect: Connect,
        *,
        screen: str = "overview",
        read_only: bool = False,
    ) -> None:
        super().__init__()
        self.animation_level = "none"
        self._first = screen
        self.feed = feed
        self.platform = platform
        self.connect = connect
        self.read_only = read_only
        self.boards = BOARDS
        self.faults_only = False
        self.paused = False
        self.subjects: dict[str, str] = {}
        self.trail: list[tuple[str, str]] = []
        self.last: tuple[str, str] = ("overview", "")
        self._fetch = asyncio.Event()
        self._blocked: list[str] = []

    @property
    def mode_words(self) -> list[str]:
        return [word for word, on in (("READ-ONLY", self.read_only), ("PAUSED", self.paused)) if on]

    @property
    def board(self) -> Board:
        """The screen that is seen, or that lies under what is."""
        return next(each for each in reversed(self.screen_stack) if isinstance(each, Board))

    @property
    def on_board(self) -> bool:
        return isinstance(self.screen, Board)

    def tabs(self, current: str) -> str:
        """The screens with their keys, the one that is seen in brackets."""
        return " " + " ".join(
            f"[{number} {name}]" if name == current else f"{number} {name}"
            for number, name in enumerate(BOARDS, start=1)
        )

    def on_mount(self) -> None:
        self.feed.load()
        if self._first != self.DEFAULT_MODE:
            self.switch_mode(self._first)
        self.set_interval(REPAINT_SECONDS, self.tick)
        self.call_after_refresh(self.begin)

    def begin(self) -> None:
        """What takes time begins after the first paint."""
        self.run_worker(self.feed.run(self.arrived), exit_on_error=False, group="feed")
        self.run_worker(self._fetching(), exit_on_error=False, group="fetch")

    def arrived(self) -> None:
        """Contact began or was lost: show it now, not in a second."""
        self.tick()
        self.fetch_soon()
        if not self.read_only and not self.feed.contact.stale:
            self.run_worker(self._ask_role(), exclusive=True, exit_on_error=False, group="role")

    async def _ask_role(self) -> None:
        """Who may only look gets a dashboard that only looks."""
        with suppress(Problem, OSError):
            me = await (await self.connect()).who_am_i()
            self.read_only = me["role"] == "viewer"
            self.refresh_bindings()

    def tick(self) -> None:
        if not self.on_board:
            return
        if not self.paused:
            self.board.refresh_view()
        now = self.feed.document, self.feed.contact
        blocked = [intents.blocked(verb, *now) for verb in ("failover", "drill", "abort")]
        if blocked != self._blocked:
            self._blocked = blocked
            self.refresh_bindings()

    async def _fetching(self) -> None:
        """Asks for what the screen needs beside the overview, while there is somebody to ask."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._fetch.wait(), FETCH_SECONDS)
            self._fetch.clear()
            board = self.board
            if self.feed.contact.stale or self.paused:
                continue
            with suppress(Problem, OSError):
                await board.fetch(await self.connect())
                if self.on_board and board is self.board:
                    board.refresh_view()

    def fetch_soon(self) -> None:
        self._fetch.set()

    def go(self, name: str, subject: str = "") -> None:
        """Into `name`; `esc` comes back."""
        self.trail.append((self.board.name_of, self.subjects.get(self.board.name_of, "")))
        self._switch(name, subject)

    def jump(self, name: str, subject: str = "") -> None:
        self.trail.clear()
        self._switch(name, subject)

    def _switch(self, name: str, subject: str) -> None:
        self.last = (self.board.name_of, self.subjects.get(self.board.name_of, ""))
        self.subjects[name] = subject
        self.switch_mode(name)
        self.call_after_refresh(self.arrived)

    def action_jump(self, name: str) -> None:
        if self.on_board:
            self.jump(name)

    def action_out(self) -> None:
        if self.board.end_filter(keep=False):
            return
        if self.trail:
            self._switch(*self.trail.pop())

    def action_last(self) -> None:
        self.jump(*self.last)

    def action_filter(self) -> None:
        self.board.ask_filter()

    def action_faults(self) -> None:
        self.faults_only = not self.faults_only
        self.board.refresh_view()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self.board.refresh_view()

    def action_hurry(self) -> None:
        self.feed.hurry()
        self.fetch_soon()

    def action_keys(self) -> None:
        self.push_screen(Page("Keys", KEYS))

    def action_details(self) -> None:
        self.show_details()

    def action_copy_command(self) -> None:
        self._copy(self.board.command)

    def action_copy_name(self) -> None:
        row = self.board.grid.chosen if self.board.grid else None
        self._copy(row.key if row else self.platform)

    def _copy(self, text: str) -> None:
        self.copy_to_clipboard(text)
        self.notify(text, title="copied", timeout=3)

    def show_details(self) -> None:
        asking.show_details(self)

    def show_report(self, id: str) -> None:
        self.run_worker(asking.show_report(self, id), exit_on_error=False, group="ask")

    def plan(self, verb: str) -> None:
        self.run_worker(asking.plan(self, verb), exclusive=True, exit_on_error=False, group="ask")

    def action_plan(self, verb: str) -> None:
        self.plan(verb)

    def action_abort(self) -> None:
        self.run_worker(asking.abort(self), exclusive=True, exit_on_error=False, group="ask")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """False hides a key (read-only, or under a modal), None dims it (not just now)."""
        if action not in ("plan", "abort"):
            return True
        if self.read_only:
            return False
        verb = str(parameters[0]) if parameters else "abort"
        return None if intents.blocked(verb, self.feed.document, self.feed.contact) else True

    def on_key(self, event: Any) -> None:
        """A key that is dimmed says why."""
        verbs = {"F": "failover", "W": "switchover", "D": "drill", "R": "reshard", "A": "abort"}
        verb = {**verbs, "H": "failback", "B": "backup"}.get(event.character or "")
        if verb and self.on_board and not self.read_only:
            why = intents.blocked(verb, self.feed.document, self.feed.contact)
            if why:
                self.notify(why, title=f"{verb}: not now", severity="warning")
