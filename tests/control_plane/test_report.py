"""Reports: judged from raw files, sealed, and found out when changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from junitparser import JUnitXml

from control_plane import (
    drills,
    evidence,
    objectives,
    report,
    report_html,
    report_text,
)
from infra.repair import DAMAGES
from infra.topology import load

TOPOLOGY = load("two-regions")
VERSIONS = {"regionctl": "1", "postgres": "18"}
JSON = dict[str, Any]


def lines(*, fault: float = 10.0, outage: float = 1.0, extra: tuple[JSON, ...] = ()) -> bytes:
    """A probe's journal: an order every 50 ms from second 5 to 20, an outage after the fault."""
    told: list[JSON] = [
        {"line": "start", "monotonic": 4.0, "wall": 1e9, "rate": 20.0, "pid": 1},
        {"line": "ready", "monotonic": 5.0, "users": 1},
    ]
    for n in range(300):
        sent = 5.0 + n / 20
        down = fault <= sent < fault + outage
        kind = "read-order" if n % 5 == 0 else "create-user" if n % 5 == 1 else "create-order"
        told.append(intent(n, kind, sent))
        done = fault + outage + 0.02 if down else sent + 0.02
        told.append(outcome(n, kind, done, epoch=1 if sent < fault else 2))
    end = {"line": "end", "monotonic": 20.5, "planned": 300, "sent": 300, "reason": "stop"}
    return "\n".join(json.dumps(line) for line in (*told, *extra, end)).encode()


def intent(n: int, kind: str, sent: float) -> JSON:
    key = None if kind == "read-order" else f"k{n}"
    user = None if kind == "create-user" else "u1"
    return {
        "line": "intent", "n": n, "kind": kind, "key": key, "user": user,
        "intended": sent, "sent": sent, "body": None,
    }  # fmt: skip


def outcome(n: int, kind: str, done: float, **fields: Any) -> JSON:
    id = (
        {"user_id": "u1" if n == 1 else f"u{n}"} if kind == "create-user" else {"order_id": f"o{n}"}
    )
    return {
        "line": "outcome", "n": n, "outcome": "ok", "status": 201, "done": done, "shard": "s1",
        "epoch": 1, "region": "us-east-1", "amount_cents": 250, **id, **fields,
    }  # fmt: skip


def run_files(changed: JSON) -> dict[str, bytes]:
    """The files of one good run of database-failure, save what `changed` says."""
    readback = {
        "whole": True, "acknowledged": 240, "missing": [], "wrong": [], "duplicates": [],
        "unanswered": [], "unknown_present": 0, "unknown_absent": 0,
    }  # fmt: skip
    steps = [
        {"name": "confirm-lost", "started": 10.3, "finished": 10.32},
        {"name": "fence-instance", "started": 10.32, "finished": 10.4},
        {"name": "promote", "started": 10.4, "finished": 10.8},
        {"name": "publish-map", "started": 10.8, "finished": 10.9},
    ]
    operation = {"id": "op-2", "kind": "failover", "target": "s1", "state": "succeeded"}
    documents: JSON = {
        "fault.json": {
            "fault": {"kind": "kill", "target": "s1.us-east-1a"}, "databases": ["s1"],
            "began": 10.0, "effective": 10.0, "at": "2026-01-01T00:00:00+00:00",
            "lagSeconds": None, "sampled": None,
            "detail": {"changed": {"orders": 3}, "deleted": {"payments": 2}},
        },
        "readback.json": readback,
        "recovery.json": {"operations": [{**operation, "steps": steps}]},
        "redundancy.json": {"restored": True, "at": 16.0, "detail": ""},
        "invariants.json": [{"name": "stock", "held": True, "detail": ""}],
        "planted-lost.json": {**readback, "missing": ["nowhere"]},
        "selftest.json": [
            {"kind": "lost", "file": "lost.jsonl", "readback": "planted-lost.json",
             "order": "nowhere"},
            {"kind": "stall", "file": "stall.jsonl", "readback": ""},
            {"kind": "second-writer", "file": "second.jsonl", "readback": ""},
        ],
    }  # fmt: skip
    documents |= data_documents()
    for name, change in changed.items():
        if isinstance(change, dict):
            documents[name].update(change)
        elif name != "journal":
            documents[name] = change
    second = (intent(900, "create-order", 11.5), outcome(900, "create-order", 11.6, epoch=3))
    return {
        "journal.jsonl": changed.get("journal", lines()),
        "lost.jsonl": lines(),
        "stall.jsonl": lines(outage=31.0),
        "second.jsonl": lines(extra=second),
        **{name: json.dumps(document).encode() for name, document in documents.items()},
    }


