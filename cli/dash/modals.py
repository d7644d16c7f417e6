"""What lies over a screen: details of a row, a report, the keys, a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from runtime.plain import plain


class Page(ModalScreen[None]):
    """Text that can be scrolled; escape, q or enter closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "close"),
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "move(-15)", show=False),
        Binding("pagedown,space", "move(15)", show=False),
    ]
    AUTO_FOCUS = ""

    def __init__(self, title: str, text: str, *, markdown: bool = False) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._markdown = markdown

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as scroll:
            scroll.border_title = self._title
            scroll.border_subtitle = "esc closes"
            scroll.can_focus = False
            if self._markdown:
                # Its parser takes long to import, and most dashboards never show a report.
                from textual.widgets import Markdown

                yield Markdown(self._text)
            else:
                yield Static(Text(plain(self._text, keep="\n\t")), markup=False)

    def action_move(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


class Choice(ModalScreen[str]):
    """One of `options` (what it answers, what it says); escape answers ""."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "none", "back")]

    def __init__(self, title: str, options: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._options = options

    def compose(self) -> ComposeResult:
        with Vertical(classes="choice") as box:
            box.border_title = self._title
            box.border_subtitle = "enter shows the plan · esc goes back"
            yield OptionList(
                *(Option(Text(said, no_wrap=True), id=key) for key, said in self._options),
                compact=True,
            )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id or "")

    def action_none(self) -> None:
        self.dismiss("")


KEYS = """\
1-7     overview, region, data, operations, load, logs, infrastructure
enter   go in: region, log of a server, operation, report of a drill
esc     go out, or end the filter      -  the last screen
:       jump to anything, themes too (also ctrl+p)
/       filter: regular expression, !inverse, -f fuzzy
z       faults only                    p  pause the screen
d       details of the row             ctrl+r  ask now
c       copy the row's name            x  copy the command that does it

F       failover of the row's database or region
W       switchover                     D  run a drill
R       reshard                        H  failback to the home region
B       back up the row's database     A  abort the running operation
        Each shows its plan first, with the cursor on Cancel.

w t f   in logs: wrap, times, follow
ctrl+q  quit; the platform and its operations go on
"""
