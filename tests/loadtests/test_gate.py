"""Gates: what a run must hold, judged on recorded histograms."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadtests import budget, gatefile, histograms, judge
from loadtests.gatefile import METRICS, Gate, GateFile, Objective, Unreadable
from tests.loadtests.runs import JSON, endpoint, run

LATENCY = Objective("latency", 0.99, milliseconds=100.0)
ERRORS = Objective("errors", 0.99)
SLICES = Objective("availability", 0.9999, slice_seconds=5.0, slice_target=0.99)

FILE = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: latency}
spec:
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  objectives: [{op: lte, value: 100, target: 0.99}]
x-regionctl:
  gates:
    - {metric: latency.p99, op: "<=", value: 0.1s, where: {phase: steady}}
    - {metric: errors.ratio, op: "<", value: 1%}
"""


def gate(metric: str, op: str, limit: float, **where: str) -> Gate:
    return Gate(metric, op, limit, str(limit), where)


def verdict_of(document: JSON, *gates: Gate, objectives: tuple[Objective, ...] = ()) -> JSON:
    return judge.judged(document, GateFile("slo", gates, objectives))


def calm(seed: int = 1, count: int = 3000) -> list[float]:
    chance = random.Random(seed)
    return [chance.lognormvariate(2.0, 0.5) for _ in range(count)]


def with_freeze(
    latencies: list[float], per_second: int = 50, frozen_ms: float = 2000
) -> list[float]:
    """What intended starts see of a server that stands still for two seconds: a falling ramp."""
    hit = int(per_second * frozen_ms / 1000)
    step = 1000 / per_second
    return [*latencies[hit:], *(frozen_ms - step * number for number in range(hit))]


def test_a_run_within_its_gates_passes() -> None:
    found = verdict_of(
        run(endpoint(intended=calm())),
        gate("latency.p99", "<=", 100.0, phase="steady"),
        gate("errors.ratio", "<=", 0.01),
        gate("arrivals.dropped", "==", 0),
    )
    assert found["verdict"] == "passed"
    assert [each["met"] for each in found["gates"]] == [True, True, True]


def test_a_freeze_of_two_seconds_fails_the_p99_though_the_service_time_never_saw_it() -> None:
    document = run(endpoint(intended=with_freeze(calm()), service=calm()))
    found = verdict_of(document, gate("latency.p99", "<=", 100.0), gate("service.p99", "<=", 100.0))
    assert found["verdict"] == "failed"
    assert [each["met"] for each in found["gates"]] == [False, True]


def test_every_quantile_agrees_with_the_one_counted_from_the_samples() -> None:
    samples = calm(count=30_000)
    document = run(endpoint(intended=samples, service=[each * 2 for each in samples]))
    gates = [gate(name, "<=", 1e9) for name, unit in METRICS.items() if unit == "ms"]
    assert len(gates) == 2 * len(histograms.NAMED)
    ordered = sorted(samples)
    for found in verdict_of(document, *gates)["gates"]:
        kind, _, quantile = found["metric"].partition(".")
        percent = histograms.NAMED[quantile]
        exact = ordered[math.ceil(len(samples) * percent / 100) - 1]
        assert found["value"] == pytest.approx(exact * (2 if kind == "service" else 1), rel=0.01)


