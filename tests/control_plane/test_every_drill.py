"""Every drill with every one of its steps interrupted: it proves what it would have proven.

The drills run with a real probe against a small real shop, the sentinel is the real one and the
platform is in memory. In each case every step of the drill is interrupted at its first attempt, in
the same way; what the drill provokes (failovers, rejoins) dies with the worker too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from control_plane import drills, report
from control_plane.operations import Handler, Operation
from control_plane.plan import Plan
from control_plane.plans import PLANNERS
from control_plane.sentinel import Sentinel
from control_plane.steps import HANDLERS, drill_evidence
from control_plane.steps.drill_files import kept, probe_alive, raw_files
from control_plane.store import open_store
from control_plane.worker import Worker
from control_plane.world import World
from infra.provider import Fault, Injected
from infra.topology import load
from loadtests import plant, readback
from runtime.clock import SystemClock
from runtime.errors import OperationFailed
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import SCENARIOS
from tests.control_plane.test_drill_steps import Bench
from tests.control_plane.test_drills import whole
from tests.control_plane.test_every_step import INTERRUPTIONS, Interruption
from tests.loadtests.shop import open_shop

pytestmark = [pytest.mark.process, pytest.mark.alone]

TOPOLOGY = load("two-regions")
CASES = ("crash_before", "crash_after", "fail_after", "repeat")
FAILOVERS = {
    "service-outage": 0,
    "database-failure": 1,
    "zone-failure": 3,
    "region-failure": 1,
    "reshard": 1,
    "data-corruption": 0,
    "backup-restore": 0,
}
SEED = 8  # kills the primary of a shard that is being filled
LOSES = "fail_after"
OF_A_LOSS = (
    ": no acknowledged write lost",
    ": no reader is denied an acknowledged order",
    ": loss within the replication lag",
)
TWICE = ("region-failure", "crash_after")
LOADED = ("service-outage", "crash_after")
SECONDS = 150


@dataclass
class Case:
    """One drill on a platform of its own. `loses`: the shop forgets an order at the fault."""

    bench: Bench
    plan: Plan
    loses: bool
    interrupted: set[int] = field(default_factory=set)
    injected: list[float] = field(default_factory=list)

    def handlers(self, by: Interruption) -> dict[str, Handler]:
        """The real handlers; each step of the drill itself is interrupted at its first attempt."""
        return {name: self._interrupted(name, by) for name in HANDLERS}

    def _interrupted(self, name: str, by: Interruption) -> Handler:
        async def handler(world: World, **args: Any) -> Any:
            async def effect() -> Any:
                return await HANDLERS[name](world, **args)

            number = len(world.results)
            if world.plan.kind != "drill" or number in self.interrupted:
                return await effect()
            self.interrupted.add(number)
            return await by(effect)

        return handler

    def watch_the_fault(self) -> None:
        inject = self.bench.provider.inject

        async def watched(fault: Fault) -> Injected:
            if fault.kind == "drop-cache":  # part of a repair
                return await inject(fault)
            self.injected.append(self.bench.store.clock.monotonic())
            if self.loses:
                lost = next(iter(self.bench.shop.orders))
                del self.bench.shop.orders[lost]
                self.bench.provider.repairs.forgotten.add(lost)
            return await inject(fault)

        self.bench.provider.inject = watched  # type: ignore[method-assign]

    async def carry_out(self, by: Interruption) -> Operation:
        """The drill to its end: after a worker's death another one, after a failure a resume."""
        store, provider = self.bench.store, self.bench.provider
        operation = await self.bench.start(self.plan)
        watching = asyncio.create_task(
            Sentinel(provider, store, store.clock).run(), name="sentinel"
        )
        working = asyncio.create_task(self._work(by), name="worker")
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    rung = store.bell.listen()
                    operation = await store.operation(operation.id)
                    if operation.state == "succeeded":
                        return operation
                    if operation.state == "failed":
                        assert operation.problem
                        assert operation.problem["detail"] == "planted", operation.problem
                        await store.resume(operation.id)
                    await rung.wait()
        finally:
            for task in (watching, working):
                task.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)

    async def _work(self, by: Interruption) -> None:
        while True:
            worker = Worker(self.bench.store, self.handlers(by), self.bench.world, "test")
            with contextlib.suppress(BaseExceptionGroup):
                await worker.run()


@asynccontextmanager
async def open_case(
    name: str, folder: Path, *, repeat: int, loses: bool, load: Mapping[str, Any]
) -> AsyncIterator[Case]:
    provider, shard_map = await whole(TOPOLOGY, SystemClock())
    url = f"sqlite+aiosqlite:///{folder / 'control.db'}"
    store = await open_store(url, SystemClock(), durable=False)
    await store.save_map(shard_map, "test")
    with open_shop() as shop:
        bench = Bench(store, provider, shop, folder)
        plan = await bench.plan(name, repeat=repeat, seed=SEED, **load)
        case = Case(bench, shortened(plan), loses)
        case.watch_the_fault()
        try:
            yield case
        finally:
            for run in (folder / "drills").glob("*/run-*"):
                (run / "stop").touch()  # ends a probe that a failed test would leave
            await store.database.close()


