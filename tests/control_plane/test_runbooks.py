"""Every runbook is taken to its end, on a served control plane over a platform in memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli import main
from cli.guide import Guide
from cli.itself import Ended
from cli.leaf import Run
from cli.render import Output
from control_plane import arguments, drills
from control_plane.api import VERBS
from control_plane.client import Client
from control_plane.plane import ControlPlane
from control_plane.plans import PLANNERS
from control_plane.steps import HANDLERS
from infra.provider import Fault
from infra.topology import load
from runbooks import book as books
from runbooks.book import Value
from runtime.clock import SystemClock, wait_until
from tests.commands import parse
from tests.control_plane import scenarios
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import Prepare
from tests.control_plane.served import serving, state_dir

ROOT = Path(__file__).resolve().parents[2]
BASE_PORT = 18000
STEP = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")
WORD = re.compile(r"`([a-z-]+)`")
NAMED = re.compile(r'(?:runbook=|RUNBOOK = )"([a-z-]+)"')


@dataclass(frozen=True)
class Case:
    """The situation of a runbook, what it is told, and which operations it must need.

    `afterwards` is the platform's state at the end; `away`: nobody answers the console at first.
    """

    prepare: Prepare
    needed: tuple[str, ...]
    values: dict[str, Value] = field(default_factory=dict)
    confirm: str | None = None
    afterwards: str = "healthy"
    away: bool = False


async def service_lost(platform: Platform) -> None:
    await scenarios.provisioned(platform)
    await platform.provider.ensure_stopped(["orders.us-east-1a"])


async def cache_lost(platform: Platform) -> None:
    await scenarios.provisioned(platform)
    await platform.provider.ensure_stopped(["cache.us-east-1a"])


async def zone_back(platform: Platform) -> None:
    """The zone was lost, its databases failed over, and it can be reached again."""
    await scenarios.provisioned(platform)
    zone = Fault("kill-zone", "us-east-1a")
    await platform.provider.inject(zone)
    for database in platform.topology.databases:
        await platform.run("failover", target=database)
    await platform.provider.heal(zone)
    await platform.provider.ensure_stopped(["queue.us-east-1a", "orders.us-east-1a"])


async def map_behind(platform: Platform) -> None:
    await scenarios.provisioned(platform)
    old = platform.provider.maps["us-east-1"]
    await platform.run("switchover", target="s1")
    platform.provider.maps["us-east-1"] = old
    assert not platform.provider.write("s1", "with the old map")


async def stuck(platform: Platform) -> None:
    """A failback that failed because its region could not be reached."""
    await scenarios.away(platform)
    platform.provider.unreachable.add("us-east-1")
    plan = await platform.plan("failback")
    operation = await platform.store.create_operation(plan, "home", None, "root", role="admin")
    async with asyncio.timeout(10):
        while operation.state != "failed":
            rung = platform.store.bell.listen()
            operation = await platform.store.operation(operation.id)
            if operation.state != "failed":
                await rung.wait()
    platform.provider.unreachable.clear()


async def disk_full(platform: Platform) -> None:
    await scenarios.backed_up_twice(platform)
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))


async def set_aside(platform: Platform) -> None:
    await scenarios.provisioned(platform)
    letter = {
        "id": "1732320000000-0",
        "group": "payments",
        "kind": "OrderCreated",
        "event": "7",
        "reason": "not understood",
        "at": "2026-01-31T04:15:00+00:00",
    }
    platform.provider.dead["us-east-1"] = {letter["id"]: letter}


CASES = {
    "service-outage": Case(service_lost, ("provision",)),
    "database-failure": Case(
        scenarios.primary_lost, ("failover", "rejoin"), {"target": "s1"}, confirm="s1"
    ),
    "zone-failure": Case(zone_back, ("queue-failover", "provision"), {"region": "us-east-1"}),
    "region-failure": Case(
        scenarios.region_lost,
        ("failover",),
        {"region": "us-east-1"},
        confirm="us-east-1",
        afterwards="degraded",
    ),
    "failback": Case(scenarios.away, ("failback",)),
    "reshard": Case(scenarios.used, ("reshard",), {"to": 3}),
    "data-corruption": Case(
        scenarios.backed_up, ("restore", "restore-discard"), {"database": "s1", "at": "0/7D0"}
    ),
    "backup-restore": Case(
        scenarios.database_deleted, ("restore", "backup"), {"database": "s1"}, confirm="s1"
    ),
    "restore": Case(
        scenarios.backed_up,
        ("restore", "restore", "restore-discard", "backup"),
        {"database": "s1", "at": "0/FA0"},
        confirm="s1",
    ),
    "stuck-operation": Case(stuck, ("failback",), {"operation": "op-1"}),
    "stale-epoch": Case(map_behind, ("provision",)),
    "cache-lost": Case(cache_lost, ("provision",)),
    "queue-lost": Case(
        scenarios.queue_lost, ("queue-failover", "provision"), {"region": "us-east-1"}
    ),
    "certificate-expired": Case(
        scenarios.provisioned, ("decommission", "provision"), confirm="two-regions"
    ),
    "disk-full": Case(disk_full, ("prune", "provision"), {"keep": 1}, confirm="two-regions"),
    "control-plane-lost": Case(scenarios.standby_lost, ("provision",), away=True),
    "events-set-aside": Case(set_aside, ()),
    "overload": Case(scenarios.provisioned, ()),
}


@dataclass
class Served:
    """A control plane that the console finds by its state directory; no sentinel helps it."""

    plane: ControlPlane
    state: Path
    port: int

    def found_at(self, port: int) -> None:
        document = {"format": 1, "topology": "two-regions", "portOffset": port - BASE_PORT}
        (self.state / "state.json").write_text(json.dumps(document))

    async def execute(self, words: list[str], silent: bool) -> Ended:
        """In this process, which saves the start of an interpreter. What is about the processes
        and the machine of a platform has none here: only its operation is left of it."""
        if words[0] == "doctor":
            return Ended(0, "", "")
        if words[0] in ("up", "down"):
            self.found_at(self.port)
            await self.operate("provision" if words[0] == "up" else "decommission")
            return Ended(0, "", "")
        said, noted = io.StringIO(), io.StringIO()

        def call() -> int:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(noted):
                return main.run(words)

        code = await asyncio.to_thread(call)
        return Ended(code, said.getvalue(), noted.getvalue())

    async def operate(self, verb: str) -> None:
        async with Client(f"http://127.0.0.1:{self.port}", state_dir=self.state) as client:
            operation = await client.start(verb, {})
            async for _ in client.follow(operation["id"]):
                pass
            assert (await client.operation(operation["id"]))["state"] == "succeeded"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Served]:
    state = state_dir(folder / "state")
    async with serving(state) as (address, plane):
        served = Served(plane, state, int(address.rpartition(":")[2]))
        served.found_at(served.port)
        yield served


@pytest.mark.parametrize("name", books.names())
async def test_a_runbook_ends_what_it_is_about(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, book = CASES[name], books.read(name)
    async with opened(tmp_path) as served:
        plane: Any = served.plane
        await case.prepare(Platform(plane.provider, plane.store, plane.clock))
        if case.away:
            served.found_at(1)
        run = Run(Output.json, state_dir=served.state, confirm=case.confirm, no_input=True)
        known = {ask.name: ask.default for ask in book.asks if ask.default is not None}
        capsys.readouterr()
        guide = Guide(run, book, {**known, **case.values}, True, execute=served.execute)
        await guide.through()
        document = json.loads(capsys.readouterr().out)
        assert document["state"] == "done", document
        operations = await plane.store.operations()
        assert sorted(each.kind for each in operations) == sorted(case.needed)
        words = ["status", "-o", "json", "--state-dir", str(served.state)]
        ended = await served.execute(words, True)
        assert json.loads(ended.said)["state"] == case.afterwards


async def test_a_step_waits_for_the_operation_that_is_in_its_way_and_is_planned_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path) as served:
        plane: Any = served.plane
        await service_lost(Platform(plane.provider, plane.store, plane.clock))
        run = Run(Output.json, state_dir=served.state, no_input=True)
        guide = Guide(run, books.read("service-outage"), {}, True, 2, execute=served.execute)
        async with Client(f"http://127.0.0.1:{served.port}", state_dir=served.state) as client:
            other = await client.start("reshard", {"to": 3, "batch": 64})
            await client.pause_reshard()

            async def waited_for() -> bool:
                return run.operation == other["id"]

            async with asyncio.TaskGroup() as group:
                group.create_task(guide.through())
                await wait_until(SystemClock(), waited_for, what="the runbook", seconds=20)
                await client.resume_reshard()
        assert "waiting for its end" in capsys.readouterr().err
        assert [step["state"] for step in guide.steps] == ["done", "done"]
        kinds = [each.kind for each in await plane.store.operations()]
        assert kinds == ["provision", "reshard"]


@pytest.mark.parametrize("name", books.names())
def test_every_command_and_operation_of_a_runbook_is_one_that_exists(name: str) -> None:
    book = books.read(name)
    values = {ask.name: ask.example for ask in book.asks}
    assert {ask.name for ask in book.asks} == set().union(*(step.wanted for step in book.steps))
    for step in book.steps:
        assert all((step.title, step.does, step.expect, step.stop))
        if step.verb is not None:
            arguments.check(step.verb, VERBS[step.verb], step.arguments(values))
            continue
        words = step.words(values)
        changes = "reason" in parse(words).params and words[1:2] != ["plan"]
        assert changes == (step.confirm != "none")
        if changes:
            parse([*words, "--yes", "--reason", "why"])
        if step.confirm == "name":
            parse([*words, "--confirm", "two-regions"])


def test_every_drill_has_a_runbook_and_its_row_of_the_table() -> None:
    rows = {row.scenario for row in load("two-regions").objectives}
    for name, drill in drills.DRILLS.items():
        book = books.read(name)
        assert (book.drill, book.scenario) == (name, drill.scenario)
        assert book.scenario in rows or drill.limits
    assert {books.read(name).drill for name in books.names()} <= {None, *drills.DRILLS}


@pytest.mark.parametrize("name", books.names())
def test_every_step_that_a_text_names_exists(name: str) -> None:
    known = {*HANDLERS, *PLANNERS, *books.names()}
    assert set(STEP.findall(books.read(name).text)) <= known


def test_a_problem_names_a_runbook_that_exists() -> None:
    named = set()
    for folder in ("cli", "control_plane", "infra", "runtime"):
        for path in (ROOT / folder).rglob("*.py"):
            named |= set(NAMED.findall(path.read_text()))
    assert "database-failure" in named
    assert named <= set(books.names())


async def test_the_runbook_of_a_restore_names_every_step_of_one_in_place() -> None:
    async with Platform.open() as platform:
        await scenarios.backed_up(platform)
        await platform.provider.inject(Fault("freeze", "s1.us-west-2a"))
        plan = await platform.plan("restore", database="s1", to="in-place")
        told = set(WORD.findall(books.read("restore").text))
        assert {step.name for step in plan.steps} <= told


async def test_the_runbooks_of_a_region_name_every_step_of_its_failover_and_failback() -> None:
    async with Platform.open() as platform:
        await scenarios.region_lost(platform)
        plan = await platform.plan("failover", **scenarios.LOSS)
        assert {step.name for step in plan.steps} <= set(
            WORD.findall(books.read("region-failure").text)
        )
        await platform.carry_out(plan)
        plan = await platform.plan("failback")
        assert {step.name for step in plan.steps} <= set(WORD.findall(books.read("failback").text))
