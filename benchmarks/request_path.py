"""The order path beside the least program that does the same: a section of benchmarks/RESULTS.md.

    python benchmarks/request_path.py [--rounds N] [--seconds S]

One platform, one run. The peer (`minimal.py`) stands behind the very same edge and gateways: their
endpoints for `orders` are pointed to it and back. Rounds alternate between the two, and after each
round of orders the events that it caused are waited for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import load
import results
import uvloop
from bench_platform import Platform, minimal, started
from failover import versions

TITLE = "The order path beside a minimal handler"
WIDTH = 64
USERS = 64
WARM_SECONDS = 2.0


@dataclass(frozen=True)
class Run:
    outcome: load.Outcome
    cpu: Mapping[str, float]

    @property
    def answered(self) -> int:
        return len(self.outcome.seconds)


async def token(platform: Platform, http: httpx.AsyncClient) -> str:
    document = json.loads((platform.paths.control / "clients" / "probe.json").read_text())
    answer = await http.post(
        "/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(document["client_id"], document["client_secret"]),
    )
    answer.raise_for_status()
    return str(answer.json()["access_token"])


async def users(http: httpx.AsyncClient, headers: Mapping[str, str]) -> list[str]:
    async def register(number: int) -> str:
        key = secrets.token_hex(8)
        body = {"email": f"{key}@example.org", "name": f"Load {number}", "password": key * 2}
        answer = await http.post(
            "/api/v1/users", json=body, headers={**headers, "Idempotency-Key": key}
        )
        answer.raise_for_status()
        return str(answer.json()["id"])

    return [await register(number) for number in range(USERS)]


def orders(entry: httpx.URL, headers: Mapping[str, str], owners: Sequence[str]) -> load.Source:
    """Each call is another order, of another user."""
    head = {"host": entry.netloc.decode(), **headers}
    run = secrets.token_hex(4)
    numbers = itertools.count()
    bodies = [
        json.dumps({"user_id": user, "items": [{"sku": "MUG-ONCALL", "quantity": 1}]}).encode()
        for user in owners
    ]

    def make() -> bytes:
        n = next(numbers)
        key = {"idempotency-key": f"{run}-{n}"}
        return load.request("POST", "/api/v1/orders", head | key, bodies[n % len(bodies)])

    return make


def reads(entry: httpx.URL, headers: Mapping[str, str], ids: Sequence[str]) -> load.Source:
    head = {"host": entry.netloc.decode(), **headers}
    requests = [load.request("GET", f"/api/v1/orders/{id}", head) for id in ids]
    turn = itertools.cycle(requests)
    return lambda: next(turn)


async def measured(platform: Platform, source: load.Source, seconds: float) -> Run:
    """A closed loop after a warm-up, with the processor time that each part of the path used."""
    await load.closed(platform.target, source, width=WIDTH, seconds=WARM_SECONDS)
    before, own = platform.cpu(), time.process_time()
    outcome = await load.closed(platform.target, source, width=WIDTH, seconds=seconds)
    after = platform.cpu()
    cpu = {name: after[name] - before.get(name, 0.0) for name in after}
    cpu["client"] = time.process_time() - own
    if outcome.bad:
        raise SystemExit(f"requests failed: {outcome.bad}")
    return Run(outcome, cpu)


@dataclass(frozen=True)
class Figures:
    """`ceilings` by what was asked of whom: the runs of every round."""

    ceilings: Mapping[str, Sequence[Run]]
    half: load.Outcome
    half_rate: float
    settle_seconds: float
    megabytes: float

    def rate(self, name: str) -> float:
        return statistics.median(run.outcome.rate for run in self.ceilings[name])


POST, PEER_POST, GET, PEER_GET = "POST order", "POST minimal", "GET order", "GET bare"


async def measure(platform: Platform, rounds: int, seconds: float) -> Figures:
    ceilings: dict[str, list[Run]] = defaultdict(list)
    settle: list[float] = []
    async with (
        httpx.AsyncClient(base_url=platform.entry, verify=platform.tls, timeout=30) as http,
        minimal(platform) as peers,
    ):
        headers = {"authorization": f"Bearer {await token(platform, http)}"}
        owners = await users(http, headers)
        place = orders(platform.entry, headers, owners)
        ids = [await ordered(http, headers, owner) for owner in owners]
        read = reads(platform.entry, headers, ids)
        settle.append(await platform.settled())
        for _ in range(rounds):
            ceilings[GET].append(await measured(platform, read, seconds))
            ceilings[POST].append(await measured(platform, place, seconds))
            settle.append(await platform.settled())
            async with platform.peer_in_place(peers):
                ceilings[PEER_GET].append(await measured(platform, read, seconds))
                ceilings[PEER_POST].append(await measured(platform, place, seconds))
            report(ceilings)
        rate = statistics.median(run.outcome.rate for run in ceilings[POST]) / 2
        half = await load.opened(platform.target, place, rate=rate, seconds=3 * seconds)
        if half.bad:
            raise SystemExit(f"requests failed at half the ceiling: {half.bad}")
        settle.append(await platform.settled())
    return Figures(ceilings, half, rate, max(settle), platform.memory())


async def ordered(http: httpx.AsyncClient, headers: Mapping[str, str], owner: str) -> str:
    body = {"user_id": owner, "items": [{"sku": "MUG-ONCALL", "quantity": 1}]}
    key = {"Idempotency-Key": secrets.token_hex(8)}
    answer = await http.post("/api/v1/orders", json=body, headers={**headers, **key})
    answer.raise_for_status()
    return str(answer.json()["id"])


def report(ceilings: Mapping[str, Sequence[Run]]) -> None:
    last = {name: f"{runs[-1].outcome.rate:.0f}/s" for name, runs in ceilings.items()}
    print(" ".join(f"{name}: {rate}" for name, rate in last.items()), file=sys.stderr)


def ratios(figures: Figures) -> str:
    lines = [
        "| what | ceiling, requests/s (median; all) | ratio | target |",
        "|---|---|---|---|",
    ]
    for own, peer, target in ((POST, PEER_POST, 0.6), (GET, PEER_GET, 0.5)):
        for name in (own, peer):
            runs = ", ".join(f"{run.outcome.rate:.0f}" for run in figures.ceilings[name])
            ratio = f"{figures.rate(own) / figures.rate(peer):.2f}" if name == own else "1"
            aim = f">= {target}" if name == own else ""
            lines.append(f"| {name} | {figures.rate(name):.0f} ({runs}) | {ratio} | {aim} |")
    return "\n".join(lines)


def profile(figures: Figures) -> str:
    """Microseconds of processor time a request, by what used them; medians over the rounds."""
    names = list(figures.ceilings)
    every = [run for runs in figures.ceilings.values() for run in runs]
    parts = sorted(
        {
            part
            for run in every
            for part, used in run.cpu.items()
            if used > 0.01 * sum(run.cpu.values())
        }
    )
    lines = ["| µs a request | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for part in (*parts, "sum"):
        cells = []
        for name in names:
            spent = [
                (sum(run.cpu.values()) if part == "sum" else run.cpu.get(part, 0.0)) / run.answered
                for run in figures.ceilings[name]
            ]
            cells.append(f"{statistics.median(spent) * 1e6:.0f}")
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(figures: Figures, rounds: int, seconds: float) -> str:
    p50, p99 = (figures.half.percentile(share) * 1000 for share in (0.5, 0.99))
    return f"""\
Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {rounds} rounds of {seconds:g} s each, \
{WIDTH} connections over TLS.