def data_documents() -> JSON:
    """What the drills about data add, of a good run."""
    hand_overs = [
        {"name": "hand-over", "result": {"epoch": 2, "pauseSeconds": 0.02, "differentSlots": []}}
        for _ in range(10)
    ]
    # Ended by another control plane than began it; and one that had nothing to take back.
    hand_overs += [{"name": "hand-over", "result": result} for result in ({"epoch": 2}, {})]
    moved = {"finished": True, "detail": ""}
    operation = {"id": "op-3", "state": "succeeded", "steps": hand_overs}
    copy = {"bytes": 50_000_000, "seconds": {"download": 1.0, "recover": 1.0}}
    row = {"database": "s1", "rows": {"orders": 9}, "problems": [], "different": 0}
    return {
        "moves-grow.json": {**moved, "operation": operation},
        "moves-shrink.json": {**moved, "operation": operation},
        "detected.json": {"at": 11.0, "broken": ["totals-match"]},
        "repaired.json": {"at": 15.0, "held": True, "broken": []},
        "merge.json": {
            "at": 14.0, "insertedRows": {"payments": 2}, "restoredRows": {"orders": 3},
            "keptLiveChanges": 1, "sample": [],
        },
        "restore.json": {"at": 13.0, "copies": [copy], "productionBytes": 5e9},
        "copies.json": {"at": 14.0, "asked": 4, "served": 4, "missing": [], "copies": [row]},
        "damages.json": [
            {"kind": kind, "caught": True, "saw": "damaged"} for kind in DAMAGES
        ],
    }  # fmt: skip


def made(
    changed: JSON | None = None, name: str = "database-failure"
) -> tuple[JSON, dict[str, bytes]]:
    """A report of one run, and its files."""
    spec = drills.find(name)
    files = {f"run-01/{path}": content for path, content in run_files(changed or {}).items()}
    run = evidence.judge(spec, 1, report.run_files(files, 1))
    facts = {
        "operation": "op-1", "startedAt": "2026-01-01T00:00:00+00:00",
        "finishedAt": "2026-01-01T00:01:00+00:00", "versions": VERSIONS,
        "topology": {"name": TOPOLOGY.name, "digest": TOPOLOGY.digest()},
    }  # fmt: skip
    events = [{"sequence": n, "kind": "step", "data": {}} for n in range(3)]
    limits = objectives.of(TOPOLOGY, spec.scenario, spec.limits)
    return report.document(spec, [run], limits, facts=facts, events=events, files=files), files


def test_a_good_run_passes_with_its_phases_in_order() -> None:
    document, files = made()
    assert (document["verdict"], document["because"]) == ("passed", [])
    assert document["objectives"][0]["measuredSeconds"] == pytest.approx(1.02)
    assert [phase["name"] for phase in document["phases"]] == [
        "detect", "decide", "fence", "promote", "route", "first-ack", "steady", "redundancy",
    ]  # fmt: skip
    assert document["distribution"]["rtoSeconds"]["p95"] == pytest.approx(1.02)
    assert report.check(json.loads(json.dumps(document)), files) == []