def test_the_other_metrics_are_what_the_run_counted() -> None:
    document = run(
        endpoint("create-order", intended=[5.0] * 90 + [9.0] * 10, errors=10),
        endpoint("get-order", intended=[5.0] * 100),
        offered={"planned": 200, "started": 199, "dropped": 1},
        drill={"rtoSeconds": 1.5, "lost": 0},
    )
    gates = [
        gate("errors.ratio", "<=", 0.05),
        gate("errors.ratio", "<=", 0.05, endpoint="create-order"),
        gate("errors.ratio", "==", 0.0, endpoint="get-order", journey="buy"),
        gate("arrivals.dropped", "==", 0),
        gate("offered.ratio", ">=", 0.99),
        gate("rto", "<", 1.5),
        gate("rpo.lost", "==", 0),
    ]
    found = verdict_of(document, *gates)["gates"]
    assert [each["value"] for each in found] == [0.05, 0.1, 0.0, 1, 0.995, 1.5, 0]
    assert [each["met"] for each in found] == [True, False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (gate("latency.p98", "<=", 100.0), "nobody measures"),
        (gate("latency.p99", "<=", 100.0, endpoint="creat-order"), "create-order"),
        (gate("errors.ratio", "<=", 0.01, phase="fault"), "no phase 'fault'"),
        (gate("rto", "<=", 30.0), "drill run"),
        (gate("rto", "<=", 30.0, phase="steady"), "whole run"),
        (gate("budget.spent", "<=", 0.02), "no objectives"),
    ],
)
def test_a_gate_that_gates_nothing_fails_and_says_why(wrong: Gate, told: str) -> None:
    found = verdict_of(run(endpoint(intended=calm())), wrong)
    assert found["verdict"] == "failed"
    assert found["gates"][0]["met"] is False
    assert told in found["gates"][0]["because"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(("samples", "verdict"), [(2999, "invalid"), (3000, "passed")])
def test_a_p99_needs_thirty_samples_above_it(samples: int, verdict: str) -> None:
    found = verdict_of(run(endpoint(intended=[5.0] * samples)), gate("latency.p99", "<=", 100))
    assert found["verdict"] == verdict


def test_a_run_without_samples_is_invalid_not_good() -> None:
    found = verdict_of(run(), gate("errors.ratio", "<=", 0.01), gate("latency.p50", "<=", 9))
    assert found["verdict"] == "invalid"
    assert any("no samples" in why for why in found["validity"]["because"])


def test_an_invalid_run_is_invalid_even_when_a_gate_is_missed_as_well() -> None:
    document = run(
        endpoint(intended=[500.0] * 4000),
        offered={"planned": 3000, "started": 2900, "dropped": 0},
    )
    assert verdict_of(document, gate("latency.p99", "<=", 100))["verdict"] == "invalid"


def test_a_run_that_was_broken_off_is_judged_but_does_not_pass() -> None:
    document = run(endpoint(intended=calm()), partial=True)
    found = verdict_of(document, gate("latency.p99", "<=", 100))
    assert found["verdict"] == "invalid"
    assert found["gates"][0]["met"] is True


def test_the_warm_up_counts_nowhere_unless_a_gate_names_it() -> None:
    document = run(
        endpoint(phase="warm-up", intended=[900.0] * 5000),
        endpoint(phase="steady", intended=[5.0] * 5000),
        phases=[
            {"name": "warm-up", "from": 0, "to": 30},
            {"name": "steady", "from": 30, "to": 60},
        ],
    )
    found = verdict_of(
        document,
        gate("latency.p99", "<=", 100),
        gate("latency.p99", "<=", 100, phase="warm-up"),
        objectives=(LATENCY,),
    )
    assert [each["met"] for each in found["gates"]] == [True, False]
    assert {each["phase"] for each in found["budget"]} == {"*", "steady"}


def test_judging_twice_gives_the_same(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(FILE)
    (tmp_path / "run.json").write_text(json.dumps(run(endpoint(intended=[5.0] * 10))))
    assert judge.main([str(tmp_path), "--gate", str(file)]) == 9
    once = (tmp_path / "run.json").read_text()
    assert judge.main([str(tmp_path), "--gate", str(file)]) == 9
    assert (tmp_path / "run.json").read_text() == once


def test_the_exit_code_is_that_of_the_verdict(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(FILE)
    for latency, code in ((5.0, 0), (500.0, 10)):
        (tmp_path / "run.json").write_text(json.dumps(run(endpoint(intended=[latency] * 4000))))
        assert judge.main([str(tmp_path), "--gate", str(file)]) == code
    file.write_text("no: slo")
    assert judge.main([str(tmp_path), "--gate", str(file)]) == 2
    assert judge.main([str(tmp_path / "nowhere")]) == 2


def test_units_are_read_as_the_metric_measures() -> None:
    gates = gatefile.parse(FILE, "slo.yaml").gates
    assert [(each.limit, each.written) for each in gates] == [(100.0, "0.1s"), (0.01, "1%")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("0.1s", "3%"), "does not fit latency.p99"),
        (('"<="', '"=<"'), "op '=<'"),
        (("{phase: steady}", "{zone: a}"), "where has zone"),
        (("metric: latency.p99, ", ""), "'metric' is missing"),
        (("target: 0.99", "target: 1"), "leaves no budget"),
        (("30d", "a month"), "is no time"),
        (("kind: SLO", "kind: SLI"), "no document of kind SLO"),
        (("metadata: {", "metadata: {{"), "is not YAML"),
        (("gates:", "gates: 7 #"), "gates: 7"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_the_place_of_it(
    change: tuple[str, str], told: str
) -> None:
    text = FILE.replace(*change) if told != "gates: 7" else "kind: SLO\nx-regionctl: {gates: 7}"
    with pytest.raises(Unreadable) as caught:
        gatefile.parse(text, "slo.yaml")
    assert (told if told != "gates: 7" else "must be a list") in str(caught.value)
    assert gatefile.lint(text, "slo.yaml")


def test_a_burn_that_cannot_happen_is_refused() -> None:
    burn = "  burn: [{severity: page, factor: 14.4, long: 1h, short: 5m}]\n"
    assert gatefile.lint(FILE + burn, "slo.yaml") == []
    text = FILE.replace("target: 0.99", "target: 0.9") + burn
    (fault,) = gatefile.lint(text, "slo.yaml")
    assert "14.4" in fault
    assert "never alerts" in fault
    with pytest.raises(Unreadable):
        gatefile.parse(text, "slo.yaml")


def test_lint_finds_unknown_metrics_that_a_run_keeps_in_order_to_fail() -> None:
    text = FILE.replace("latency.p99", "latency.p98")
    assert gatefile.parse(text, "slo.yaml").gates[0].metric == "latency.p98"
    (fault,) = gatefile.lint(text, "slo.yaml")
    assert "latency.p98" in fault
    assert gatefile.lint(FILE.partition("x-regionctl")[0], "slo.yaml")


@given(
    bad=st.integers(0, 500),
    counted=st.integers(500, 10_000),
    target=st.floats(0.5, 0.9999),
    seconds=st.floats(1, 1e5),
)
def test_a_burn_of_one_for_the_whole_window_spends_the_whole_budget(
    bad: int, counted: int, target: float, seconds: float
) -> None:
    burning = budget.burn(bad, counted, target)
    assert burning == pytest.approx(bad / (counted * (1 - target)))
    spent = budget.share(burning, seconds, 2_592_000)
    assert spent == pytest.approx((burning or 0) * seconds / 2_592_000)
    assert budget.share(1.0, 2_592_000, 2_592_000) == 1.0


@pytest.mark.parametrize(
    ("phases", "rto", "verdict"),
    [
        (["fault", "recovery"], 1.5, "passed"),
        (["fault"], 1.5, "invalid"),
        ([], 1.5, "invalid"),
        (["fault"], None, "passed"),
    ],
)
def test_a_drills_load_that_ended_before_the_recovery_says_nothing(
    phases: list[str], rto: float | None, verdict: str
) -> None:
    marks = [{"name": name, "from": number} for number, name in enumerate(phases)]
    document = run(endpoint(intended=calm()), drill={"rtoSeconds": rto, "phases": marks})
    found = verdict_of(document, gate("errors.ratio", "<=", 0.01))
    assert found["verdict"] == verdict
    said = any("before the recovery" in why for why in found["validity"]["because"])
    assert said == (verdict == "invalid")


def test_budgets_of_the_parts_of_a_run_add_up_to_that_of_the_whole() -> None:
    document = run(
        endpoint("one", intended=[5.0] * 300, errors=3),
        endpoint("two", "fault", intended=[5.0] * 200, errors=17),
        endpoint("two", "fault", intended=[5.0] * 100, errors=1, journey="look"),
    )
    rows = budget.of(document, [ERRORS])
    parts = [each for each in rows if each.endpoint != "*"]
    assert (rows[0].counted, rows[0].bad, len(parts)) == (600, 21, 2)
    assert rows[0].spent == pytest.approx(sum(each.spent or 0 for each in parts))
    assert rows[0].spent == pytest.approx(21 / 600 / 0.01 * 60 / (30 * 86_400))


def test_slow_answers_spend_the_latency_budget_by_endpoint_and_phase() -> None:
    document = run(
        endpoint("create-order", intended=[5.0] * 100),
        endpoint("create-order", "fault", intended=[5.0] * 86 + [900.0] * 14, errors=4),
    )
    rows = {(each.endpoint, each.phase): each for each in budget.of(document, [LATENCY, ERRORS])}
    assert (rows["create-order", "fault"].bad, rows["create-order", "steady"].bad) == (4, 0)
    slow = {(e.endpoint, e.phase): e for e in budget.of(document, [LATENCY])}
    assert slow["create-order", "fault"].bad == 14
    assert slow["create-order", "fault"].burn == pytest.approx(14.0)


TIMES = st.lists(st.sampled_from([5.0, 900.0]), max_size=60)


@given(answered=TIMES, failed=TIMES)
@example(answered=[900.0] * 50, failed=[5.0] * 50)
def test_each_error_and_each_slow_answer_spends_the_latency_budget_once(
    answered: list[float], failed: list[float]
) -> None:
    document = run(endpoint(intended=[*answered, *failed], errors=len(failed)))
    row = budget.of(document, [LATENCY])[0]
    assert row.counted == len(answered) + len(failed)
    assert row.bad == len(failed) + answered.count(900.0)


def test_two_bad_seconds_spend_the_share_of_the_slices_that_they_lie_in() -> None:
    document = run(endpoint(intended=[5.0] * 100), bad_seconds=(21, 22))
    row = budget.of(document, [SLICES])[0]
    assert (row.counted, row.bad) == (12, 1)
    assert row.spent == pytest.approx(5 / (0.0001 * 30 * 86_400))
