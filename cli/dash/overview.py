"""Screen 1: all regions in one table, what is wrong with them, traffic, and the latest work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from cli.dash import sheets, view
from cli.dash.board import Board, Line, notes
from cli.dash.grid import Grid
from cli.dash.sheets import Row
from cli.dash.view import Cell

JSON = dict[str, Any]


class Overview(Board):
    name_of: ClassVar[str] = "overview"

    def body(self) -> Iterable[Widget]:
        yield Grid(id="regions")
        yield Line(id="notes", classes="notes", wraps=True)
        with Horizontal(classes="panels"):
            yield Line(id="traffic", classes="panel")
            yield Line(id="slo", classes="panel")
        yield Grid(id="operations")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#regions").border_title = "Regions"
        self.query_one("#operations").border_title = "Operations"
        self.query_one("#traffic").border_title = "Traffic"
        self.query_one("#slo").border_title = "Objectives"

    def draw(self, document: JSON) -> None:
        width = self.size.width
        regions = self.query_one("#regions", Grid)
        regions.put(self.sift(sheets.regions(document, width)))
        operations = self.query_one("#operations", Grid)
        operations.put(self.sift(sheets.operations(document, width)))
        focused = self.grid
        self.query_one("#notes", Line).put(*notes(focused.chosen if focused else None))
        panel = max(20, width // 2 - 4)
        self.query_one("#traffic", Line).put(*traffic(document, panel))
        self.query_one("#slo", Line).put(*objectives(document, panel))

    def opened(self, row: Row) -> None:
        grid = self.grid
        if grid is not None and grid.id == "operations":
            self.app.go("operations", row.key)
        else:
            self.app.go("region", row.key)


def traffic(document: JSON, width: int) -> list[str]:
    """Rate, latency and errors of the whole platform as bars with the newest figure."""
    series = document["series"]
    lines = []
    for name, key, unit, scale in (
        ("rate", "rate", "/s", 1.0),
        ("p99", "p99Ms", " ms", 1.0),
        ("err", "errorRatio", "%", 100.0),
    ):
        now = view.latest(series[key])
        figure = "-" if now is None else f"{now * scale:.{0 if key == 'p99Ms' else 1}f}{unit}"
        bars = view.sparkline(series[key], max(8, width - 16))
        lines.append(f"{name:<4} {bars} {figure:>9}")
    return lines


def objectives(document: JSON, width: int) -> list[Cell]:
    """What is left of each budget, and with room for it how fast it burns."""
    lines = []
    for each in document["slo"][:3]:
        left, burn = each.get("budgetLeft"), each.get("burn") or {}
        text = f"{each['name'][:14]:<14} {view.meter(left, 8)} {view.percent(left):>6} left"
        text += f"  burn {view.number(burn.get('1h'), '{:.1f}x')}" if width >= 45 else ""
        lines.append(Cell(text, "bad" if left is not None and left < 0.25 else ""))
    return lines or [Cell("no objectives", "dim")]
