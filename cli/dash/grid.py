"""A table that repaints only what has changed."""

from __future__ import annotations

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from cli.dash.sheets import Row, Sheet
from cli.dash.view import Cell
from runtime.plain import plain

STYLES = {
    "ok": "green",
    "warn": "yellow",
    "bad": "bold red",
    "drill": "bold magenta",
    "failover": "bold cyan",
    "stale": "bold yellow",
    "work": "cyan",
    "dim": "dim",
}


def styled(cell: Cell, *, right: bool = False) -> Text:
    return Text(
        plain(cell.text, keep="\n"),
        STYLES.get(cell.tone, ""),
        justify="right" if right else "left",
        no_wrap=True,
        overflow="ellipsis",
    )


class Grid(DataTable[Text]):
    """`put` a sheet as often as wanted: the cursor stays on its row, and columns only grow.

    `writes` counts the cells that were written, `builds` how often all of it was laid out anew.
    """

    DEFAULT_CSS = "Grid { height: 1fr; } Grid > .datatable--header { text-style: bold; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, cursor_type="row")
        self.sheet = Sheet((), ())
        self.writes = 0
        self.builds = 0
        self._widths: tuple[int, ...] = ()

    @property
    def chosen(self) -> Row | None:
        """The row under the cursor."""
        rows = self.sheet.rows
        return rows[self.cursor_row] if 0 <= self.cursor_row < len(rows) else None

    def choose(self, key: str) -> None:
        for number, row in enumerate(self.sheet.rows):
            if row.key == key:
                self.move_cursor(row=number, animate=False)

    def put(self, sheet: Sheet) -> None:
        if sheet == self.sheet:
            return
        before, self.sheet = self.sheet, sheet
        needed = _widths(sheet)
        fits = all(need <= have for need, have in zip(needed, self._widths, strict=False))
        same = [row.key for row in before.rows] == [row.key for row in sheet.rows]
        if same and before.columns == sheet.columns and fits:
            self._change(before)
        else:
            self._build(before, needed)

    def _change(self, before: Sheet) -> None:
        rights = [column.startswith(">") for column in self.sheet.columns]
        for number, (old, new) in enumerate(zip(before.rows, self.sheet.rows, strict=True)):
            for place, (was, cell) in enumerate(zip(old.cells, new.cells, strict=True)):
                if was != cell:
                    text = styled(cell, right=rights[place])
                    self.update_cell_at(Coordinate(number, place), text)
                    self.writes += 1

    def _build(self, before: Sheet, needed: tuple[int, ...]) -> None:
        self.builds += 1
        at, top = self.cursor_row, self.scroll_y
        key = before.rows[at].key if 0 <= at < len(before.rows) else None
        self.clear(columns=True)
        if before.columns == self.sheet.columns:
            needed = tuple(map(max, needed, self._widths))
        self._widths = needed
        rights = [column.startswith(">") for column in self.sheet.columns]
        for column, width, right in zip(self.sheet.columns, needed, rights, strict=True):
            title = column.removeprefix(">")
            self.add_column(Text(title, justify="right" if right else "left"), width=width)
        for row in self.sheet.rows:
            texts = [
                styled(cell, right=right) for cell, right in zip(row.cells, rights, strict=True)
            ]
            self.add_row(*texts, key=row.key)
            self.writes += len(texts)
        if key is not None:
            self.choose(key)
        self.scroll_to(y=top, animate=False)


def _widths(sheet: Sheet) -> tuple[int, ...]:
    return tuple(
        max([len(column.removeprefix(">")), *(len(row.cells[place].text) for row in sheet.rows)])
        for place, column in enumerate(sheet.columns)
    )
