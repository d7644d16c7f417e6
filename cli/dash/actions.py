"""The plan of what was asked for, and the agreement to it. Nothing is done before that.

The cursor begins on Cancel. What may lose data wants its name typed. The plan is stored only if the
platform is still the one that it was made for (`expectGeneration`).
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Label
from textual.worker import Worker

from cli.dash import intents
from cli.dash.board import Line
from cli.dash.intents import Intent
from cli.dash.view import Cell
from runtime.errors import Problem

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]
Connect = Callable[[], Awaitable["Client"]]
Complete = Callable[[str], str]


class Tick(Checkbox):
    """A box that is empty when it is off: colour alone would not say so."""

    BUTTON_INNER = " "

    def watch_value(self) -> None:
        self.BUTTON_INNER = "X" if self.value else " "
        super().watch_value()


def _field(id: str, label: str, hint: str) -> ComposeResult:
    with Horizontal(classes="field"):
        yield Label(f"{label:<8}")
        field = Input(placeholder=hint, id=id, compact=True)
        field.cursor_blink = False
        yield field


def _buttons(go: str) -> ComposeResult:
    with Horizontal(classes="buttons"):
        yield Button("Cancel", id="cancel", compact=True)
        yield Button(go, id="go", variant="error", compact=True)


class Consent(ModalScreen[str]):
    """Answers with the id of the operation that was started, or "" when nothing was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel"),
        Binding("ctrl+x", "copy", "copy the command"),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]
    AUTO_FOCUS = "#cancel"

    def __init__(
        self, intent: Intent, connect: Connect, generation: int | None, line: Complete = str
    ) -> None:
        super().__init__()
        self._line = line
        self.intent = intent
        self.plan: JSON | None = None
        self._connect = connect
        self._generation = generation
        self._key = str(uuid.uuid4())
        self._busy = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="consent") as box:
            box.border_title = self.intent.title
            box.border_subtitle = "esc cancels · ctrl+x copies the command"
            yield Line(id="plan", wraps=True)
            yield Line(id="same", wraps=True)
            if self.intent.verb == "failover":
                yield Tick("accept data loss (needs a reason)", id="loss", compact=True)
            yield from _field("reason", "reason", "recorded with the operation")
            if self.intent.typed:
                yield from _field("typed", "confirm", f"type {self.intent.typed} to go on")
            yield from _buttons(self.intent.button)

    def on_mount(self) -> None:
        self._say_same()
        self._ask()

    @property
    def reason(self) -> str:
        return self.query_one("#reason", Input).value.strip()

    @property
    def accepts_loss(self) -> bool:
        return any(box.value for box in self.query(Checkbox))

    @property
    def args(self) -> JSON:
        return {**self.intent.args, **({"accept_data_loss": True} if self.accepts_loss else {})}

    def _ask(self) -> None:
        """Plans; what was planned with other words is given up, and cannot be agreed to."""
        self.plan = None
        self.query_one("#plan", Line).put("planning ...")
        self._allow()
        _: Worker[None] = self.run_worker(
            self._make_plan, exclusive=True, group="plan", exit_on_error=False
        )

    async def _make_plan(self) -> None:
        try:
            client = await self._connect()
            self.plan = await client.plan(self.intent.verb, self.args, self.reason)
            room = max(3, self.app.size.height - 17)
            self.query_one("#plan", Line).put(*intents.plan_lines(self.plan, room))
        except Problem as problem:
            self._say(problem)
        self._allow()

    def _say(self, problem: Problem) -> None:
        lines = [Cell(f"refused: {problem.detail}", "bad")]
        lines += [Cell(f"try: {problem.hint}", "ok")] if problem.hint else []
        self.query_one("#plan", Line).put(*lines)

    @property
    def same(self) -> str:
        """The command line that does it in any terminal."""
        return self._line(self.intent.equivalent(self.reason, accept_loss=self.accepts_loss))

    def _say_same(self) -> None:
        self.query_one("#same", Line).put(Cell(f"same as: {self.same}", "work"))

    def _allow(self) -> None:
        """The button is alive once there is a plan, and the name has been typed if it must be."""
        typed = not self.intent.typed or self.query_one("#typed", Input).value == self.intent.typed
        ready = self.plan is not None and bool(self.plan["steps"]) and typed and not self._busy
        self.query_one("#go", Button).disabled = not ready

    def on_input_changed(self, event: Input.Changed) -> None:
        self._say_same()
        if event.input.id == "reason" and self.accepts_loss:
            self._ask()
        self._allow()

    def on_checkbox_changed(self) -> None:
        self._say_same()
        self._ask()

    def on_input_submitted(self) -> None:
        self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "go":
            self._busy = True
            self._allow()
            self.run_worker(self._start(), group="start", exit_on_error=False)
        else:
            self.action_cancel()

    async def _start(self) -> None:
        try:
            client = await self._connect()
            operation = await client.start(
                self.intent.verb,
                self.args,
                reason=self.reason,
                idempotency_key=self._key,
                expect_generation=self._generation,
            )
            self.dismiss(str(operation["id"]))
        except Problem as problem:
            self._busy = False
            self.plan = None
            self._say(problem)
            self._allow()

    def action_cancel(self) -> None:
        if self._busy:
            said = "Already sent: whether it began is on screen 4."
            self.notify(said, severity="warning", timeout=10)
        self.dismiss("")

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.same)
        self.notify("copied")


class Abort(ModalScreen[str | None]):
    """Whether to abort an operation: answers with the reason (may be ""), or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel"),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]
    AUTO_FOCUS = "#cancel"

    def __init__(self, operation: JSON, line: Complete = str) -> None:
        super().__init__()
        self._operation = operation
        self._line = line

    def compose(self) -> ComposeResult:
        one = self._operation
        with Vertical(classes="consent") as box:
            box.border_title = f"ABORT {one['id']}"
            yield Line(id="plan", wraps=True)
            yield Line(id="same", wraps=True)
            yield from _field("reason", "reason", "recorded with the operation")
            yield from _buttons("Abort it")

    def on_mount(self) -> None:
        one = self._operation
        self.query_one("#plan", Line).put(
            f"{one['kind']} {one['target']} is at step {one['step']} of {one['steps']}.",
            "It stops after that step. What it did so far stays done.",
        )
        same = self._line(f"regionctl op abort {one['id']}")
        self.query_one("#same", Line).put(Cell(f"same as: {same}", "work"))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        go = event.button.id == "go"
        self.dismiss(self.query_one("#reason", Input).value.strip() if go else None)

    def action_cancel(self) -> None:
        self.dismiss(None)
