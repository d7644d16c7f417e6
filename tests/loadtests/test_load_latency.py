"""What a load run says of a server's latency is what it was: nothing else may run beside it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from loadtests.arrivals import STEADY, due
from tests.loadtests.shots import STEADY_RUN, Shot, judge, patient, read, running, samples
from tests.loadtests.target import Target, open_target

pytestmark = [pytest.mark.process, pytest.mark.alone]

DELAY = 0.2


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Target]]:
    """Two workers, a server that takes 0.2 s for everything, every sample kept."""
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


def test_a_constant_latency_is_found_within_a_twentieth(steady: tuple[Path, Target]) -> None:
    (row,) = (row for row in read(steady[0])["endpoints"] if row["phase"] == STEADY)
    assert math.isclose(row["serviceMs"]["p50"], DELAY * 1000, rel_tol=0.05)


def test_a_steady_run_holds_its_gates(steady: tuple[Path, Target]) -> None:
    code, run = judge(steady[0])
    assert (code, run["verdict"], run["validity"]["because"]) == (0, "passed", [])


def test_a_freeze_of_two_seconds_misses_the_gate_and_a_closed_model_would_not_see_it(
    tmp_path: Path,
) -> None:
    with open_target() as target:
        shot = Shot(tmp_path, STEADY_RUN, target.url, "--raw", *patient())
        shot.until(running)
        target.freeze(2.0)
        assert shot.end()[0] == 0
    code, run = judge(tmp_path)
    assert (code, run["verdict"]) == (10, "failed")
    (row,) = (row for row in run["endpoints"] if row["phase"] == STEADY)
    assert row["intendedMs"]["p99"] > 1500
    assert row["errors"] == 0
    assert sum(closed(samples(tmp_path), clients=2)) <= 4


def closed(all_: Sequence[dict[str, str]], clients: int) -> list[bool]:
    """Of the requests that so many clients would have sent, each waiting for its answer before it
    sends again: whether it took longer than 0.5 s."""
    free, slow = [0] * clients, []
    for each in sorted(all_, key=lambda sample: int(sample["startNs"])):
        start, end = int(each["startNs"]), int(each["endNs"])
        client = min(range(clients), key=lambda number: free[number])
        if free[client] <= start:
            free[client] = end
            slow.append(end - start > 0.5e9)
    return slow


def at_rank(values: Sequence[float], percent: float) -> float:
    """By the rank that HdrHistogram takes: the nearest to the share, and not the one above it."""
    return sorted(values)[max(int(len(values) * percent / 100 + 0.5), 1) - 1]
