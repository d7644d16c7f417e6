"""A whole drill with a real probe: the shop is small, the rest of the platform is in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from control_plane import drills, report
from control_plane import ledger as ledgers
from control_plane.operations import Operation
from control_plane.plan import Plan, Step
from control_plane.settings import Settings
from control_plane.steps import HANDLERS, drill_evidence
from control_plane.steps import drill as steps
from control_plane.steps.drill_files import keep, probe_alive, raw_files, run_folder
from control_plane.store import Store, open_store
from control_plane.worker import Worker
from control_plane.world import World
from infra.memory import MemoryProvider
from infra.provider import Fault
from infra.topology import Topology, load
from runtime.clock import SystemClock
from tests.control_plane.test_drills import whole
from tests.loadtests.shop import Shop, open_shop

pytestmark = pytest.mark.process

TOPOLOGY = load("two-regions")


class Bench:
    """A store, a platform in memory whose edge is the shop, and a worker to run drills on it."""

    def __init__(self, store: Store, provider: MemoryProvider, shop: Shop, folder: Path) -> None:
        self.store = store
        self.provider = provider
        self.shop = shop
        self.folder = folder
        provider.entry_url = lambda: shop.url  # type: ignore[method-assign]
        shop.client_file(folder / "control" / "clients")

    @property
    def topology(self) -> Topology:
        return self.provider.topology

    def world(self, operation: Operation, results: Mapping[int, Any]) -> World:
        return World(
            self.provider,
            self.store.clock,
            self.store,
            Settings(self.folder, "", 1),
            operation.id,
            operation.plan,
            results,
        )

    async def start(self, plan: Plan) -> Operation:
        return await self.store.create_operation(plan, "test", None, "test")

    async def plan(self, name: str, **asked: Any) -> Plan:
        observed, shard_map = await self.provider.observe(), await self.store.shard_map()
        return drills.plan(self.topology, observed, shard_map, drill=name, **asked)

    async def finish(self, id: str, seconds: float = 60) -> Operation:
        """Runs what is open until this operation has ended."""
        worker = Worker(self.store, HANDLERS, self.world, "test")
        task = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(seconds):
                while not (operation := await self.store.operation(id)).finished:
                    await self.store.bell.listen().wait()
        finally:
            task.cancel()
        return operation


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    provider, shard_map = await whole(TOPOLOGY, SystemClock())
    store = await open_store(
        f"sqlite+aiosqlite:///{tmp_path / 'control.db'}", SystemClock(), durable=False
    )
    await store.save_map(shard_map, "test")
    with open_shop() as shop:
        yield Bench(store, provider, shop, tmp_path)
    await store.database.close()


async def test_a_drill_ends_with_a_report_that_passes_its_own_check(bench: Bench) -> None:
    operation = await bench.start(await bench.plan("service-outage"))
    ended = await bench.finish(operation.id)
    assert ended.state == "succeeded", ended.problem
    document = await bench.store.report(operation.id)
    assert (document["verdict"], document["because"]) == ("passed", [])
    assert document["selfTest"]["planted"] == document["selfTest"]["caught"] == 3
    assert document["ledger"]["lost"] == document["ledger"]["failed"] == 0
    folder = bench.folder / "drills" / operation.id
    written = json.loads((folder / "report.json").read_text())
    assert report.check(written, raw_files(folder)) == []
    for name in ("report.md", "report.html", "junit.xml"):
        assert "service-outage" in (folder / name).read_text()
    assert not probe_alive(folder / "run-01")


async def test_a_lost_order_fails_the_drill_and_is_counted_with_its_value(bench: Bench) -> None:
    plan = await bench.plan("service-outage")
    operation = await bench.start(plan)
    taken: list[dict[str, Any]] = []

    def lose(*_: Any) -> None:
        """At the moment of the fault, the shop forgets an order."""
        taken.append(bench.shop.orders.pop(next(iter(bench.shop.orders))))

    inject = bench.provider.inject

    async def breaking(fault: Any) -> Any:
        lose()
        return await inject(fault)

    bench.provider.inject = breaking  # type: ignore[method-assign]
    assert (await bench.finish(operation.id)).state == "succeeded"
    document = await bench.store.report(operation.id)
    assert document["verdict"] == "failed"
    assert document["ledger"]["lost"] == 1
    cents = round(float(taken[0]["total"]["amount"]) * 100)
    assert document["ledger"]["lostCents"] == cents
    assert [each["met"] for each in document["objectives"]] == [True, False]


async def test_a_report_quotes_the_events_of_its_drill_and_reads_no_others(bench: Bench) -> None:
    for number in range(1200):
        await bench.store.append_event("earlier", {"number": number})
    plan = Plan("drill", "x", (Step("write-report"),), ("drill",))
    world = bench.world(await bench.start(plan), {})
    await bench.store.append_event("shard-map-saved", {})
    read: list[int] = []
    events = bench.store.events

    async def counting(**asked: Any) -> Any:
        found = await events(**asked)
        read.append(len(found))
        return found

    bench.store.events = counting  # type: ignore[method-assign]
    told = await drill_evidence.events_of(world)
    assert [each["kind"] for each in told] == ["operation-created", "shard-map-saved"]
    assert sum(read) <= len(told) + 1


async def test_a_run_that_cannot_begin_is_void_and_the_drill_still_reports(bench: Bench) -> None:
    operation = await bench.start(await bench.plan("database-failure"))
    elsewhere = bench.provider.endpoint("s1.us-east-1b")
    await bench.store.update_map(
        lambda known: known.with_primary("s1", elsewhere, home="us-east-1"), "an operator"
    )
    ended = await bench.finish(operation.id)
    assert ended.state == "succeeded", ended.problem
    document = await bench.store.report(operation.id)
    why = "run 1: it was left out: s1.us-east-1a is not the primary of s1 any more"
    assert (document["verdict"], document["because"][0]) == ("void", why)
    assert document["fault"] == {"kind": "kill", "target": "s1.us-east-1a", "injectedAt": None}
    assert document["ledger"]["attempted"] == document["ledger"]["acknowledged"] > 0
    folder = bench.folder / "drills" / operation.id
    assert report.check(json.loads((folder / "report.json").read_text()), raw_files(folder)) == []
    assert not probe_alive(folder / "run-01")


async def test_without_steady_orders_nothing_is_broken_and_the_drill_is_void(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STEADY_SECONDS", 0.5)
    monkeypatch.setattr(ledgers, "success_over", lambda *_: 0.5)
    operation = await bench.start(await bench.plan("zone-failure"))
    assert (await bench.finish(operation.id)).state == "succeeded"
    document = await bench.store.report(operation.id)
    assert document["verdict"] == "void"
    assert "steady orders before the fault" in document["because"][0]
    assert not bench.provider.zones_down


async def test_a_step_that_is_run_again_starts_no_second_probe_and_breaks_nothing_twice(
    bench: Bench,
) -> None:
    plan = await bench.plan("service-outage")
    world = bench.world(await bench.start(plan), {})
    by_name = {step.name: step for step in plan.steps}

    async def perform(name: str) -> Any:
        return await HANDLERS[name](world, **by_name[name].args)

    try:
        first = await perform("start-probe")
        assert await perform("start-probe") == first
        faults: list[Any] = []
        inject = bench.provider.inject

        async def counting(fault: Any) -> Any:
            faults.append(fault)
            return await inject(fault)

        bench.provider.inject = counting  # type: ignore[method-assign]
        broken = await perform("inject-fault")
        assert await perform("inject-fault") == broken
        assert len(faults) == 1
    finally:
        await perform("stop-probe")
    folder = bench.folder / "drills" / world.operation_id / "run-01"
    starts = [
        line for line in (folder / "journal.jsonl").read_text().splitlines() if "start" in line
    ]
    assert len(starts) == 1


async def test_a_recovery_that_never_comes_is_evidence_and_not_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "RECOVERY_SECONDS", 0.2)
    plan = Plan("drill", "x", (Step("await-recovery"),), ("drill",))
    world = bench.world(await bench.start(plan), {})
    folder = run_folder(world, 1)
    keep(folder, "fault.json", {"at": "2026-01-01T00:00:00+00:00"})
    found = await steps.await_recovery(world, run=1, operations=[["failover", "s1"]])
    assert [op["state"] for op in found["operations"]] == ["never opened"]


async def test_a_region_failover_is_opened_once_however_often_the_step_runs(bench: Bench) -> None:
    plan = await bench.plan("region-failure")
    world = bench.world(await bench.start(plan), {})
    asked = {"target": "us-east-1", "accept_data_loss": True, "reason": "drill"}
    await bench.provider.inject(Fault("kill-region", "us-east-1"))
    first = asyncio.create_task(steps.run_recovery(world, run=1, verb="failover", asked=asked))
    while not await bench.store.operation_by_key(f"{world.operation_id}/1/failover"):
        await bench.store.bell.listen().wait()
    again = asyncio.create_task(steps.run_recovery(world, run=1, verb="failover", asked=asked))
    await asyncio.sleep(0)
    opened = [op for op in await bench.store.operations() if op.kind == "failover"]
    await bench.store.abort(opened[0].id, "enough")
    assert await first == await again
    assert len([op for op in await bench.store.operations() if op.kind == "failover"]) == 1


async def test_invariants_are_asked_again_while_orders_come_to_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_evidence, "LOOK_SECONDS", 0.01)
    plan = Plan("drill", "x", (Step("check-invariants"),), ("drill",))
    world = bench.world(await bench.start(plan), {})
    answers = [False, False, True]

    async def invariants() -> Any:
        return [{"name": "saga-settled", "held": answers.pop(0), "detail": ""}]

    bench.provider.invariants = invariants  # type: ignore[method-assign]
    assert await drill_evidence.check_invariants(world, run=1) == {"broken": []}
    assert answers == []


async def test_what_does_not_come_to_rest_is_reported_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_evidence, "SETTLING_SECONDS", 0.05)
    monkeypatch.setattr(drill_evidence, "LOOK_SECONDS", 0.01)
    plan = Plan("drill", "x", (Step("check-invariants"),), ("drill",))
    world = bench.world(await bench.start(plan), {})

    async def invariants() -> Any:
        return [{"name": "saga-settled", "held": False, "detail": "order 7"}]

    bench.provider.invariants = invariants  # type: ignore[method-assign]
    assert await drill_evidence.check_invariants(world, run=1) == {"broken": ["saga-settled"]}
