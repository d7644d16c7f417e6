"""Takes the README's pictures of the dashboard: the app itself over a platform that runs.

    make screenshots                              a platform of its own, removed afterwards
    python -m docs.screenshots --state-dir DIR    one that is up and whole

Customers shop meanwhile. A drill is begun by its keys; a service, then the control plane, are
stopped (SIGSTOP) and let go again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from cli.dash.actions import Consent
from cli.dash.app import Dashboard
from cli.dash.feed import Feed, Sources
from cli.dash.link import Link
from cli.dash.modals import Choice
from cli.leaf import Run
from runtime.clock import SystemClock

FOLDER = Path(__file__).parent
SIZE = (110, 30)
PATIENCE_SECONDS = 300.0
LOAD_SECONDS = 900.0
SPARKLINE_POINTS = 8
ATTEMPTS = 3
DRILL = "database-failure"
WEAK = "orders.us-east-1b"
JSON = dict[str, Any]


class Session:
    """A dashboard without a terminal, its keys and its pictures."""

    def __init__(self, app: Dashboard, pilot: Pilot[None], link: Link) -> None:
        self.app = app
        self.pilot = pilot
        self.link = link

    @property
    def document(self) -> JSON:
        return self.app.feed.document or {}

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Raises `TimeoutError`, naming `what` did not come."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds():
                    await self.pilot.pause(0.1)
        except TimeoutError:
            raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s for {what}") from None

    async def picture(self, name: str) -> None:
        self.app.tick()
        await self.pilot.pause()
        svg = self.app.export_screenshot(title="regionctl dash", simplify=True)
        # A browser would fetch these from elsewhere.
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        (FOLDER / f"dash-{name}.svg").write_text(svg, encoding="utf-8")
        sys.stderr.write(f"docs/dash-{name}.svg\n")

    async def plan(self) -> None:
        """Until the plan that was asked for is there."""

        def ready() -> bool:
            screen = self.app.screen
            return isinstance(screen, Consent) and bool(screen.plan and screen.plan["steps"])

        await self.until(ready, "a plan")

    def operation(self, kind: str) -> JSON | None:
        """The newest of this kind."""
        found: list[JSON] = self.document.get("operations", [])
        return next((each for each in found if each["kind"] == kind), None)

    async def whole(self) -> None:
        """Everything runs, however slowly, and there is something to draw in the sparklines."""

        def ready() -> bool:
            regions = self.document.get("regions", ())
            servers = [each["instances"] for each in regions]
            rates = self.document.get("series", {}).get("rate", ())
            return (
                all(each["running"] == each["all"] for each in servers)
                and not any(each["why"] for each in self.document.get("shards", ()))
                and sum(rate is not None for rate in rates) >= SPARKLINE_POINTS
            )

        await self.until(ready, "a whole platform that customers use")

    async def status(self) -> JSON:
        return await (await self.link.client()).status()


async def drill(session: Session) -> None:
    """A failover inside a drill, step by step. A busy machine may need a second one."""
    for _ in range(ATTEMPTS):
        if await drilled(session):
            return
        await session.whole()
    raise RuntimeError(f"no failover was seen in {ATTEMPTS} drills: is the machine busy?")


async def drilled(session: Session) -> bool:
    """Whether a failover was seen while the drill ran, and the picture was taken."""
    drills = [each["name"] for each in await (await session.link.client()).drills()]
    before = {each["id"] for each in session.document["operations"]}
    await session.pilot.press("1", "D")
    await session.until(lambda: isinstance(session.app.screen, Choice), "the choice of drills")
    await session.pilot.press(*["down"] * drills.index(DRILL), "enter")
    await session.plan()
    await session.pilot.click("#go")

    def begun(kind: str) -> JSON | None:
        found = session.operation(kind)
        return None if found is None or found["id"] in before else found

    def over() -> bool:
        drill = begun("drill")
        return drill is not None and drill["state"] not in ("pending", "running")

    def recovering() -> bool:
        """The failover has begun, and the steps that are shown are those of the drill before its
        fault is healed: the failover is this drill's."""
        drill, failover = begun("drill"), begun("failover")
        steps = getattr(session.app.board, "operation", None)
        if drill is None or failover is None or steps is None or steps["id"] != drill["id"]:
            return False
        states = {each["name"]: each["state"] for each in steps["steps"]}
        return failover["state"] != "pending" and bool(states["heal-fault"] != "succeeded")

    await session.until(lambda: over() or recovering(), "the failover inside the drill")
    seen = recovering() and not over()
    if seen:
        await session.picture("failover")
    await session.until(over, "the end of the drill")
    return seen


async def degraded(session: Session) -> None:
    """The reason and the command that helps are under the row."""
    regions = (await session.status())["regions"]
    pids = {each["id"]: each["pid"] for region in regions for each in region["instances"]}
    await session.pilot.press("1")

    def told() -> bool:
        return any(WEAK in line for each in session.document["regions"] for line in each["why"])

    with stopped(pids[WEAK]):
        await session.until(told, "a degraded region")
        await session.picture("degraded")


async def plan(session: Session) -> None:
    """A plan, before anything is done."""
    await session.pilot.press("3", "W")
    await session.plan()
    await session.picture("plan")
    await session.pilot.press("escape", "1")


async def unreachable(session: Session) -> None:
    """The control plane does not answer, and the edge does."""
    with stopped((await session.status())["controlPlane"]["pid"]):
        await session.until(lambda: bool(session.app.feed.contact.probes), "the lost contact")
        await session.picture("unreachable")
    session.app.action_hurry()
    await session.until(lambda: not session.app.feed.contact.stale, "the control plane")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def customers(state_dir: Path) -> AsyncIterator[None]:
    """They come for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as reports:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "load", "run", "smoke"),
            *("--seconds", str(LOAD_SECONDS), "--rate-scale", "0.1", "--report-dir", reports),
            *("--state-dir", str(state_dir)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.wait()


async def main(state_dir: Path) -> None:
    link = Link(Run(state_dir=state_dir))
    feed = Feed(Sources(link.overview, link.probe), SystemClock())
    app = Dashboard(feed, link.name, link.client)
    try:
        async with customers(state_dir), app.run_test(size=SIZE) as pilot:
            session = Session(app, pilot, link)
            for scene in (drill, degraded, plan, unreachable):
                await session.whole()
                await scene(session)
    finally:
        await link.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots")
    parser.add_argument("--state-dir", type=Path, required=True)
    asyncio.run(main(parser.parse_args().state_dir.absolute()))
