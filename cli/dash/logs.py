"""Screen 6: the logs of all servers and the platform's events as one stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import RichLog

from cli.dash import details
from cli.dash.board import Board
from cli.dash.details import Entry
from runtime.plain import plain

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]
EACH_LINES = 40
ONE_LINES = 400
EVENTS = 100


class Logs(Board):
    """Of one instance when there is a subject. What is there already is not written again."""

    name_of: ClassVar[str] = "logs"
    AUTO_FOCUS = "RichLog"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "wrap", "wrap"),
        Binding("t", "times", "times"),
        Binding("f", "follow", "follow"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.entries: Sequence[Entry] = ()
        self.times = True
        self.follow = True
        self.wrapped = False
        self._shown: list[str] = []
        self._of: str | None = None

    @property
    def subject(self) -> str:
        return self.app.subjects.get(self.name_of, "")

    @property
    def command(self) -> str:
        return f"regionctl logs {self.subject} -n 200" if self.subject else "regionctl logs"

    def body(self) -> Iterable[Widget]:
        yield RichLog(id="log", max_lines=5000, auto_scroll=True, min_width=20)

    async def fetch(self, client: Client) -> None:
        asked = self.subject
        found = await client.logs([asked] if asked else [], ONE_LINES if asked else EACH_LINES)
        events = [] if asked else await client.past_events(limit=EVENTS)
        self.entries = details.merge(found, events)

    def draw(self, document: JSON) -> None:
        log = self.query_one(RichLog)
        if self._of != self.subject:
            self._of, self.entries = self.subject, ()
            self.app.fetch_soon()
        entries = [
            entry
            for entry in self.entries
            if self.filter.keeps(entry.line) and (entry.faulty or not self.app.faults_only)
        ]
        said = [plain(entry.line, keep="\t\n") for entry in entries]
        times = [f"{entry.at[11:19]} " if self.times else "" for entry in entries]
        lines = [time + line for time, line in zip(times, said, strict=True)]
        kept = _continued(self._shown, lines)
        if kept is None:
            log.clear()
            kept = 0
        log.auto_scroll = self.follow
        for line, entry in list(zip(lines, entries, strict=True))[kept:]:
            log.write(Text(line, "yellow" if entry.faulty else "", no_wrap=not self.wrapped))
        self._shown = lines

    def _again(self) -> None:
        self._shown = ["\0"]
        self.refresh_view()

    def action_wrap(self) -> None:
        self.wrapped = not self.wrapped
        self.query_one(RichLog).wrap = self.wrapped
        self._again()

    def action_times(self) -> None:
        self.times = not self.times
        self._again()

    def action_follow(self) -> None:
        self.follow = not self.follow
        if self.follow:
            self.query_one(RichLog).scroll_end(animate=False)


def _continued(before: Sequence[str], now: Sequence[str]) -> int | None:
    """How many of `now` are on the screen already, at its end; None when it has to begin anew."""
    if not before:
        return 0
    last = before[-1]
    for end in range(len(now), 0, -1):
        if now[end - 1] == last:
            first = max(0, end - len(before))
            return end if list(now[first:end]) == list(before[-(end - first) :]) else None
    return None
