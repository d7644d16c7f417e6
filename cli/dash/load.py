"""Screen 5: what customers get, beside what they were promised."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.widget import Widget

from cli.dash import sheets, view
from cli.dash.board import Board, Line
from cli.dash.grid import Grid
from cli.dash.overview import traffic

JSON = dict[str, Any]


class Load(Board):
    name_of: ClassVar[str] = "load"

    def body(self) -> Iterable[Widget]:
        yield Grid(id="objectives")
        yield Line(id="since", classes="notes")
        yield Line(id="traffic", classes="panel fitted")
        yield Grid(id="traffic-by-region")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#objectives").border_title = "Objectives"
        self.query_one("#traffic").border_title = "Whole platform"
        self.query_one("#traffic-by-region").border_title = "By region"

    def draw(self, document: JSON) -> None:
        self.query_one("#objectives", Grid).put(self.sift(sheets.objectives(document)))
        self.query_one("#traffic", Line).put(*traffic(document, self.size.width - 4))
        self.query_one("#since", Line).put(since(document))
        shown = sheets.regions(document, sheets.NARROW)
        self.query_one("#traffic-by-region", Grid).put(self.sift(shown))


def since(document: JSON) -> str:
    """What the figures are made from."""
    series, slo = document["series"], document["slo"]
    points = sum(value is not None for value in series["rate"])
    minutes = view.ago(points * series["stepSeconds"])
    begun = min((each["since"] for each in slo), default=None)
    counted = f"; budgets count since {begun[:19].replace('T', ' ')}Z" if begun else ""
    return f"bars: the last {minutes}, {series['stepSeconds']} s each{counted}"
