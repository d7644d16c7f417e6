"""What a load run says of a server's latency is what it was: nothing else may run beside it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from loadtests.arrivals import STEADY, due
from loadtests.histograms import needed
from loadtests.validity import LAG_LIMIT_MS
from tests.loadtests.shots import STEADY_RUN, Shot, judge, patient, read, running, samples
from tests.loadtests.target import Target, open_target

pytestmark = [pytest.mark.process, pytest.mark.alone]

DELAY = 0.1
# The request that freezes the server, well within the steady phase, and for how many seconds.
FREEZE = (900, 2.0)
# Samples of a second: for a 99th percentile that is not its longest answer.
FEWEST = 120
PEER = Path(__file__).with_name("peer.py")


@dataclass(frozen=True)
class Steady:
    """A run and what the peer saw of the same server meanwhile: [when, how long] in ns."""

    folder: Path
    target: Target
    peers: list[tuple[int, int]]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steady]:
    """Two workers, a server that takes 0.1 s for everything, every sample kept."""
    folder = tmp_path_factory.mktemp("steady")
    with open_target(DELAY) as target:
        shot = Shot(folder, STEADY_RUN, target.url, "--workers", 2, "--raw", *patient())
        shot.until(running)
        at = urlsplit(target.url)
        words = map(str, (PEER, at.hostname, at.port, "/api/v1/users/1", 16, 70))
        said = subprocess.run([sys.executable, *words], capture_output=True, check=True)
        assert shot.end()[0] == 0
        yield Steady(folder, target, json.loads(said.stdout))


def test_what_is_offered_is_what_was_planned(steady: Steady) -> None:
    run, planned = read(steady.folder), due(STEADY_RUN)
    assert run["offered"] == {"planned": planned, "started": planned, "dropped": 0}
    assert run["generator"]["missing"] == 0
    assert sum(each["started"] for each in run["timeline"]) == planned
    assert sum(each["ok"] for each in run["endpoints"]) == planned
    # The server has been asked for the list once more, before.
    assert steady.target.count["products"] == planned + 1


def test_a_worker_runs_before_others_where_it_may(steady: Steady) -> None:
    """As root, and who else has the capability; elsewhere as everybody does."""
    tried = subprocess.run([sys.executable, "-c", "import os; os.nice(-10)"], check=False)
    ahead = 10 if tried.returncode == 0 else 0
    assert read(steady.folder)["generator"]["niceness"] == max(os.nice(0) - ahead, -20)


def test_percentiles_agree_with_those_of_the_samples_within_a_hundredth(
    steady: Steady,
) -> None:
    latencies: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for each in samples(steady.folder):
        intended, start, end = (int(each[key]) for key in ("intendedNs", "startNs", "endNs"))
        times = ((end - intended) / 1e6, (end - start) / 1e6)
        latencies[each["endpoint"], each["phase"]].append(times)
    rows = read(steady.folder)["endpoints"]
    assert {(row["name"], row["phase"]) for row in rows} == set(latencies)
    for row in rows:
        both = latencies[row["name"], row["phase"]]
        for index, kind in enumerate(("intendedMs", "serviceMs")):
            for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
                wanted = at_rank([times[index] for times in both], percent)
                assert math.isclose(row[kind][name], wanted, rel_tol=0.01)


def test_the_same_profile_without_a_freeze_passes_the_p99_gate(steady: Steady) -> None:
    code, run = judge(steady.folder)
    assert (code, run["verdict"], run["validity"]["because"]) == (0, "passed", [])
    assert gates(run) == {"latency.p99": True, "errors.ratio": True}


def test_a_constant_latency_is_found_as_a_client_of_plain_sockets_finds_it(
    steady: Steady,
) -> None:
    ours = shot_at(steady.folder)
    assert math.isclose(best(ours, 50), best(steady.peers, 50), rel_tol=0.05)
    if (lag := read(steady.folder)["generator"]["lagP99Ms"]) > LAG_LIMIT_MS:
        pytest.skip(f"p99: the machine was busy, requests began {lag} ms late: that proves nothing")
    assert math.isclose(best(ours, 99), best(steady.peers, 99), rel_tol=0.05)


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_constant_latency_is_found_as_wrk_finds_it(steady: Steady) -> None:
    words = ("wrk", "-t1", "-c8", "-d2s", "--latency", f"{steady.target.url}/api/v1/products")
    rounds = [
        subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(3)
    ]
    wanted = min(median(said) for said in rounds)
    assert math.isclose(best(shot_at(steady.folder), 50), wanted, rel_tol=0.05), rounds


def test_a_freeze_of_two_seconds_misses_the_p99_gate(tmp_path: Path) -> None:
    with open_target() as target:
        target.freeze_at = FREEZE
        shot = Shot(tmp_path, STEADY_RUN, target.url, *patient())
        assert shot.end()[0] == 0
    code, run = judge(tmp_path)
    assert (code, run["verdict"]) == (10, "failed")
    assert gates(run) == {"latency.p99": False, "errors.ratio": True}
    (row,) = (row for row in run["endpoints"] if row["phase"] == STEADY)
    assert row["ok"] >= needed(99)
    assert row["intendedMs"]["p99"] > 1500


def test_clients_that_wait_for_their_answers_hide_the_same_freeze_from_the_same_gate(
    tmp_path: Path,
) -> None:
    """Coordinated omission (G. Tene, "How NOT to measure latency", 2015): while the server is
    frozen such clients ask nothing, so that few answers are slow, one of each client."""
    words = (
        "--headless",
        "--only-summary",
        "-u",
        "4",
        "-r",
        "4",
        "-f",
        "tests/loadtests/closed.py",
    )
    with open_target() as target:
        target.freeze_at = FREEZE
        ended = subprocess.run(
            [sys.executable, "-m", "locust", *words, "--host", target.url],
            env={**os.environ, "CLOSED_OUT": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert target.asked > FREEZE[0], ended.stderr
    code, run = judge(tmp_path)
    assert (code, run["verdict"]) == (0, "passed"), ended.stderr
    (row,) = (row for row in run["endpoints"] if row["phase"] == STEADY)
    assert row["ok"] >= needed(99)
    assert row["intendedMs"]["max"] > 1500


def gates(run: dict[str, Any]) -> dict[str, bool]:
    return {each["metric"]: each["met"] for each in run["gates"]}


def shot_at(folder: Path) -> list[tuple[int, int]]:
    """Of each request of the steady phase: when it was meant to start, and how long after that
    its answer was there, in nanoseconds."""
    return [
        (int(each["intendedNs"]), int(each["endNs"]) - int(each["intendedNs"]))
        for each in samples(folder)
        if each["phase"] == STEADY
    ]


def best(all_: Sequence[tuple[int, int]], percent: float) -> float:
    """The percentile, in ms, of the second in which it was lowest: what else the machine does
    makes a latency longer, never shorter, and leaves some second alone."""
    seconds: dict[int, list[float]] = defaultdict(list)
    for when, took in all_:
        seconds[when // 1_000_000_000].append(took / 1e6)
    whole = [each for each in seconds.values() if len(each) >= FEWEST]
    return min(at_rank(each, percent) for each in whole)


def median(said: str) -> float:
    """In ms; wrk prints it as 812.00us, 100.41ms or 1.02s."""
    found = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    assert found is not None, said
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def at_rank(values: Sequence[float], percent: float) -> float:
    """By the rank that HdrHistogram takes: the nearest to the share, and not the one above it."""
    return sorted(values)[max(int(percent * len(values) / 100 + 0.5), 1) - 1]
