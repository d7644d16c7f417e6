"""What all screens of the dashboard have: top bar, banners, breadcrumbs, filter, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, Static

from cli.dash import view
from cli.dash.filters import Filter
from cli.dash.grid import Grid, styled
from cli.dash.sheets import Row, Sheet
from cli.dash.view import Cell

if TYPE_CHECKING:
    from cli.dash.app import Dashboard
    from control_plane.client import Client

JSON = dict[str, Any]


class Line(Static):
    """Text that is repainted only when it has changed."""

    DEFAULT_CSS = """
    Line { text-wrap: nowrap; text-overflow: ellipsis; }
    Line.wraps { text-wrap: wrap; }
    """

    def __init__(
        self, *, id: str | None = None, classes: str | None = None, wraps: bool = False
    ) -> None:
        super().__init__("", id=id, classes=classes, markup=False)
        self.set_class(wraps, "wraps")
        self.shown: str | None = None
        self.paints = 0

    def put(self, *lines: Cell | str) -> None:
        cells = [line if isinstance(line, Cell) else Cell(line) for line in lines]
        mark = "\n".join(f"{cell.tone}\0{cell.text}" for cell in cells)
        if mark != self.shown:
            self.shown = mark
            self.paints += 1
            self.update(Text("\n").join(styled(cell) for cell in cells))


class Keys(Static):
    """The keys of the screen in one line, dimmed when they are out of place; each can be clicked.

    Textual's Footer has a widget for each key, which costs more than all the rest of a screen.
    """

    SPARE = ("x", "z", "R", ":", "W", "t", "w")

    def __init__(self, *, id: str) -> None:
        super().__init__("", id=id, markup=False)
        self._shown: object = None

    def put(self, keys: Sequence[tuple[Binding, bool]], width: int) -> None:
        """`keys`: each with whether it is possible now. Those in `SPARE` go when it is narrow."""
        items = [(each.key_display or each.key, each, able) for each, able in keys]
        for spare in self.SPARE:
            if sum(len(key) + len(each.description) + 3 for key, each, _ in items) <= width:
                break
            items = [item for item in items if item[0] != spare]
        shown = [(key, each.description, able) for key, each, able in items]
        if shown == self._shown:
            return
        self._shown = shown
        line = Text(" ", no_wrap=True)
        for key, each, able in items:
            click = Style(meta={"@click": f"app.{each.action}"}) if able else Style(dim=True)
            line.append(key, Style(bold=True) + click)
            line.append(f" {each.description}  ", click)
        self.update(line)


class Board(Screen[None]):
    """One screen. A subclass says what its body is and draws it from the newest documents."""

    app: Dashboard
    name_of: ClassVar[str] = ""
    fetch_seconds: ClassVar[float] = 2.0
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-usual"),
        (160, "-broad"),
    ]
    AUTO_FOCUS = "Grid"

    def __init__(self) -> None:
        super().__init__()
        self.filter = Filter()
        self.draws = 0

    def body(self) -> Iterable[Widget]:
        raise NotImplementedError

    def draw(self, document: JSON) -> None:
        """Puts the newest overview on the screen."""
        raise NotImplementedError

    async def fetch(self, client: Client) -> None:
        """Asks for what the overview does not have; each `fetch_seconds` while it is seen."""

    def opened(self, row: Row) -> None:
        """Enter was pressed on a row."""
        self.app.show_details()

    @property
    def subject(self) -> str:
        """What the screen is about, for the breadcrumbs."""
        return ""

    @property
    def command(self) -> str:
        """What to type to see the same."""
        row = self.grid.chosen if self.grid else None
        return row.command if row else "regionctl status"

    def thing(self, key: str) -> JSON | None:
        """What the documents say about the row `key`."""
        document = self.app.shown or {}
        lists = (("regions", "name"), ("shards", "name"), ("operations", "id"), ("slo", "name"))
        return next(
            (each for name, id in lists for each in document.get(name, ()) if each[id] == key), None
        )

    @property
    def grid(self) -> Grid | None:
        """The table that filter, cursor and copying are about."""
        focused = self.focused
        return focused if isinstance(focused, Grid) else next(iter(self.query(Grid)), None)

    def compose(self) -> ComposeResult:
        yield Line(id="top")
        yield Line(id="tabs")
        yield Line(id="banner")
        yield Line(id="crumbs")
        with Vertical(id="body"):
            yield from self.body()
        yield Line(id="small")
        field = Input(id="filter", placeholder="regular expression, !inverse, -f fuzzy")
        field.compact, field.cursor_blink = True, False
        yield field
        yield Keys(id="keys")

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.refresh_view()

    def on_screen_resume(self) -> None:
        self.refresh_view()

    def on_resize(self) -> None:
        self.refresh_view()

    def refresh_view(self) -> None:
        """Draws all of the screen; what has not changed is not painted again."""
        if not self.is_mounted or not self.query(Keys):
            return  # not yet there, or about to go
        self.draws += 1
        document, width = self.app.shown, self.size.width or self.app.size.width
        contact = self.app.contact
        with self.app.batch_update():
            mode = "READ-ONLY" if self.app.read_only else ""
            top = view.top_bar(document, contact, self.app.platform, width, mode)
            self.query_one("#top", Line).put(Cell(f" {top.text}".ljust(width), top.tone))
            self.query_one("#tabs", Line).put(self.app.tabs(self.name_of))
            banners = view.banners(document, contact)
            banner = self.query_one("#banner", Line)
            banner.display = bool(banners)
            banner.put(*(Cell(f" {cell.text}", cell.tone) for cell in banners))
            self.query_one("#crumbs", Line).put(self._crumbs())
            own = [each for each in self.BINDINGS if isinstance(each, Binding)]
            self.query_one(Keys).put(self.app.keys(own), width)
            self.set_class(contact.stale, "-stale")
            small = width < 80 or self.size.height < 24
            self.set_class(small, "-small")
            if small:
                self.query_one("#small", Line).put(*view.plain(document, contact))
            elif document is not None:
                self._draw(document)

    def _draw(self, document: JSON) -> None:
        """A document of another version must not end the dashboard."""
        try:
            self.draw(document)
        except (LookupError, TypeError, ValueError) as error:
            line = Cell(f" this screen cannot be drawn: {type(error).__name__}: {error}", "bad")
            self.query_one("#crumbs", Line).put(line)

    def sift(self, sheet: Sheet) -> Sheet:
        """The rows that the filter and the faults-only switch leave."""
        rows = tuple(
            row
            for row in sheet.rows
            if self.filter.keeps(row.text) and (row.faulty or not self.app.faults_only)
        )
        return Sheet(sheet.columns, rows)

    def _crumbs(self) -> str:
        words = [self.app.platform, self.name_of, self.subject]
        text = " " + " › ".join(word for word in words if word)
        if self.filter:
            text += f"   /{self.filter.text}"
        return text + ("   faults only (z)" if self.app.faults_only else "")

    def ask_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.value = self.filter.text
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self.filter = Filter(event.value)
            self.refresh_view()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self.end_filter(keep=True)

    def end_filter(self, *, keep: bool) -> bool:
        """Whether there was something to end."""
        field = self.query_one("#filter", Input)
        was = field.display or bool(self.filter)
        field.display = False
        if not keep:
            self.filter = Filter()
            field.value = ""
        self.query("Grid, RichLog").first().focus()
        self.refresh_view()
        return was

    def on_data_table_row_selected(self, event: Grid.RowSelected) -> None:
        if isinstance(event.data_table, Grid) and event.data_table.chosen is not None:
            self.opened(event.data_table.chosen)

    def on_data_table_row_highlighted(self) -> None:
        if self.app.shown is not None and not self.has_class("-small"):
            self._draw(self.app.shown)


def notes(row: Row | None) -> list[Cell]:
    """Why a row is not as it should be, and what to type."""
    if row is None:
        return [Cell("")]
    tones = {"why": "warn", "try": "ok"}
    return [Cell(note, tones.get(note[:3], "")) for note in row.notes] or [Cell("")]
