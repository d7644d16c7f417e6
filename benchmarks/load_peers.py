"""What the load generator says of a constant latency, beside its peers: a section of RESULTS.md.

    python benchmarks/load_peers.py [--rounds N] [--delay-ms MS]

One server on the loopback that answers everything after the same time, one run; in each round
everybody asks it in turn. The generator counts from the intended start of each request (open
model), the peers from when they sent it (closed model): a client of plain sockets that shares no
code with the generator, and wrk where it is installed. The peers have few connections, because
theirs come to send at once, and what the last of many waits for the server is no constant latency.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import results
from failover import versions

sys.path.insert(0, str(Path(__file__).parent.parent))

from loadtests.arrivals import STEADY
from tests.loadtests.shots import STEADY_RUN, Shot
from tests.loadtests.target import open_target

TITLE = "A constant latency, by the load generator and by its peers"
PEER = Path(__file__).parent.parent / "tests" / "loadtests" / "peer.py"
PATH = "/api/v1/products"
WITHIN = 0.05
SECONDS = 12
CLIENTS = 4
OURS = "regionctl load (intended start)"
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
# p50 and p99, in milliseconds.
Found = tuple[float, float]


def ours(url: str) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        code, run = Shot(Path(folder), STEADY_RUN, url).end()
        if code or not run["validity"]["valid"]:
            raise SystemExit(f"the load proves nothing: {run['validity']['because']}")
        (row,) = (each for each in run["endpoints"] if each["phase"] == STEADY)
    return row["intendedMs"]["p50"], row["intendedMs"]["p99"]


def sockets(url: str, requests: int) -> Found:
    at = urlsplit(url)
    words = map(str, (PEER, at.hostname, at.port, PATH, CLIENTS, requests))
    said = subprocess.run([sys.executable, *words], capture_output=True, check=True).stdout
    took = sorted(nanoseconds / 1e6 for _, nanoseconds in json.loads(said))
    return took[len(took) // 2], took[math.ceil(len(took) * 0.99) - 1]


def wrk(url: str) -> Found:
    words = ("wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", "--latency", url + PATH)
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(50|99)%\s+(\S+)", said))
    return milliseconds(found["50"]), milliseconds(found["99"])


def milliseconds(text: str) -> float:
    """As wrk prints a time: 812.00us, 100.41ms, 1.02s."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    assert found is not None, text
    return float(found[1]) * UNITS[found[2]]


def document(found: Mapping[str, Sequence[Found]], delay_ms: float) -> str:
    best = {
        name: [min(values) for values in zip(*rounds, strict=True)]
        for name, rounds in found.items()
    }
    lines = [
        f"Written by `benchmarks/load_peers.py` on {datetime.now(UTC):%Y-%m-%d}. A server answers "
        f"after {delay_ms:g} ms.\nThe generator asks it {STEADY_RUN.peak:g} times a second, each "
        f"peer by {CLIENTS} connections, in turn for {SECONDS} s.\n"
        f"{len(found[OURS])} rounds, of which the best counts.",
        "",
        "| who | p50 ms (best; all) | p99 ms (best; all) | the generator's p50, p99 beside it |",
        "|---|---|---|---|",
    ]
    for name, rounds in found.items():
        cells = [
            f"{best[name][index]:.2f} ({', '.join(f'{each[index]:.2f}' for each in rounds)})"
            for index in (0, 1)
        ]
        apart = [f"{best[OURS][index] / best[name][index] - 1:+.1%}" for index in (0, 1)]
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(apart)} |")
    near = all(
        math.isclose(best[OURS][index], best[name][index], rel_tol=WITHIN)
        for name in found
        for index in (0, 1)
    )
    lines += ["", f"Within {WITHIN:.0%} of each: {'yes' if near else 'no'}.", "", versions()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay-ms", type=float, default=40.0)
    asked = parser.parse_args()
    requests = round(SECONDS * 1000 / asked.delay_ms)
    who: dict[str, Callable[[str], Found]] = {
        OURS: ours,
        "plain sockets": lambda url: sockets(url, requests),
    }
    if shutil.which("wrk"):
        who["wrk"] = wrk
    found: dict[str, list[Found]] = {name: [] for name in who}
    with open_target(asked.delay_ms / 1000) as target:
        for number in range(asked.rounds):
            for name, measure in who.items():
                found[name].append(measure(target.url))
                p50, p99 = found[name][-1]
                print(f"round {number + 1} {name}: {p50:.2f}, {p99:.2f} ms", file=sys.stderr)
    text = document(found, asked.delay_ms)
    results.replace(TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