def test_recovery_is_timed_by_orders_and_proven_by_every_kind() -> None:
    """A rare kind of request would measure the wait for the next one of its kind."""
    book = [json.loads(line) for line in lines().splitlines()]
    reads = [line["n"] for line in book if line.get("kind") == "read-order" and line["sent"] >= 10]

    def without(numbers: list[int]) -> JSON:
        """The report of a run in which these reads were answered with an error."""
        failed = {"outcome": "failed", "status": 503}
        told = [
            line | failed if line["line"] == "outcome" and line["n"] in numbers else line
            for line in book
        ]
        return made({"journal": "\n".join(json.dumps(line) for line in told).encode()})[0]

    late = without(reads[:8])["repeats"][0]
    assert late["rtoSeconds"] == late["rtoByKind"]["create-order"] == pytest.approx(1.02)
    assert late["rtoByKind"]["read-order"] > 2.0
    never = without(reads)
    assert never["repeats"][0]["rtoSeconds"] is None
    assert (never["verdict"], never["objectives"][0]["met"]) == ("failed", False)


CONTRACT = {
    "apiVersion": "regionctl/v1", "kind": "DrillReport", "drill": str, "operation": str,
    "startedAt": str, "finishedAt": str, "verdict": str,
    "fault": {"kind": str, "target": str, "injectedAt": str},
    "phases": [{"name": str, "seconds": float}],
    "objectives": [{"name": str, "limitSeconds": float, "measuredSeconds": float, "met": bool}],
    "ledger": {
        "attempted": int, "acknowledged": int, "failed": int, "unknown": int, "lost": int,
        "duplicated": int, "lossSeconds": float,
    },
    "invariants": [{"name": str, "held": bool, "detail": str}],
    "selfTest": {"planted": int, "caught": int},
    "repeats": [{"rtoSeconds": float, "lost": int, "verdict": str}],
    "distribution": {"rtoSeconds": {"p50": float, "p95": float, "max": float}},
}  # fmt: skip


def check_contract(found: Any, wanted: Any, where: str = "report") -> None:
    """Every field of the contract is there with its type; more may be there."""
    if isinstance(wanted, dict):
        for name, inner in wanted.items():
            assert name in found, f"{where} has no {name}"
            check_contract(found[name], inner, f"{where}.{name}")
    elif isinstance(wanted, list):
        assert found, f"{where} is empty"
        for each in found:
            check_contract(each, wanted[0], where)
    elif isinstance(wanted, str):
        assert found == wanted, where
    else:
        allowed = (int, float) if wanted is float else wanted
        assert isinstance(found, allowed), f"{where} is {found!r}"


def test_the_document_keeps_the_contract_that_scripts_rely_on() -> None:
    document, _ = made()
    check_contract(json.loads(json.dumps(document)), CONTRACT)


def test_writes_and_reads_are_counted_apart_and_each_sum_is_whole() -> None:
    counted = made()[0]["ledger"]
    for each in (counted, counted["reads"], *made()[0]["repeats"]):
        assert each["attempted"] == each["acknowledged"] + each["failed"] + each["unknown"]
    assert (counted["attempted"], counted["reads"]["attempted"]) == (240, 60)


@pytest.mark.parametrize(
    ("changed", "verdict", "why"),
    [
        ({"readback.json": {"missing": ["o12"]}}, "failed", "no acknowledged write lost"),
        ({"readback.json": {"wrong": [{}]}}, "failed", "read back as acknowledged"),
        ({"readback.json": {"duplicates": [{}]}}, "failed", "one order for one"),
        ({"readback.json": {"unanswered": ["o1"]}}, "void", "got no answer"),
        ({"readback.json": {"acknowledged": 3}}, "void", "looked for 3"),
        ({"redundancy.json": {"restored": False}}, "failed", "redundancy"),
        ({"invariants.json": [{"name": "stock", "held": False, "detail": ""}]}, "failed", "stock"),
        ({"planted-lost.json": {"missing": []}}, "void", "planted lost"),
        ({"selftest.json": []}, "void", "not tested"),
        ({"journal": lines(outage=30.0)}, "failed", "no recovery"),
        ({"journal": lines().rpartition(b"\n")[0]}, "void", "probe died"),
        ({"journal": b""}, "void", "journal"),
    ],
)
def test_each_defect_of_a_run_has_its_verdict(changed: JSON, verdict: str, why: str) -> None:
    document, files = made(changed)
    assert document["verdict"] == verdict
    assert any(why in reason for reason in document["because"]), document["because"]
    assert report.check(json.loads(json.dumps(document)), files) == []