{ratios(figures)}

At half the ceiling ({figures.half_rate:.0f} orders/s, open loop, Poisson, {3 * seconds:g} s, timed
from the planned moment): p50 {p50:.1f} ms, p99 {p99:.1f} ms (target: p99 <= 100 ms). Every request
was answered 2xx. The events of a round of orders were all handled {figures.settle_seconds:.0f} s
after it at the latest. Memory of the whole platform afterwards: {figures.megabytes:.0f} MB (PSS).

## Where the time goes

{profile(figures)}

Parts that used a hundredth or more; the sum has all. *PostgreSQL* counts primaries, standbys and
the replicas of the other region. The services that handle events (payments, notifications and the
stand-ins at nice 19) and the control plane share the two cores with the requests: what they use is
taken from the ceiling. *client* is the load generator.

## Method

{METHOD}

{versions()}
"""


METHOD = """\
The platform is a fresh `regionctl up` (two regions, both shards with a synchronous standby in the
other zone and an asynchronous replica in the other region). The peer (`benchmarks/minimal.py`) is
two uvicorn processes with the same loop and parser; it makes the same rows (order, line, event,
with the same indexes) in one asyncpg statement on the same servers, which wait for the same
synchronous standbys. It stands behind the same edge and gateways: their endpoints for orders are
pointed to it, so TLS, token check, retries and health checks are the same. It checks no fence, no
idempotency digest and no rate limit, and its events are handled by nobody."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The order path beside a minimal handler.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--state-dir", type=Path, help="use this platform; nothing is written")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    regionctl = Path(sys.executable).parent / "regionctl"
    if asked.state_dir:
        platform = Platform(asked.state_dir, regionctl)
        figures = uvloop.run(measure(platform, asked.rounds, asked.seconds))
        print(document(figures, asked.rounds, asked.seconds))
        return
    with started(regionctl) as platform:
        figures = uvloop.run(measure(platform, asked.rounds, asked.seconds))
    text = document(figures, asked.rounds, asked.seconds)
    print(text)
    results.replace(TITLE, text)
    print("written: benchmarks/RESULTS.md", file=sys.stderr)


if __name__ == "__main__":
    main()
