"""Screen 2: one region, its figures and its servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.widget import Widget

from cli.dash import sheets, view
from cli.dash.board import Board, Line, notes
from cli.dash.grid import Grid
from cli.dash.sheets import Row, server
from cli.dash.view import Cell

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]


class Region(Board):
    name_of: ClassVar[str] = "region"

    def __init__(self) -> None:
        super().__init__()
        self.status: JSON | None = None

    @property
    def subject(self) -> str:
        document = self.app.shown
        names = [each["name"] for each in document["regions"]] if document else []
        asked = self.app.subjects.get(self.name_of, "")
        return asked if asked in names or not names else names[0]

    def body(self) -> Iterable[Widget]:
        yield Line(id="facts", classes="notes")
        yield Line(id="notes", classes="notes", wraps=True)
        yield Grid(id="instances")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#instances").border_title = "Servers"

    async def fetch(self, client: Client) -> None:
        self.status = await client.status()

    def draw(self, document: JSON) -> None:
        region = {each["name"]: each for each in document["regions"]}[self.subject]
        self.query_one("#facts", Line).put(*facts(region, document))
        rows = {row.key: row for row in sheets.regions(document, sheets.NARROW).rows}
        self.query_one("#notes", Line).put(*notes(rows[self.subject]))
        if self.status is not None:
            sheet = sheets.instances(self.status, region["name"])
            self.query_one("#instances", Grid).put(self.sift(sheet))

    def thing(self, key: str) -> JSON | None:
        return server(self.status, key)

    def opened(self, row: Row) -> None:
        self.app.go("logs", row.key)


def facts(region: JSON, document: JSON) -> list[Cell]:
    """The region's figures in four lines."""
    traffic, instances = region["traffic"], region["instances"]
    leads = [
        each["name"]
        for each in document["shards"]
        if each["primary"].partition(".")[2].startswith(region["name"])
    ]
    shown = ", ".join(leads[:8]) + (f" and {len(leads) - 8} more" if len(leads) > 8 else "")
    head = view.state(region["state"])
    return [
        Cell(f"{region['name']}  {head.text}  {region['role']}", head.tone),
        Cell(
            f"traffic {view.percent(traffic['share'], 0)} {view.meter(traffic['share'], 10)}"
            f"  {view.number(traffic['rate'], '{:.1f}')}/s"
            f"  p99 {view.number(traffic['p99Ms'])} ms"
            f"  errors {view.percent(traffic['errorRatio'], 2)}"
        ),
        Cell(
            f"leads {shown or 'no database'}  lag {view.number(region['lagSeconds'], '{:.2f}')} s"
        ),
        Cell(
            f"running {instances['running']}/{instances['all']}"
            f"  budget {view.percent(region['budgetLeft'])}"
        ),
    ]
