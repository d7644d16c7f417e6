"""Two load runs side by side: what differs is found, what does not is not."""

from __future__ import annotations

import random
from functools import cache

import pytest

from loadtests import compare
from loadtests.compare import Sampled
from tests.loadtests.runs import JSON, endpoint, run

VALID = {"valid": True, "because": []}


@cache
def made(seed: int, factor: float = 1.0, errors: int = 0, count: int = 4000) -> JSON:
    chance = random.Random(seed)
    latencies = [factor * chance.lognormvariate(2.0, 0.4) for _ in range(count)]
    each = endpoint(intended=latencies, errors=errors)
    return run(each, id=f"load-{seed}", validity=VALID, verdict="passed")


def found(a: JSON, b: JSON) -> dict[str, JSON]:
    items = compare.compare(a, b)["items"]
    return {each["metric"]: each for each in items if each["endpoint"] == "*"}


def test_a_quarter_slower_is_found_and_lies_in_its_interval() -> None:
    rows = found(made(1), made(2, 1.25))
    for name in ("latency.p50", "latency.p95"):
        assert rows[name]["is"] == "slower"
        assert rows[name]["low"] < 0.25 < rows[name]["high"]
        assert rows[name]["change"] == pytest.approx(0.25, abs=0.08)
    assert compare.compare(made(1), made(2, 1.25))["verdict"] == "worse"
    assert compare.compare(made(2, 1.25), made(1))["verdict"] == "better"


def test_two_runs_of_the_same_are_the_same() -> None:
    assert compare.compare(made(1), made(3))["verdict"] == "the same"
    assert compare.compare(made(1), made(1))["verdict"] == "the same"


def test_more_errors_are_found() -> None:
    rows = found(made(1), made(1, 1.0, 60))
    assert rows["errors.ratio"]["is"] == "more"
    assert rows["errors.ratio"]["low"] < 0.015 < rows["errors.ratio"]["high"]


def test_the_interval_is_that_of_a_bootstrap_that_draws_every_sample_again() -> None:
    chance = random.Random(5)
    values = sorted(chance.lognormvariate(2.0, 0.4) for _ in range(400))
    short = Sampled(tuple(values), tuple(range(1, 401)), 1.0)
    quick = sorted(short.redrawn(0.95, chance) for _ in range(2000))
    whole = sorted(sorted(chance.choices(values, k=400))[379] for _ in range(2000))
    for share in (0.025, 0.5, 0.975):
        assert quick[int(share * 2000)] == pytest.approx(whole[int(share * 2000)], rel=0.03)


def test_seconds_that_resemble_the_one_before_widen_the_interval() -> None:
    calm, waves = made(1), dict(made(1))
    waves["timeline"] = [
        {**each, "p99Ms": 10.0 if each["t"] % 20 < 10 else 30.0} for each in calm["timeline"]
    ]
    assert compare.independent(waves, "p99Ms") < 0.2 < compare.independent(calm, "p99Ms")
    narrow, wide = (found(each, made(3))["latency.p95"] for each in (calm, waves))
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]


def test_too_few_samples_for_a_quantile_are_not_compared() -> None:
    assert "latency.p99" not in found(made(1, count=500), made(2, count=500))
    assert "latency.p50" in found(made(1, count=500), made(2, count=500))


def test_nothing_is_said_of_an_invalid_run_and_what_differs_is_noted() -> None:
    other = {**made(2), "validity": {"valid": False, "because": ["late"]}, "profile": "peak"}
    told = compare.compare(made(1), other)
    assert (told["verdict"], told["items"]) == ("invalid", [])
    assert any("profile: baseline before, peak after" in note for note in told["notes"])