def shortened(plan: Plan) -> Plan:
    """The same steps with less load and shorter waits before the fault."""
    brief: dict[str, dict[str, Any]] = {
        "start-probe": {"rate": 25.0},
        "await-steady": {"seconds": 0.5},
        "start-load": {"steady_seconds": 0.5},
        "end-load": {"more_seconds": 0.5},
        "inject-fault": {"phase_seconds": 0.05},
    }
    steps = [replace(step, args={**step.args, **brief.get(step.name, {})}) for step in plan.steps]
    return replace(plan, steps=tuple(steps))


async def in_this_process(world: World, folder: Path, module: str, arguments: Sequence[str]) -> str:
    """The load programs that end by themselves, without the second that an interpreter takes."""
    if module == "loadtests.plant":
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = plant.main(arguments)
        if code:
            raise OperationFailed(errors.getvalue())
        return out.getvalue()
    given: Mapping[str, str] = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert module == "loadtests.readback"
    asked = argparse.Namespace(
        url=given["--url"],
        ca=None,
        client=Path(given["--client"]) if "--client" in given else None,
        journal=Path(given["--journal"]),
        out=Path(given["--out"]),
        last=int(given.get("--last", 0)),
        seconds=5.0,
    )
    assert await readback.run(asked) == 0
    return ""


async def check(name: str, interruption: str, folder: Path) -> None:
    repeat = 2 if (name, interruption) == TWICE else 1
    loses = interruption == LOSES
    loaded = (name, interruption) == LOADED
    load = {"load": "smoke", "load_rate_scale": 0.3, "load_seconds": 24.0} if loaded else {}
    async with open_case(name, folder, repeat=repeat, loses=loses, load=load) as case:
        operation = await case.carry_out(INTERRUPTIONS[interruption])
        assert case.interrupted == set(range(len(case.plan.steps)))
        drill = folder / "drills" / operation.id
        assert len(case.injected) == repeat
        for number, real in enumerate(case.injected, start=1):
            assert_one_probe(drill / report.run_folder(number))
            assert_honest_fault(drill / report.run_folder(number), real)
        document = await case.bench.store.report(operation.id)
        assert ("load" in document) == loaded
        assert_proven(document, loses)
        planted = 3 + len(drills.find(name).damages)
        assert document["selfTest"]["caught"] == document["selfTest"]["planted"] == planted
        written = json.loads((drill / "report.json").read_text())
        assert written == document
        assert report.check(written, raw_files(drill)) == []
        opened = [op.kind for op in await case.bench.store.operations()]
        assert opened.count("failover") == FAILOVERS[name] * repeat
        assert opened.count("failback") == repeat - 1


def assert_proven(document: dict[str, Any], loses: bool) -> None:
    """Nothing failed but the loss, which must have, and at most a pause that was measured as too
    long: how long a fence stands is this machine's business here, where all drills run at once."""
    because = document["because"]
    assert document["verdict"] == ("failed" if because else "passed")
    assert document["ledger"]["lost"] == loses, because
    pauses = [
        f"pause: {each['because']}"
        for each in document["objectives"]
        if each["name"] == "pause" and each["measuredSeconds"] > each["limitSeconds"]
    ]
    others = [why for why in because if why not in pauses]
    assert bool(others) == loses, because
    assert all(why.startswith("rpo: ") or why.endswith(OF_A_LOSS) for why in others), because


def assert_one_probe(run: Path) -> None:
    lines = (run / "journal.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["line"] == "start" for line in lines) == 1
    assert not probe_alive(run)


def assert_honest_fault(run: Path, real: float) -> None:
    """`real` was taken just before the provider was asked, which takes its time right after."""
    fault = kept(run, "fault.json")
    assert fault["began"] <= real + 0.005
    assert fault["effective"] >= real


@pytest.mark.parametrize("interruption", CASES)
async def test_a_drill_whose_every_step_is_interrupted_proves_the_same(
    interruption: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All drills side by side: they mostly wait."""
    monkeypatch.setattr(drill_evidence, "call", in_this_process)
    async with asyncio.TaskGroup() as group:
        for name in drills.DRILLS:
            (folder := tmp_path / name).mkdir()
            group.create_task(check(name, interruption, folder))


async def test_every_step_that_exists_is_interrupted_in_some_plan() -> None:
    """So that a new step, planner or drill cannot be forgotten."""
    provider, shard_map = await whole(TOPOLOGY, SystemClock())
    observed = await provider.observe()
    covered = {
        step.name
        for name in drills.DRILLS
        for step in drills.plan(
            TOPOLOGY,
            observed,
            shard_map,
            drill=name,
            repeat=2 if name == TWICE[0] else 1,
            seed=SEED,
            load="smoke" if name == LOADED[0] else None,
        ).steps
    }
    for scenario in SCENARIOS.values():
        async with Platform.open() as platform:
            await scenario.prepare(platform)
            plan = await platform.plan(scenario.verb, **scenario.asked)
            covered |= {step.name for step in plan.steps}
    assert covered == set(HANDLERS)
    assert set(FAILOVERS) == set(drills.DRILLS)
    assert {scenario.verb for scenario in SCENARIOS.values()} == set(PLANNERS)
