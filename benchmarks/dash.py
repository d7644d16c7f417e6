"""What the dashboard costs: CPU at rest, a repaint of many regions, the time to the first paint.

    PYTHONPATH=. python benchmarks/dash.py

Prints each figure beside its limit; exit 1 when one is over. CPU is the dashboard's own (user and
system), so that another load on the machine changes little. The first paint is given twice: as
wall-clock time, the shortest of several, which is the figure on an idle machine; and as the CPU
that it took, which is what can be judged on a loaded one.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import results

from control_plane.client import Client
from tests.cli.dash.desk import Desk
from tests.control_plane import overviews
from tests.control_plane.served import served, state_dir

JSON = dict[str, Any]
TITLE = "The dashboard"
TEXT = """`PYTHONPATH=. python benchmarks/dash.py`. A platform in memory behind a real control
plane; CPU is the dashboard's own, a repaint changes every figure of 50 regions and 200 shards."""
ROWS, COLUMNS = 36, 120
WARM_SECONDS, REST_SECONDS = 5.0, 20.0
REPAINTS, STARTS = 20, 5
REST_LIMIT, REPAINT_LIMIT, FIRST_LIMIT = 0.05, 0.100, 0.6


class Terminal:
    """`regionctl dash` in a terminal of its own; `cache` is where it keeps the last overview."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.began = time.monotonic()
        self.seen = b""
        self.master, slave = pty.openpty()
        env = {
            **os.environ,
            "XDG_CACHE_HOME": str(cache),
            "TERM": "xterm-256color",
            "LINES": str(ROWS),
            "COLUMNS": str(COLUMNS),
        }
        command = [sys.executable, "-m", "cli.main", "dash", "--state-dir", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
        )
        os.close(slave)

    def read(self, seconds: float) -> bytes:
        """What it writes within `seconds`: a terminal that nobody reads would stop it."""
        found, end = b"", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                found += os.read(self.master, 65536)
        return found

    def first(self, text: bytes, seconds: float = 60.0) -> float:
        """Seconds from the start until `text` was painted."""
        while time.monotonic() - self.began < seconds:
            if select.select([self.master], [], [], 1.0)[0]:
                self.seen += os.read(self.master, 65536)
            if text in self.seen:
                return time.monotonic() - self.began
        raise TimeoutError(self.seen[-500:])

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


async def at_rest(folder: Path, cache: Path) -> float:
    """The share of a core that the dashboard takes while nothing happens on the platform."""
    terminal = Terminal(folder, cache)
    try:
        await asyncio.to_thread(terminal.first, b"ALL HEALTHY")
        await asyncio.to_thread(terminal.read, WARM_SECONDS)
        process = psutil.Process(terminal.process.pid)
        before, began = process.cpu_times(), time.monotonic()
        await asyncio.to_thread(terminal.read, REST_SECONDS)
        after, took = process.cpu_times(), time.monotonic() - began
        return ((after.user - before.user) + (after.system - before.system)) / took
    finally:
        terminal.end()


async def repaint(screen: str) -> float:
    """CPU seconds in which all figures of 50 regions and 200 shards change on the screen."""
    desk = Desk(overviews.big(50, 200))
    documents = [desk.document, changed(desk.document)]
    times = []
    async with desk.open((200, 60)) as pilot:
        await pilot.press(screen)
        await desk.draw(pilot)
        for number in range(REPAINTS):
            desk.feed.document = documents[number % 2 == 0]
            before = time.process_time()
            desk.app.tick()
            await pilot.pause()
            times.append(time.process_time() - before)
    return statistics.median(times)


def changed(document: JSON) -> JSON:
    """The same platform, with other figures everywhere."""
    other = deepcopy(document)
    for region in other["regions"]:
        region["traffic"] = {"share": 0.013, "rate": 99.1, "p99Ms": 71.0, "errorRatio": 0.0004}
        region["lagSeconds"] = 0.31
    for shard in other["shards"]:
        shard["epoch"] += 1
        for standby in shard["standbys"]:
            standby["lagSeconds"] = 0.31
    return other


async def first_paint(folder: Path, cache: Path) -> tuple[float, float]:
    """Seconds until the regions of the last time are on the screen, and CPU seconds until then.

    The shortest of several.
    """
    walls, cpus = [], []
    for _ in range(STARTS):
        terminal = Terminal(folder, cache)
        try:
            walls.append(await asyncio.to_thread(terminal.first, b"us-west-2"))
            spent = psutil.Process(terminal.process.pid).cpu_times()
            cpus.append(spent.user + spent.system)
        finally:
            terminal.end()
    return min(walls), min(cpus)


async def main() -> int:
    with TemporaryDirectory(prefix="regionctl-dash-") as scratch:
        folder, cache = state_dir(Path(scratch) / "state"), Path(scratch) / "cache"
        async with served(folder) as address:
            port = int(address.rpartition(":")[2])
            state = {"format": 1, "topology": "two-regions", "portOffset": port - 18000}
            (folder / "state.json").write_text(json.dumps(state))
            async with Client(address, state_dir=folder) as client:
                operation = await client.start("provision", {})
                async for _ in client.follow(operation["id"]):
                    pass
            figures = [("CPU at rest, 2 regions", await at_rest(folder, cache), REST_LIMIT, "%")]
            wall, cpu = await first_paint(folder, cache)
            figures.append(("first paint", wall, FIRST_LIMIT, "ms"))
            figures.append(("first paint, CPU", cpu, FIRST_LIMIT, "ms"))
    for name, key in (("overview", "1"), ("data", "3")):
        took = await repaint(key)
        figures.append((f"repaint of 50 x 200, {name}", took, REPAINT_LIMIT, "ms"))
    over = 0
    rows = ["| figure | measured | limit |", "|---|---|---|"]
    for name, figure, limit, unit in figures:
        scale = 100 if unit == "%" else 1000
        over += figure > limit
        row = (name, f"{figure * scale:.1f} {unit}", f"{limit * scale:.1f} {unit}")
        rows.append(f"| {' | '.join(row)} |")
        print(f"{row[0]:<28} {row[1]:>9} of {row[2]:>9} {'over' if figure > limit else 'ok'}")
    results.replace(TITLE, "\n".join((TEXT, "", *rows)))
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
