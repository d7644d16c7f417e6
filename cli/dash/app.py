"""The dashboard: screens by number, one feed, one repaint a second; only its user ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from cli.dash import asking, intents
from cli.dash.actions import Complete, Connect
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
from cli.dash.view import Contact
from runtime.errors import Problem

JSON = dict[str, Any]

REPAINT_SECONDS = 1.0
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

    `line` makes of a command one that means this platform in any terminal. `subjects` says what a
    screen is about, `trail` where `esc` goes back to.
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
        Binding("ctrl+q", "quit", "quit", key_display="^q", priority=True),
    ]

    def __init__(
        self,
        feed: Feed,
        platform: str,
        connect: Connect,
        line: Complete = str,
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
        self.line = line
        self.read_only = read_only
        self.boards = BOARDS
        self.faults_only = False
        self.paused = False
        self._held: tuple[JSON | None, float | None] = (None, None)
        self.subjects: dict[str, str] = {}
        self.trail: list[tuple[str, str]] = []
        self.last: tuple[str, str] = ("overview", "")
        self._board: Board = Overview()
        self._fetch = asyncio.Event()

    @property
    def shown(self) -> JSON | None:
        """What the screens show: the newest overview, or that of the moment of the pause."""
        return self._held[0] if self.paused else self.feed.document

    @property
    def contact(self) -> Contact:
        """How fresh what is shown is; it grows old during a pause, like everything else."""
        if not self.paused:
            return self.feed.contact
        return self.feed.contact_since(self._held[1], paused=True)

    @property
    def board(self) -> Board:
        """The screen that is seen or lies under what is; while they change, the one before."""
        boards = [each for each in self.screen_stack if isinstance(each, Board)]
        self._board = boards[-1] if boards else self._board
        return self._board

    @property
    def on_board(self) -> bool:
        """A screen is seen, and nothing lies over it."""
        return bool(self.screen_stack) and isinstance(self.screen_stack[-1], Board)

    def tabs(self, current: str) -> str:
        """The screens with their keys, the one that is seen in brackets."""
        return " " + " ".join(
            f"[{number} {name}]" if name == current else f"{number} {name}"
            for number, name in enumerate(BOARDS, start=1)
        )

    def keys(self, own: Sequence[Binding]) -> list[tuple[Binding, bool]]:
        """The keys to show, and whether each is possible now; a screen's own come first."""
        shown = [each for each in (*own, *self.BINDINGS) if isinstance(each, Binding) and each.show]
        found = []
        for each in shown:
            name, _, rest = each.action.partition("('")
            able = self.check_action(name, (rest.removesuffix("')"),) if rest else ())
            if able is not False:
                found.append((each, able is True))
        return found

    def on_mount(self) -> None:
        self.feed.load()
        if self._first != self.DEFAULT_MODE:
            self.switch_mode(self._first)
        self.set_interval(REPAINT_SECONDS, self.tick)
        self.call_after_refresh(self.begin)

    def begin(self) -> None:
        """What takes time begins after the first paint."""
        alive = {each.group for each in self.workers if not each.is_finished}
        if "feed" not in alive:
            self.run_worker(self.feed.run(self.arrived), exit_on_error=False, group="feed")
        if "fetch" not in alive:
            self.run_worker(self._fetching(), exit_on_error=False, group="fetch")

    def arrived(self) -> None:
        """Contact began or was lost: show it now, not in a second."""
        self.tick()
        self.fetch_soon()
        if not self.read_only and not self.feed.contact.stale:
            self.run_worker(self._ask_role(), exit_on_error=False, group="role")

    async def _ask_role(self) -> None:
        """Who may only look gets a dashboard that only looks."""
        with suppress(Problem, OSError):
            me = await (await self.connect()).who_am_i()
            self.read_only = me["role"] == "viewer"

    def tick(self) -> None:
        if self.on_board:
            self.board.refresh_view()

    async def _fetching(self) -> None:
        """Asks for what the screen needs beside the overview, while there is somebody to ask."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._fetch.wait(), self.board.fetch_seconds)
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
        self._held = (self.feed.document, self.feed.received)
        self.paused = not self.paused
        self.fetch_soon()
        self.board.refresh_view()

    def action_hurry(self) -> None:
        self.feed.hurry()
        self.fetch_soon()

    def action_keys(self) -> None:
        self.push_screen(Page("Keys", KEYS))

    def action_details(self) -> None:
        self.show_details()

    def action_copy_command(self) -> None:
        self._copy(self.line(self.board.command))

    def action_copy_name(self) -> None:
        row = self.board.grid.chosen if self.board.grid else None
        self._copy(row.key if row else self.platform)

    def _copy(self, text: str) -> None:
        self.copy_to_clipboard(text)
        self.notify(text, title="copied", timeout=3)

    def show_details(self) -> None:
        asking.show_details(self)

    def show_report(self, id: str) -> None:
        self._ask(lambda: asking.show_report(self, id))

    def _ask(self, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One question at a time: a key that is pressed twice asks once."""
        if not any(each.group == "ask" and not each.is_finished for each in self.workers):
            self.run_worker(ask(), exit_on_error=False, group="ask")

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A defect ends neither the dashboard nor its feed."""
        if event.state is not WorkerState.ERROR:
            return
        error = event.worker.error
        self.notify(f"{type(error).__name__}: {error}", title="a defect", severity="error")
        if event.worker.group in ("feed", "fetch"):
            self.set_timer(REPAINT_SECONDS, self.begin)

    def plan(self, verb: str) -> None:
        self._ask(lambda: asking.plan(self, verb))

    def action_plan(self, verb: str) -> None:
        self.plan(verb)

    def action_abort(self) -> None:
        self._ask(lambda: asking.abort(self))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """False hides a key (read-only, or under a modal), None dims it (not just now)."""
        if action not in ("plan", "abort"):
            return True
        if self.read_only:
            return False
        verb = str(parameters[0]) if parameters else "abort"
        if verb == "abort" and not self._busy:
            return False
        return None if intents.blocked(verb, self.feed.document, self.feed.contact) else True

    @property
    def _busy(self) -> bool:
        return bool((self.feed.document or {}).get("activity"))

    def on_key(self, event: Any) -> None:
        """A key that is dimmed says why."""
        verbs = {"F": "failover", "W": "switchover", "D": "drill", "R": "reshard", "A": "abort"}
        verb = {**verbs, "H": "failback", "B": "backup"}.get(event.character or "")
        if verb and self.on_board and not self.read_only:
            why = intents.blocked(verb, self.feed.document, self.feed.contact)
            if why:
                self.notify(why, title=f"{verb}: not now", severity="warning")
