"""Screen 7: every server of every region, where it is, and where to find what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.widget import Widget

from cli.dash import sheets
from cli.dash.board import Board, Line
from cli.dash.grid import Grid
from cli.dash.sheets import Row, server
from cli.dash.view import Cell

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]


class Infrastructure(Board):
    name_of: ClassVar[str] = "infrastructure"

    def __init__(self) -> None:
        super().__init__()
        self.status: JSON | None = None

    def body(self) -> Iterable[Widget]:
        yield Line(id="facts", classes="notes")
        yield Grid(id="servers")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#servers").border_title = "Servers"

    async def fetch(self, client: Client) -> None:
        self.status = await client.status()

    def draw(self, document: JSON) -> None:
        self.query_one("#facts", Line).put(*facts(document))
        if self.status is not None:
            self.query_one("#servers", Grid).put(self.sift(sheets.instances(self.status)))

    def thing(self, key: str) -> JSON | None:
        return server(self.status, key)

    def opened(self, row: Row) -> None:
        self.app.go("logs", row.key)


def facts(document: JSON) -> list[Cell]:
    plane, regions = document["controlPlane"], document["regions"]
    running = sum(each["instances"]["running"] for each in regions)
    whole = sum(each["instances"]["all"] for each in regions)
    return [
        Cell(
            f"entry {document['entryUrl']}  control plane {plane['address']} (pid {plane['pid']})"
        ),
        Cell(f"servers {running} of {whole} in {len(regions)} regions  {cost(document)}"),
    ]


def cost(document: JSON) -> str:
    """Where the money is told of: an estimate takes seconds, and packages for AWS."""
    if document.get("provider") == "aws":
        return f"planned cost: regionctl infra cost --topology {document['name']}"
    return "cost none here; on AWS: regionctl infra cost"
