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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from loadtests.arrivals import STEADY, due
from loadtests.histograms import needed
from tests.loadtests.shots import STEADY_RUN, Shot, judge, patient, read, samples
from tests.loadtests.target import Target, open_target

pytestmark = [pytest.mark.process, pytest.mark.alone]

DELAY = 0.1
# The request that freezes the server, well within the steady phase, and for how many seconds.
FREEZE = (900, 2.0)
# Of a second: for a 99th percentile that is not its longest answer.
FEWEST = 150
PEER = Path(__file__).with_name("peer.py")


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Target]]:
    """Two workers, a server that takes 0.1 s for everything, every sample kept."""
    folder = tmp_path_factory.mktemp("steady")
    with open_target(DELAY) as target:
        shot = Shot(folder, STEADY_RUN, target.url, "--workers", 2, "--raw", *patient())
        assert shot.end()[0] == 0
        yield folder, target


def test_what_is_offered_is_what_was_planned(steady: tuple[Path, Target]) -> None:
    run, planned = read(steady[0]), due(STEADY_RUN)
    assert run["offered"] == {"planned": planned, "started": planned, "dropped": 0}
    assert run["generator"]["missing"] == 0
    assert sum(each["started"] for each in run["timeline"]) == planned
    assert sum(each["ok"] for each in run["endpoints"]) == planned
    # The server has been asked for the list once more, before.
    assert steady[1].count["products"] == planned + 1


def test_percentiles_agree_with_those_of_the_samples_within_a_hundredth(
    steady: tuple[Path, Target],
) -> None:
    latencies: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for each in samples(steady[0]):
        intended, start, end = (int(each[key]) for key in ("intendedNs", "startNs", "endNs"))
        times = ((end - intended) / 1e6, (end - start) / 1e6)
        latencies[each["endpoint"], each["phase"]].append(times)
    rows = read(steady[0])["endpoints"]
    assert {(row["name"], row["phase"]) for row in rows} == set(latencies)
    for row in rows:
        both = latencies[row["name"], row["phase"]]
        for index, kind in enumerate(("intendedMs", "serviceMs")):
            for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
                wanted = at_rank([times[index] for times in both], percent)
                assert math.isclose(row[kind][name], wanted, rel_tol=0.01)


def test_the_same_profile_without_a_freeze_passes_the_p99_gate(steady: tuple[Path, Target]) -> None:
    code, run = judge(steady[0])
    assert (code, run["verdict"], run["validity"]["because"]) == (0, "passed", [])
    assert gates(run) == {"latency.p99": True, "errors.ratio": True}


def test_a_constant_latency_is_found_as_a_client_of_plain_sockets_finds_it(
    steady: tuple[Path, Target],
) -> None:
    at = urlsplit(steady[1].url)
    words = (PEER, at.hostname, at.port, "/api/v1/products", 24, 50)
    said = subprocess.run([sys.executable, *map(str, words)], capture_output=True, check=True)
    ours, peers = shot_at(steady[0]), json.loads(said.stdout)
    for percent in (50, 99):
        assert math.isclose(best(ours, percent), best(peers, percent), rel_tol=0.05), percent


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_constant_latency_is_found_as_wrk_finds_it(steady: tuple[Path, Target]) -> None:
    words = ("wrk", "-t1", "-c8", "-d2s", "--latency", f"{steady[1].url}/api/v1/products")
    rounds = [
        subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(3)
    ]
    wanted = min(median(said) for said in rounds)
    assert math.isclose(best(shot_at(steady[0]), 50), wanted, rel_tol=0.05), rounds


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
