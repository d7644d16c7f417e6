"""The worker: at once, side by side, and after a kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control_plane.operations import Handler, Operation
from control_plane.plan import Plan, Step
from control_plane.store import Store, open_store
from control_plane.worker import Worker
from control_plane.world import World
from runtime.clock import SystemClock, wait_until
from tests.control_plane.toys import new_store, toy, toy_handlers, world_of

CLOCK = SystemClock()


@asynccontextmanager
async def working(store: Store, handlers: dict[str, Handler]) -> AsyncIterator[Worker]:
    worker = Worker(store, handlers, world_of(store, CLOCK), "test")
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(store: Store, id: str) -> Operation:
    async def finished() -> Operation | None:
        operation = await store.operation(id)
        return operation if operation.finished else None

    return await wait_until(CLOCK, finished, what=f"{id} to end", seconds=20, every=0.01)


async def test_an_operation_is_begun_as_soon_as_it_is_created(tmp_path: Path) -> None:
    async with new_store(tmp_path, CLOCK) as store, working(store, toy_handlers({}, "a")):
        await wait_until(CLOCK, _idle(store), what="an idle worker", seconds=30, every=0.01)
        operation = await store.create_operation(toy("a"), "", None, "test")
        done = await ended(store, operation.id)
    assert done.started_at is not None
    assert (done.started_at - done.created_at).total_seconds() < 0.5


def _idle(store: Store) -> Callable[[], Awaitable[bool]]:
    async def idle() -> bool:
        return not store.waiting.is_set()

    return idle


async def test_a_drill_runs_while_the_recovery_runs_that_it_waits_for(tmp_path: Path) -> None:
    recovered = asyncio.Event()

    async def wait_for_recovery(_: World) -> None:
        await recovered.wait()

    async def recover(_: World) -> None:
        recovered.set()

    handlers: dict[str, Handler] = {"await": wait_for_recovery, "recover": recover}
    async with new_store(tmp_path, CLOCK) as store, working(store, handlers):
        drill = Plan("drill", "x", (Step("await"),), ("drill",))
        first = await store.create_operation(drill, "", None, "test")
        second = await store.create_operation(
            Plan("failover", "s1", (Step("recover"),), ("database:s1",)), "", None, "sentinel"
        )
        assert (await ended(store, second.id)).state == "succeeded"
        assert (await ended(store, first.id)).state == "succeeded"


async def test_what_a_dead_worker_left_is_taken_over_at_the_start(tmp_path: Path) -> None:
    world: dict[str, str] = {}
    async with new_store(tmp_path, CLOCK) as store:
        operation = await store.create_operation(toy("a", "b"), "", None, "test")
        claim = await store.claim(operation.id, "dead")
        assert claim is not None
        await store.record_success(claim, 0, None)
        async with working(store, toy_handlers(world, "a", "b")):
            done = await ended(store, operation.id)
    assert done.state == "succeeded"
    assert world == {"b": "b"}
    assert [step.attempts for step in done.steps] == [1, 2]


async def test_a_resumed_operation_is_begun_at_once(tmp_path: Path) -> None:
    handlers = toy_handlers({}, "a")
    async with new_store(tmp_path, CLOCK) as store, working(store, handlers) as worker:
        operation = await store.create_operation(toy("a", "b"), "", None, "test")
        assert (await ended(store, operation.id)).state == "failed"
        worker.handlers = {**handlers, **toy_handlers({}, "b")}
        await store.resume(operation.id)
        assert (await ended(store, operation.id)).state == "succeeded"


STEPS = 40
PROGRAM = """
import asyncio, sys
from pathlib import Path
from control_plane.store import open_store
from control_plane.worker import Worker
from runtime.clock import SystemClock
from tests.control_plane.toys import world_of

async def mark(world, *, number):
    with open(sys.argv[2], "a") as file:
        file.write(f"{number}\\n")
    await asyncio.sleep(0.005)

async def main():
    clock = SystemClock()
    store = await open_store(sys.argv[1], clock)
    await Worker(store, {"mark": mark}, world_of(store, clock), "child").run()

asyncio.run(main())
"""


@pytest.mark.process
async def test_kill_9_at_any_moment_loses_no_operation_and_no_step(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'control.db'}"
    marks = tmp_path / "marks"
    marks.touch()
    store = await open_store(url, CLOCK)
    plan = Plan("toy", "x", tuple(Step("mark", {"number": n}) for n in range(STEPS)))
    operation = await store.create_operation(plan, "", None, "test")
    kills = 0
    try:
        for wanted in (5, 17, 29, 10 * STEPS):
            child = _start(url, marks)
            try:
                kills += await _killed_at(child, marks, wanted, store, operation.id)
            finally:
                child.kill()
                child.wait()
        done = await store.operation(operation.id)
    finally:
        await store.database.close()
    assert done.state == "succeeded"
    assert kills == 3
    assert done.epoch == kills + 1
    seen = [int(line) for line in marks.read_text().split()]
    assert sorted(set(seen)) == list(range(STEPS))
    assert seen == sorted(seen)
    assert len(seen) <= STEPS + kills


def _start(url: str, marks: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, url, str(marks)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


async def _killed_at(
    child: subprocess.Popen[bytes], marks: Path, wanted: int, store: Store, id: str
) -> int:
    """Kills the child when `wanted` steps have begun (1), or lets it finish (0)."""

    def count() -> int:
        return len(marks.read_text().split())

    async def reached() -> bool:
        return count() >= wanted or (await store.operation(id)).finished

    await wait_until(CLOCK, reached, what=f"{wanted} marks", seconds=20, every=0.002)
    if (await store.operation(id)).finished:
        return 0
    os.kill(child.pid, signal.SIGKILL)
    return 1
