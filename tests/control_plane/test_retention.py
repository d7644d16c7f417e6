"""History is forgotten by policy, and never what something still rests on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import retention
from control_plane.audit import Audit
from control_plane.keeper import Keeper
from control_plane.operations import ACTIVE, FINISHED
from control_plane.report import verdict_sheet
from control_plane.retention import Forgotten, Past, PastReport, outlived, outlived_reports
from control_plane.store import Store
from infra.memory import MemoryProvider
from infra.topology import BUILT_IN, parse
from infra.topology_policies import HistoryPolicy
from runtime.clock import FakeClock
from runtime.errors import Invalid, NotFound
from tests.control_plane.toys import TOPOLOGY, new_store, toy

NOW = datetime(2026, 11, 23, tzinfo=UTC)
POLICY = HistoryPolicy(operation_days=90, event_days=30, keep_last=3)
DAY = 86_400.0

ages = st.floats(0, 300)
states = st.sampled_from((*ACTIVE, *FINISHED))


def past(*found: tuple[str, float]) -> list[Past]:
    """(state, days since its end), oldest first; numbered from 1."""
    made = [
        Past(f"op-{number}", state, None if state in ACTIVE else NOW - timedelta(days=days))
        for number, (state, days) in enumerate(found, start=1)
    ]
    return made[::-1]


@given(st.lists(st.tuples(states, ages), max_size=30))
def test_only_what_ended_long_ago_and_is_not_among_the_newest_is_forgotten(
    found: list[tuple[str, float]],
) -> None:
    known = past(*found)
    gone = outlived(POLICY, known, NOW)
    by_id = {each.id: each for each in known}
    assert not set(gone) & {each.id for each in known[: POLICY.keep_last]}
    for id in gone:
        ended = by_id[id].finished_at
        assert ended is not None
        assert ended < NOW - timedelta(days=POLICY.operation_days)


@given(st.lists(st.tuples(states, ages), max_size=30))
def test_nothing_is_forgotten_that_a_resumption_would_ask_about(
    found: list[tuple[str, float]],
) -> None:
    known = past(*found)
    gone = set(outlived(POLICY, known, NOW))
    older_and_resumable = False
    for each in reversed(known):
        assert not (older_and_resumable and each.id in gone)
        older_and_resumable |= each.id not in gone and each.state not in retention.SETTLED


def test_the_oldest_go_first() -> None:
    known = past(*[("succeeded", 200.0)] * 6)
    assert outlived(POLICY, known, NOW) == ["op-1", "op-2", "op-3"]


verdicts = st.sampled_from(("passed", "failed", "void"))
drills = st.sampled_from([row.scenario for row in TOPOLOGY.objectives])


@given(st.lists(st.tuples(drills, verdicts, ages), max_size=40))
def test_the_disaster_recovery_table_says_the_same_after_reports_are_forgotten(
    found: list[tuple[str, str, float]],
) -> None:
    newest_first = sorted(found, key=lambda each: each[2])
    known = [
        PastReport(f"op-{number}", drill, verdict, NOW - timedelta(days=days))
        for number, (drill, verdict, days) in enumerate(newest_first)
    ]
    gone = set(outlived_reports(replace(POLICY, keep_last=1), known, NOW))
    documents = {each.id: report(each.id, each.drill, each.verdict) for each in known}
    left = [document for id, document in documents.items() if id not in gone]
    assert verdict_sheet(TOPOLOGY, left, {}) == verdict_sheet(TOPOLOGY, [*documents.values()], {})


def report(id: str, drill: str, verdict: str) -> dict[str, Any]:
    return {
        "operation": id,
        "drill": drill,
        "verdict": verdict,
        "finishedAt": id,
        "objectives": [{"name": "rto", "measuredSeconds": 1.0}],
        "ledger": {"lost": 0},
        "repeats": [{"verdict": verdict, "because": []}],
        "topology": {"digest": TOPOLOGY.digest(), "name": TOPOLOGY.name},
        "versions": {},
        "because": [],
    }


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    async with new_store(tmp_path, clock) as opened:
        yield opened


async def _ended(store: Store, *, failed: bool = False) -> str:
    operation = await store.create_operation(toy("a", "b"), "test", None, "pytest")
    claim = await store.claim(operation.id, "w")
    assert claim is not None
    if failed:
        await store.record_failure(claim, 0, {"detail": "no"})
    else:
        for number in range(2):
            await store.record_success(claim, number, None)
    return operation.id


async def _forget(store: Store, clock: FakeClock) -> list[Forgotten]:
    found = []
    while True:
        found.append(await retention.forget(store.database, POLICY, clock.now()))
        if not found[-1].anything:
            return found


async def test_operations_go_with_their_steps_and_numbers_are_never_given_again(
    store: Store, clock: FakeClock
) -> None:
    ids = [await _ended(store) for _ in range(6)]
    for id in ids[:2]:
        await store.save_report(report(id, "region-failure", "passed"))
    generation = await store.generation()
    assert await _forget(store, clock) == [Forgotten(0, 0, 0)]
    clock.advance(91 * DAY)
    first, *_ = await _forget(store, clock)
    assert (first.operations, first.reports) == (3, 0)
    assert [each.id for each in await store.operations()] == ids[:2:-1]
    with pytest.raises(NotFound):
        await store.operation(ids[0])
    assert len(await store.events()) == POLICY.keep_last
    assert await store.generation() == generation
    assert await _ended(store) == "op-7"
    assert {each["operation"] for each in await store.reports()} == {*ids[:2]}


async def test_the_audit_log_is_whole_whatever_is_forgotten(store: Store, clock: FakeClock) -> None:
    for _ in range(6):
        await _ended(store)
    before = await Audit(store.database).verify()
    clock.advance(1000 * DAY)
    await _forget(store, clock)
    assert await Audit(store.database).verify() == before
    assert before.broken is None


async def test_what_runs_or_may_be_resumed_keeps_its_events(store: Store, clock: FakeClock) -> None:
    running = await store.create_operation(toy("a"), "test", None, "pytest")
    await store.append_event("reshard-paused", {}, running.id)
    failed = await _ended(store, failed=True)
    for _ in range(6):
        await _ended(store)
    clock.advance(400 * DAY)
    await _forget(store, clock)
    assert (await store.operation(running.id)).state == "pending"
    assert await store.reshard_paused(running.id)
    kinds = {event.kind for event in await store.events(operation_id=failed)}
    assert "step-failed" in kinds


async def test_events_outlive_their_days_only_among_the_newest(
    store: Store, clock: FakeClock
) -> None:
    for number in range(8):
        await store.append_event("something", {"number": number})
    clock.advance(31 * DAY)
    await store.append_event("something", {"number": 8})
    await _forget(store, clock)
    assert [event.data["number"] for event in await store.events()] == [6, 7, 8]


async def test_the_keeper_forgets_batch_by_batch_then_rests(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    topology = replace(TOPOLOGY, history=POLICY)
    keeper = Keeper(MemoryProvider(topology, clock), store, clock)
    await keeper.tidy()
    for _ in range(7):
        await _ended(store)
    clock.advance(91 * DAY)
    for left in (5, 3, 3):
        await keeper.tidy()
        assert len(await store.operations()) == left
    clock.advance(60.0)
    await _ended(store)
    await keeper.tidy()
    assert len(await store.operations()) == 4


@pytest.mark.parametrize("wrong", ["{operationDays: 0}", "{keepLast: 1}", "{eventDays: none}"])
def test_a_policy_that_forgets_everything_is_refused(wrong: str) -> None:
    text = (BUILT_IN / "two-regions.yaml").read_text()
    good = parse(text + "\nhistory: {operationDays: 7}\n", "here")
    assert good.history == HistoryPolicy(operation_days=7)
    with pytest.raises(Invalid, match="history"):
        parse(f"{text}\nhistory: {wrong}\n", "here")
