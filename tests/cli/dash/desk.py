"""A dashboard over documents: what the control plane would answer is given, time stands still."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from datetime import datetime
from typing import Any

from textual.pilot import Pilot

from cli.dash.app import Dashboard
from cli.dash.feed import Feed, Sources
from cli.dash.view import Probe
from control_plane import drills, status
from control_plane.plans import PLANNERS
from runtime.clock import FakeClock
from runtime.errors import NotFound, Problem, Unavailable
from tests.control_plane import overviews

JSON = dict[str, Any]


class StillClock(FakeClock):
    """Time moves only by `advance`, which wakes those whose time has come."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._moved = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        due = self.monotonic() + seconds
        while self.monotonic() < due:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class Desk:
    """Answers with documents. `away`: nobody answers; `asked` is all that was asked to be done."""

    def __init__(self, document: JSON) -> None:
        self.document = document
        self.clock = StillClock(overviews.NOW)
        self.away = False
        self.role = "operator"
        self.asked: list[tuple[str, JSON]] = []
        self.plan_of: Callable[[str, JSON], JSON] = planned
        self.feed = Feed(Sources(self.overview, self.probe), self.clock, spread=lambda: 0.0)
        self.app = Dashboard(self.feed, "two-regions", self.client)

    async def client(self) -> Any:
        return self

    async def overview(self) -> JSON:
        self._answer()
        return deepcopy(self.document)

    async def probe(self, document: JSON | None) -> Probe:
        return Probe("edge", "HTTP/1.1 200 OK", 0.011)

    async def who_am_i(self) -> JSON:
        self._answer()
        return {"name": "ana", "role": self.role, "token": "t1"}

    async def report(self, id: str) -> JSON:
        self._answer()
        raise NotFound(f"There is no report of {id}.", hint="regionctl drill history")

    async def status(self) -> JSON:
        self._answer()
        return STATUS

    async def operation(self, id: str) -> JSON:
        self._answer()
        found = OPERATIONS.get(id)
        if found is None:
            raise NotFound(f"There is no operation {id}.")
        return found

    async def logs(self, instances: list[str], lines: int) -> Mapping[str, list[str]]:
        self._answer()
        return LOGS if not instances else {name: LOGS.get(name, []) for name in instances}

    async def past_events(self, *, limit: int) -> list[JSON]:
        self._answer()
        return EVENTS

    async def drills(self) -> list[JSON]:
        self._answer()
        return DRILLS

    async def plan(self, verb: str, args: JSON, reason: str = "") -> JSON:
        self._answer()
        return self.plan_of(verb, {**args, "reason": reason})

    async def start(self, verb: str, args: JSON, **more: Any) -> JSON:
        self._answer()
        self.asked.append((verb, {**args, **more}))
        return {"id": "op-99"}

    async def abort(self, id: str, reason: str) -> JSON:
        self._answer()
        self.asked.append(("abort", {"id": id, "reason": reason}))
        return {"id": id}

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("connect refused 127.0.0.1:18000")

    @asynccontextmanager
    async def open(self, size: tuple[int, int] = (120, 36)) -> AsyncIterator[Pilot[None]]:
        async with self.app.run_test(size=size) as pilot:
            await until(lambda: self.feed.document is not None and self.app.board.draws > 1)
            await self.draw(pilot)
            yield pilot

    async def again(self, pilot: Pilot[None], seconds: float = 1.0) -> None:
        """`seconds` later: the feed has asked once more, and the screen is drawn."""
        before = self.feed.polls
        self.clock.advance(seconds)
        await until(lambda: self.feed.polls > before)
        await self.draw(pilot)

    async def lose(self, pilot: Pilot[None], times: int = 4) -> None:
        """The control plane goes away, and was asked `times` in vain."""
        self.away = True
        for number in range(times):
            await self.again(pilot, 2.0 ** max(0, number - 1))

    async def draw(self, pilot: Pilot[None]) -> None:
        self.app.tick()
        await settle(pilot)


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for a condition. Raises `TimeoutError` when it does not come."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  nobody says when it does
            await asyncio.sleep(0.005)


async def settle(pilot: Pilot[None]) -> None:
    """Until what was begun has been drawn."""
    for _ in range(2):
        await pilot.pause()


async def still(app: Dashboard, pilot: Pilot[None]) -> None:
    """Until two looks at the screen are the same: a banner that came moves all below it."""
    shown = ""
    while shown != (now := text_of(app)):
        shown = now
        await pilot.pause()


def picture_of(app: Dashboard) -> str:
    """The screen as SVG, without the fonts that a browser would fetch from elsewhere."""
    svg = app.export_screenshot(title="regionctl dash", simplify=True)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def text_of(app: Dashboard) -> str:
    """The screen as a terminal without colours would show it."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def planned(verb: str, args: JSON) -> JSON:
    """The real planner's plan for the healthy platform of the overviews."""
    topology = overviews.topology()
    observed, shard_map = overviews.seen(topology, {}, {}), overviews.shard_map(topology)
    planner = PLANNERS.get(verb, drills.plan)
    return planner(topology, observed, shard_map, **args).to_json()


def refused(problem: Problem) -> Callable[[str, JSON], JSON]:
    def plan(verb: str, args: JSON) -> JSON:
        raise problem

    return plan


def _status() -> JSON:
    topology = overviews.topology()
    broken = {"orders.us-east-1b": "failed"}
    seen, known = overviews.seen(topology, broken, {}), overviews.shard_map(topology)
    return status.document(
        topology, seen, known, entry_url=overviews.ENTRY_URL, pid=4242, address=overviews.ADDRESS
    )


STATUS = _status()
OPERATIONS: dict[str, JSON] = {
    each.id: each.to_json()
    for each in (
        overviews._drill(11, "succeeded"),
        overviews._backup(12),
        overviews._backup(13, "failed"),
        overviews._drill(14, "running", done=4),
        overviews._failover(15),
    )
}
DRILLS: list[JSON] = [
    {"name": "database-failure", "title": "A database's primary is lost"},
    {"name": "region-failure", "title": "A region is lost"},
]
LOGS = {
    "orders.us-east-1a": [
        '{"at":"2026-11-23T09:13:58.120Z","level":"info","message":"map 31"}',
        '{"at":"2026-11-23T09:14:03.400Z","level":"error","message":"stock did not answer"}',
    ],
    "s1.us-east-1a": [
        "2026-11-23 09:13:59.001 UTC [4121] checkpointer LOG:  checkpoint starting: time",
        "2026-11-23 09:14:01.250 UTC [4125] orders ERROR:  RG001 stale epoch",
        "\tSTATEMENT:  INSERT INTO orders",
    ],
}
EVENTS: list[JSON] = [
    {
        "sequence": 7,
        "operation": "op-12",
        "kind": "step-succeeded",
        "at": "2026-11-23T09:14:02.000+00:00",
        "data": {"number": 0, "step": "take-backup", "seconds": 1.4},
    }
]
