"""What a backup costs those who order meanwhile: a section of benchmarks/RESULTS.md.

    python benchmarks/backup_overhead.py [--rounds N] [--seconds S] [--rate R] [--state-dir DIR]

One platform, one run. Windows of the same steady open load take turns: one without, one while full
backups of all databases are taken, one after the other. Between windows all events come to rest.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import load
import results
import uvloop
from bench_platform import Platform, started
from failover import versions
from request_path import WARM_SECONDS, WIDTH, orders, token, users
from restore_copy import FILL, ORDERS, SIZE, USERS

TITLE = "Orders while a backup is taken"
BAR = 0.20
CEILING_SECONDS = 8.0
P99 = 0.99


@dataclass(frozen=True)
class Windows:
    """Outcomes of the windows without a backup and with one, in their order; `taken` full backups
    of all databases were completed in the latter. `rate`: requests a second."""

    without: Sequence[load.Outcome]
    during: Sequence[load.Outcome]
    taken: int
    rate: float

    @property
    def overhead(self) -> float:
        return pooled(self.during, P99) / pooled(self.without, P99) - 1


def pooled(outcomes: Sequence[load.Outcome], share: float) -> float:
    """Seconds, of all windows' requests together."""
    seconds = [each for outcome in outcomes for each in outcome.seconds]
    return load.Outcome(seconds).percentile(share)


async def measure(platform: Platform, asked: argparse.Namespace) -> Windows:
    for shard in platform.shards():
        await fill(shard, asked.megabytes)
    async with httpx.AsyncClient(base_url=platform.entry, verify=platform.tls, timeout=30) as http:
        headers = {"authorization": f"Bearer {await token(platform, http)}"}
        place = orders(platform.entry, headers, await users(http, headers))
    await back_up(platform)  # none is due by itself any more
    rate = asked.rate or await half_the_ceiling(platform, place)
    without, during, taken = [], [], 0
    for number in range(asked.rounds):
        await platform.settled()
        without.append(await window(platform, place, rate, asked.seconds))
        await platform.settled()
        stop = asyncio.Event()
        backups = asyncio.ensure_future(back_up_until(platform, stop))
        during.append(await window(platform, place, rate, asked.seconds))
        stop.set()
        taken += await backups
        pair = [f"{1000 * each[-1].percentile(P99):.1f} ms" for each in (without, during)]
        print(f"round {number + 1}: p99 {pair[0]}, with backups {pair[1]}", file=sys.stderr)
    return Windows(without, during, taken, rate)


async def fill(shard: dict[str, Any], megabytes: int) -> None:
    """The shard is of that size at least. Nobody asks for these rows, so slots are no matter."""
    connection = await asyncpg.connect(**shard)
    try:
        await connection.execute("SET session_replication_role = replica")
        first = 1
        while await connection.fetchval(SIZE) < megabytes << 20:
            for statement in FILL:
                numbers = {"first": first, "last": first + USERS - 1, "orders": ORDERS}
                await connection.execute(statement.format(**numbers), timeout=600)
            first += USERS
    finally:
        await connection.close()


async def half_the_ceiling(platform: Platform, place: load.Source) -> float:
    for seconds in (WARM_SECONDS, CEILING_SECONDS):
        outcome = await load.closed(platform.target, place, width=WIDTH, seconds=seconds)
    return outcome.rate / 2


async def window(
    platform: Platform, place: load.Source, rate: float, seconds: float
) -> load.Outcome:
    outcome = await load.opened(platform.target, place, rate=rate, seconds=seconds)
    if outcome.bad:
        raise SystemExit(f"requests failed: {outcome.bad}")
    return outcome


async def back_up_until(platform: Platform, stop: asyncio.Event) -> int:
    """How many full backups of all databases were taken, one after the other."""
    taken = 0
    while not stop.is_set():
        await back_up(platform)
        taken += 1
    return taken


async def back_up(platform: Platform) -> None:
    await asyncio.to_thread(platform.run, "backup", "create", "--kind", "full")


def document(found: Windows, seconds: float, megabytes: int) -> str:
    lines = ["| windows | p50 ms | p99 ms (all; each) |", "|---|---|---|"]
    for name, outcomes in (("without", found.without), ("during backups", found.during)):
        each = ", ".join(f"{1000 * outcome.percentile(P99):.1f}" for outcome in outcomes)
        p50, p99 = (1000 * pooled(outcomes, share) for share in (0.5, P99))
        lines.append(f"| {name} | {p50:.1f} | {p99:.1f} ({each}) |")
    table = "\n".join(lines)
    return f"""\
Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {len(found.without)} rounds of two windows
of {seconds:g} s each, {found.rate:.0f} orders a second.

{table}

A backup raises the p99 of POST order by {100 * found.overhead:.0f} % (bar: {100 * BAR:.0f} %).

## Method

The platform is a fresh `regionctl up` whose shards have {megabytes} MB each. Orders are placed at
half the rate that a closed loop got before (unless --rate says otherwise), in
an open loop (Poisson), timed from the planned moment, and all of them were answered 2xx. In every
other window `regionctl backup create --kind full` runs all the time: {found.taken} times the
catalog and both shards were copied, verified, sealed and uploaded. A real platform is backed up
once a day; the figure is what it costs while it lasts. Between windows all events come to rest.

{versions()}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, help="orders a second; default: half the ceiling")
    parser.add_argument("--megabytes", type=int, default=256, help="of each shard")
    parser.add_argument("--state-dir", type=Path, help="use this platform; nothing is written")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    regionctl = Path(sys.executable).parent / "regionctl"
    if asked.state_dir:
        found = uvloop.run(measure(Platform(asked.state_dir, regionctl), asked))
        print(document(found, asked.seconds, asked.megabytes))
        return
    with started(regionctl) as platform:
        found = uvloop.run(measure(platform, asked))
    text = document(found, asked.seconds, asked.megabytes)
    print(text)
    results.replace(TITLE, text)


if __name__ == "__main__":
    main()
