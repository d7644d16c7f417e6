"""Load beside a drill: in its plan, in its report, and with real programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane import drills, drills_load, report, report_html, report_text
from control_plane.plan import Plan
from control_plane.steps.drill_files import raw_files
from control_plane.steps.drill_load import _find
from infra.topology import load
from runtime.clock import FakeClock
from runtime.errors import Invalid
from tests.control_plane.test_drill_steps import Bench
from tests.control_plane.test_drill_steps import bench as bench
from tests.control_plane.test_drills import whole

TOPOLOGY = load("two-regions")
RECORD = {
    "id": "op-1-run-1",
    "profile": "baseline",
    "seed": 2,
    "verdict": "failed",
    "validity": {"valid": True, "because": []},
    "offered": {"planned": 10, "started": 10, "dropped": 0},
    "plan": {"phases": [{"name": "steady", "from": 0, "to": 9}]},
    "gates": [],
    "endpoints": [
        {
            "name": "create-order",
            "journey": "checkout",
            "phase": "fault",
            "ok": 8,
            "errors": 2,
            "intendedMs": {"p50": 4.0, "p95": 900.0, "p99": 1900.5, "max": None},
        }
    ],
    "budget": [
        {
            "objective": "availability",
            "endpoint": endpoint,
            "phase": phase,
            "counted": 10,
            "bad": 2,
            "burn": 20.0,
            "spent": 0.019,
        }
        for endpoint, phase in (("*", "*"), ("create-order", "fault"))
    ],
}
FILES = {"run-01/load/run.json": json.dumps(RECORD).encode(), "run-01/fault.json": b"{}"}


async def planned(name: str, **asked: object) -> Plan:
    provider, shard_map = await whole(TOPOLOGY, FakeClock())
    observed = await provider.observe()
    return drills.plan(TOPOLOGY, observed, shard_map, drill=name, seed=7, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(drills.DRILLS))
async def test_load_is_put_around_the_steps_of_a_drill_and_changes_none_of_them(name: str) -> None:
    plain, loaded = await planned(name, repeat=2), await planned(name, repeat=2, load="baseline")
    added = ("start-load", "end-load", "judge-load")
    assert tuple(step for step in loaded.steps if step.name not in added) == plain.steps
    names = [step.name for step in loaded.steps]
    for number in (1, 2):
        mine = [step.name for step in loaded.steps if step.args.get("run") == number]
        assert [each for each in mine if each in added] == list(added)
        assert mine.index("start-load") < mine.index("start-probe")
        assert mine.index("end-load") == mine.index("stop-probe") - 1
        assert mine.index("judge-load") == mine.index("judge") + 1
    assert names.index("start-load") == 0


@pytest.mark.parametrize(
    "asked", [{"load": "../x"}, {"load": "smoke", "load_rate_scale": 0.0}, {"load": ""}]
)
async def test_a_load_that_cannot_be_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        await planned("service-outage", **asked)


def test_the_report_says_by_endpoint_and_phase_what_the_load_met_and_what_it_cost() -> None:
    section = drills_load.section(FILES)
    assert section is not None
    document = {"load": section}
    (sentence,) = drills_load.sentences(document)
    assert sentence == (
        "load baseline, run 1: failed; spent of the error budgets: 1.9 % of availability"
    )
    latencies, budgets = drills_load.tables(document)
    assert latencies[2] == [
        ("create-order", "checkout", "fault", "8", "2", "4.0 ms", "900.0 ms", "1900.5 ms", "-")
    ]
    assert budgets[2][1][:3] == ("availability", "create-order", "fault")
    assert drills_load.section({"run-01/fault.json": b"{}"}) is None
    assert list(drills_load.tables({})) == []
    assert drills_load.sentences({}) == []


def shortened(plan: Plan) -> Plan:
    """The same with less waiting."""
    brief = {
        "start-load": {"steady_seconds": 1.0},
        "end-load": {"more_seconds": 1.0},
        "await-steady": {"seconds": 0.5},
    }
    steps = [replace(step, args={**step.args, **brief.get(step.name, {})}) for step in plan.steps]
    return replace(plan, steps=tuple(steps))


@pytest.mark.process
async def test_a_drill_under_load_reports_what_the_load_met(bench: Bench) -> None:
    plan = await bench.plan(
        "service-outage", load="smoke", load_rate_scale=0.5, load_seconds=60.0, rate=10.0
    )
    operation = await bench.start(shortened(plan))
    ended = await bench.finish(operation.id, seconds=120)
    assert ended.state == "succeeded", ended.problem
    document = await bench.store.report(operation.id)
    folder = bench.folder / "drills" / operation.id
    assert _find(folder / "run-01" / "load") is None
    assert (document["verdict"], document["because"]) == ("passed", [])
    (run,) = document["load"]["runs"]
    assert run["offered"]["started"] > 20
    phases = [phase["name"] for phase in run["phases"]]
    assert phases[:3] == ["warm-up", "steady", "fault"]
    assert {each["phase"] for each in run["endpoints"]} >= {"warm-up", "steady"}
    assert {each["objective"] for each in run["budget"]} == {"availability", "latency", "errors"}
    assert_reported(document, folder)


def assert_reported(document: dict[str, object], folder: Path) -> None:
    written = json.loads((folder / "report.json").read_text())
    files = raw_files(folder)
    assert written == document
    assert report.check(written, files) == []
    tampered = dict(files)
    path = "run-01/load/run.json"
    tampered[path] = tampered[path].replace(b'"ok": ', b'"ok": 9')
    assert report.check(written, tampered)
    assert "Load smoke, run 1: error budgets" in report_text.markdown(written)
    assert "Load smoke, run 1: error budgets" in report_html.page(written, files)
    html = (folder / "run-01" / "load" / "report.html").read_text()
    assert 'class="fault"' in html
