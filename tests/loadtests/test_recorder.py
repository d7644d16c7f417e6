"""What load workers saw, put together: the same as if one of them had seen it all."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests import profiles
from loadtests.arrivals import Phase
from loadtests.collector import Collector
from loadtests.recorder import ERROR, LIMITED, OK, Recorder, Sample, quantiles, row, step
from loadtests.rephase import begun, rephased

# Making histograms costs a millisecond each.
few = settings(max_examples=12)

PLAN = profiles.named("smoke", 1.0, None, 1)
TIMES = st.floats(0, PLAN.seconds)
LATENCIES = st.floats(1e-5, 20)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    intended = draw(TIMES)
    start = intended + draw(st.floats(0, 1))
    return Sample(
        endpoint=draw(st.sampled_from(["GET /a", "POST /b"])),
        journey=draw(st.sampled_from(["browse", "checkout"])),
        intended=intended,
        start=start,
        end=start + draw(LATENCIES),
        outcome=draw(st.sampled_from([OK, OK, ERROR, LIMITED])),
        kind="",
    )


def seen_by(workers: int, all_: Sequence[Sample], *, twice: bool = False) -> dict[str, Any]:
    """What is collected from so many workers, each of which saw a part; `twice` halfway too."""
    collector = Collector(workers)
    for index in range(workers):
        recorder, name = Recorder(PLAN), f"worker-{index}"
        part = all_[index::workers]
        for number, sample in enumerate(part):
            recorder.request(sample)
            if twice and number == len(part) // 2:
                tell(collector, name, recorder)
        tell(collector, name, recorder, times=2 if twice else 1)
        collector.workers[name].walked = True
    return collector.measured(0)


def tell(collector: Collector, name: str, recorder: Recorder, times: int = 1) -> None:
    """As it arrives from another process."""
    pieces = [json.loads(json.dumps(piece)) for piece in recorder.report()]
    for _ in range(times):
        for piece in pieces:
            collector.add(name, piece)


@few
@given(st.lists(samples(), max_size=25), st.integers(1, 3))
def test_several_workers_together_have_seen_what_one_would_have(
    all_: list[Sample], workers: int
) -> None:
    alone, shared = seen_by(1, all_), seen_by(workers, all_, twice=True)
    for part in ("endpoints", "timeline", "errors"):
        assert shared[part] == alone[part]
    assert shared["generator"]["missing"] == 0


@few
@given(st.lists(samples(), min_size=1, max_size=25))
def test_every_request_is_counted_once_where_it_belongs(all_: list[Sample]) -> None:
    found = seen_by(2, all_)["endpoints"]
    for outcome, key in ((OK, "ok"), (ERROR, "errors"), (LIMITED, "limited")):
        wanted = Counter(
            (each.endpoint, each.journey, PLAN.phase_at(each.intended))
            for each in all_
            if each.outcome == outcome
        )
        counted = {(e["name"], e["journey"], e["phase"]): e[key] for e in found if e[key]}
        assert counted == wanted


@few
@given(st.lists(LATENCIES, min_size=1, max_size=60))
def test_percentiles_of_a_row_are_those_of_the_samples_within_a_thousandth(
    latencies: list[float],
) -> None:
    all_ = [Sample("GET /a", "browse", 20.0, 20.0, 20.0 + each, OK) for each in latencies]
    (row_,) = seen_by(1, all_)["endpoints"]
    ordered = sorted(latencies)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        wanted = ordered[max(int(share * len(ordered) + 0.5), 1) - 1] * 1000
        assert math.isclose(row_["intendedMs"][name], wanted, rel_tol=2e-3, abs_tol=2e-3)
    mean = sum(latencies) / len(latencies) * 1000
    assert math.isclose(row_["intendedMs"]["mean"], mean, rel_tol=1e-3, abs_tol=1e-3)


@given(st.lists(LATENCIES, min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_percentiles_of_a_second_are_right_within_two_hundredths(
    latencies: list[float], share: float
) -> None:
    (found,) = quantiles(Counter(step(each) for each in latencies), (share,))
    wanted = sorted(latencies)[math.ceil(share * len(latencies)) - 1] * 1000
    assert found is not None
    assert math.isclose(found, wanted, rel_tol=0.02, abs_tol=1e-3)


def test_an_error_counts_with_its_time_and_what_met_a_rate_limit_does_not() -> None:
    late = Sample("GET /a", "browse", 20.0, 20.0, 30.0, ERROR, "timeout")
    limited = Sample("GET /a", "browse", 20.0, 20.0, 20.001, LIMITED, "http 429")
    measured = seen_by(1, [late, limited])
    (row_,) = measured["endpoints"]
    assert (row_["ok"], row_["errors"], row_["limited"]) == (0, 1, 1)
    assert math.isclose(row_["intendedMs"]["p50"], 10_000, rel_tol=1e-3)
    assert {each["kind"]: each["count"] for each in measured["errors"]} == {
        "timeout": 1,
        "http 429": 1,
    }


def test_a_worker_that_never_came_to_the_end_is_missing_and_what_it_saw_is_kept() -> None:
    collector = Collector(2)
    for name in ("ended", "lost"):
        recorder = Recorder(PLAN)
        recorder.request(Sample("GET /a", "browse", 20.0, 20.0, 20.1, OK))
        tell(collector, name, recorder)
    collector.workers["ended"].walked = True
    measured = collector.measured(2)
    assert measured["generator"]["missing"] == 1
    assert [each["ok"] for each in measured["endpoints"]] == [2]


@few
@given(st.lists(samples(), max_size=20))
def test_samples_shared_out_to_the_same_phases_give_the_same_rows(all_: list[Sample]) -> None:
    run = {"plan": PLAN.document(), "endpoints": seen_by(1, all_)["endpoints"]}
    columns = ("endpoint", "phase", "intendedNs", "startNs", "endNs", "outcome", "journey")
    lines = [
        dict(zip(columns, map(str, row(each, PLAN.phase_at(each.intended))), strict=True))
        for each in all_
    ]
    again = rephased(run, lines, PLAN.phases)
    for mine, wanted in zip(again["endpoints"], run["endpoints"], strict=True):
        for key in ("name", "journey", "phase", "ok", "errors", "limited"):
            assert mine[key] == wanted[key]
    fault = rephased(run, lines, begun(PLAN.document(), {"fault": 30.0}))
    assert sum(each["ok"] for each in fault["endpoints"] if each["phase"] == "fault") == sum(
        each.outcome == OK and round(each.intended * 1e9) >= 30e9 for each in all_
    )


def test_a_phase_that_begins_ends_the_one_before() -> None:
    found = begun(PLAN.document(), {"fault": 30.0, "recovery": 40.0})
    assert found == [
        Phase("warm-up", 0.0, 10.0),
        Phase("steady", 10.0, 30.0),
        Phase("fault", 30.0, 40.0),
        Phase("recovery", 40.0, 70.0),
    ]
