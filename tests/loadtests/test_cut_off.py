"""What is under way when a run is ended is in its record."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.arrivals import Segment
from tests.loadtests.shots import STEADY_RUN, Shot, patient, samples
from tests.loadtests.target import open_target

pytestmark = pytest.mark.process


def test_a_request_under_way_when_the_run_is_ended_counts_with_the_time_it_has_taken(
    tmp_path: Path,
) -> None:
    plan = replace(STEADY_RUN, segments=(Segment("constant", 20, 20, 60),), timeout=60.0)
    with open_target() as target:
        shot = Shot(tmp_path, plan, target.url, "--workers", 1, "--raw", *patient())
        shot.until(lambda line: line.get("ok", 0) > 0)
        target.freeze(600.0)
        shot.until(lambda line: line.get("inFlight", 0) > 20)
        shot.process.send_signal(signal.SIGINT)
        _, run = shot.end()
    answered = sum(each["ok"] for each in run["endpoints"])
    cut = sum(each["errors"] for each in run["endpoints"])
    assert run["partial"]
    assert cut > 20
    assert answered + cut == run["offered"]["started"]
    assert {each["kind"] for each in run["errors"] if "(whole)" not in each["endpoint"]} == {
        "cut off"
    }
    waited = [int(each["endNs"]) - int(each["startNs"]) for each in samples(tmp_path)]
    assert max(waited) > 1e9
