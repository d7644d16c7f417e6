"""Screen 3: databases, their replicas, slots that move, and what is archived."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from cli.dash import details, sheets
from cli.dash.board import Board, Line, notes
from cli.dash.grid import Grid
from cli.dash.view import Cell, number

JSON = dict[str, Any]


class Data(Board):
    name_of: ClassVar[str] = "data"

    def body(self) -> Iterable[Widget]:
        yield Grid(id="databases")
        yield Line(id="notes", classes="notes", wraps=True)
        yield Line(id="moves", classes="panel fitted")
        with Horizontal(classes="panels"):
            yield Line(id="replicas", classes="panel")
            yield Line(id="archives", classes="panel")

    def on_mount(self) -> None:
        super().on_mount()
        for id, title in (
            ("databases", "Databases"),
            ("moves", "Reshard"),
            ("replicas", "Replicas"),
            ("archives", "Archives"),
        ):
            self.query_one(f"#{id}").border_title = title

    def draw(self, document: JSON) -> None:
        grid = self.query_one("#databases", Grid)
        grid.put(self.sift(sheets.databases(document, self.size.width)))
        self.query_one("#notes", Line).put(*notes(grid.chosen))
        self.query_one("#moves", Line).put(*details.moves(document["moves"], 6))
        key = grid.chosen.key if grid.chosen else ""
        chosen = next((each for each in document["shards"] if each["name"] == key), None)
        self.query_one("#replicas", Line).put(*replicas(chosen))
        self.query_one("#archives", Line).put(*details.archives(document["archives"], 3))


def replicas(shard: JSON | None) -> list[Cell]:
    """The replicas of the database under the cursor."""
    lines = []
    for each in (shard or {}).get("standbys", ())[:3]:
        streaming = each.get("streaming", True)
        word = "in sync" if each["sync"] else "streams" if streaming else "does not stream"
        text = f"{each['id']}  {word}  lag {number(each.get('lagSeconds'), '{:.2f}')} s"
        lines.append(Cell(text, "" if streaming else "warn"))
    return lines or [Cell("none", "dim")]