@pytest.mark.parametrize(
    ("missing", "sampled", "held"), [([], 9.0, True), (["o97"], 9.0, True), (["o2"], 9.0, False)]
)
def test_a_region_may_lose_what_its_replica_had_not_confirmed_and_no_more(
    missing: list[str], sampled: float, held: bool
) -> None:
    lag = {"lagSeconds": 0.1, "sampled": sampled, "databases": []}
    changed = {"fault.json": lag, "readback.json": {"missing": missing}}
    document, _ = made(changed, "region-failure")
    found = {each["name"]: each["held"] for each in document["invariants"]}
    assert found["loss within the replication lag"] is held
    assert document["ledger"]["lost"] == len(missing)


def test_a_run_that_cannot_be_judged_meets_no_objective() -> None:
    document, _ = made({"journal": b""})
    assert [each["met"] for each in document["objectives"]] == [False, False]
    assert [each["measuredSeconds"] for each in document["objectives"]] == [None, None]


def edit(document: JSON) -> None:
    document["ledger"]["lost"] = 7


def edit_event(document: JSON) -> None:
    document["events"][1]["data"] = {"forged": True}


def drop_event(document: JSON) -> None:
    del document["events"][-1]


def reseal(change: Callable[[JSON], None]) -> Callable[[JSON], None]:
    def both(document: JSON) -> None:
        change(document)
        document["seal"] = report.seal(document)

    return both


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (edit, "seal"),
        (reseal(edit), "ledger: the report says"),
        (reseal(edit_event), "broken at event 1"),
        (reseal(drop_event), "lost its end"),
        (lambda document: document.pop("repeats"), "damaged"),
        (lambda document: document.update(schemaVersion=9), "schema version 9"),
    ],
)
def test_a_changed_report_is_found_out(change: Callable[[JSON], None], finding: str) -> None:
    document, files = made()
    change(document)
    assert any(finding in found for found in report.check(document, files))


def test_a_changed_or_missing_raw_file_is_found_out() -> None:
    document, files = made()
    changed = {**files, "run-01/journal.jsonl": lines(outage=0.1)}
    findings = report.check(document, changed)
    assert "run-01/journal.jsonl was changed" in findings
    assert any(found.startswith("repeats: ") for found in findings)
    del changed["run-01/fault.json"]
    assert "run-01/fault.json is missing" in report.check(document, changed)


def test_the_page_needs_nothing_from_outside_and_draws_every_attempt_near_the_fault() -> None:
    document, files = made()
    page = report_html.page(document, files)
    assert "<svg" in page
    assert page.count("<circle") > 100
    assert not any(word in page for word in ("http://", "https://", "<script", "src="))
    assert 'class="outage"' in page
    assert "prefers-color-scheme:dark" in page
    assert 'fill="#' not in page
    void, broken = made({"journal": b""})
    assert "no first line" in report_html.page(void, broken)


def test_junit_has_a_failure_for_each_thing_that_was_missed() -> None:
    document, _ = made({"readback.json": {"missing": ["o12"]}})
    (suite,) = JUnitXml.fromstring(report_text.junit(document).encode())
    assert suite.failures == 2
    assert suite.errors == 0
    void, _ = made({"selftest.json": []})
    (suite,) = JUnitXml.fromstring(report_text.junit(void).encode())
    assert suite.errors == 1


def test_markdown_leads_with_the_verdict() -> None:
    document, _ = made()
    assert report_text.markdown(document).startswith("# The primary of a database is lost: passed")
