"""Screen 4: what was and is being done, step by step, and the reports of drills."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.widget import Widget

from cli.dash import details, sheets
from cli.dash.board import Board, Line
from cli.dash.grid import Grid
from cli.dash.sheets import Row
from cli.dash.view import RUNNING

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]


def _runs(operation: JSON | None) -> bool:
    return operation is not None and operation["state"] in RUNNING


def _end(operation: JSON | None) -> tuple[str, str | None] | None:
    """How and when it ended. One that was resumed has another end, or none any more."""
    return None if operation is None else (operation["state"], operation["finishedAt"])


class Operations(Board):
    """The operation under the cursor is asked for, step by step, while the screen is seen."""

    name_of: ClassVar[str] = "operations"
    fetch_seconds: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.operation: JSON | None = None
        self._wanted = ""

    def body(self) -> Iterable[Widget]:
        yield Grid(id="operations")
        yield Line(id="steps", classes="panel")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#operations").border_title = "Operations"
        self.query_one("#steps").border_title = "Steps"

    @property
    def subject(self) -> str:
        return self.chosen or ""

    @property
    def chosen(self) -> str | None:
        row = self.query_one("#operations", Grid).chosen if self.is_mounted else None
        return row.key if row else None

    async def fetch(self, client: Client) -> None:
        id, shown = self.chosen, self.operation
        if id is None:
            return
        same = shown is not None and shown["id"] == id
        if same and not _runs(shown) and _end(super().thing(id)) in (None, _end(shown)):
            return
        one = self.operation = await client.operation(id)
        if same and not _runs(one) and _end(one) != _end(shown):
            how = details.verdict_of(one) or one["state"]
            self.notify(f"{one['kind']} {one['target']}: {how}", title=id)

    def draw(self, document: JSON) -> None:
        grid = self.query_one("#operations", Grid)
        grid.put(self.sift(sheets.operations(document, self.size.width)))
        wanted = self.app.subjects.pop(self.name_of, "")
        self._wanted = wanted or self._wanted
        if self._wanted and any(row.key == self._wanted for row in grid.sheet.rows):
            grid.choose(self._wanted)
            self._wanted = ""
        panel = self.query_one("#steps", Line)
        if self.operation is not None and self.operation["id"] == self.chosen:
            panel.put(*details.steps(self.operation, max(4, panel.size.height)))
        elif self.chosen is not None:
            panel.put(f"asking for {self.chosen} ...")
            self.app.fetch_soon()

    def thing(self, key: str) -> JSON | None:
        shown = self.operation
        return shown if shown is not None and shown["id"] == key else super().thing(key)

    def opened(self, row: Row) -> None:
        """The report of a drill that has ended; else the operation's details."""
        found = self.thing(row.key)
        if found is not None and found["kind"] == "drill" and not _runs(found):
            self.app.show_report(row.key)
        else:
            self.app.show_details()
