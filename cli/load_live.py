"""Shows a load test while it runs, on stderr: percentiles and a chart at a terminal, else JSON
lines."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from cli import render
from cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

JSON = Mapping[str, Any]
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
STAGES = {
    "calibrated": "a load worker can send {requestsPerSecond}/s",
    "users": "registering {users} users",
    "workers": "starting {workers} worker(s)",
    "started": "waiting for the workers",
}


class Shown(Protocol):
    """Used as a context manager; `tell` takes every line of the load program."""

    def __enter__(self) -> Shown: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def tell(self, line: JSON) -> None: ...


def of(title: str, seconds: float) -> Shown:
    """`seconds`: how long the load is meant to last."""
    return Chart(title, seconds) if Settings.read().live else Lines()


class Lines:
    """What the load program says, as it says it."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def tell(self, line: JSON) -> None:
        render.note(json.dumps(dict(line), ensure_ascii=False))


class Chart:
    """The last minute as two rows of bars, under the figures of now."""

    def __init__(self, title: str, seconds: float) -> None:
        self.title = title
        self.seconds = seconds
        self.stage = "starting"
        self.latest: JSON = {}
        self.rates: deque[float] = deque(maxlen=WIDTH)
        self.slow: deque[float] = deque(maxlen=WIDTH)
        self._live: Live | None = None

    def __enter__(self) -> Chart:
        from rich.console import Console
        from rich.live import Live

        colourless = Settings.read().never_colour
        self._live = Live(
            get_renderable=self._draw,
            console=Console(stderr=True, highlight=False, no_color=colourless or None),
            refresh_per_second=4,
            vertical_overflow="crop",
        )
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.__exit__(kind, error, trace)

    def tell(self, line: JSON) -> None:
        if "stage" in line:
            self.stage = STAGES.get(line["stage"], str(line["stage"])).format(**line)
        elif "t" in line:
            self.stage = ""
            self.latest = line
            self.rates.append(float(line["rate"]))
            self.slow.append(float(line["p99Ms"] or 0.0))

    def _draw(self) -> RenderableType:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{self.title}  ", "bold")
        if self.stage:
            text.append(self.stage, "dim")
            return text
        text.append("\n".join(lines(self.latest, self.seconds, self.rates, self.slow)))
        return text


def lines(latest: JSON, seconds: float, rates: Sequence[float], slow: Sequence[float]) -> list[str]:
    """The picture, a line each."""
    errors, dropped = latest["errors"], latest.get("dropped", 0)
    troubles = f"errors {errors:,}  dropped {dropped:,}" if errors or dropped else "no errors"
    spent = f"{latest['t']:.0f} of {seconds:.0f} s"
    generator = f"generator: late {_ms(latest.get('lagMs'))}, cpu {latest.get('cpu', 0):.0%}"
    return [
        f"{spent}  arrivals {latest['started']:,}  requests {latest['ok']:,}  {troubles}",
        f"p50 {_ms(latest['p50Ms'])}  p99 {_ms(latest['p99Ms'])}  "
        f"in flight {latest['inFlight']}  {generator}",
        f"rate {bars(rates)} {latest['rate']:.1f}/s",
        f"p99  {bars(slow)} {_ms(latest['p99Ms'])}",
    ]


def bars(values: Sequence[float]) -> str:
    """One character for each value, the highest filling its line."""
    most = max(values, default=0.0)
    if most <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(int(value / most * len(BARS)), len(BARS) - 1)] for value in values)


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"
