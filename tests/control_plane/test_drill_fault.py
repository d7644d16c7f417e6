"""The fault of a drill: injected once, timed honestly, and not at all on another state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from control_plane import drills, evidence
from control_plane.plan import Step
from control_plane.steps import HANDLERS
from control_plane.steps.drill_files import kept, raw_files, run_folder
from control_plane.world import World
from infra.memory import MemoryProvider
from infra.provider import Fault, Injected
from infra.topology import load
from runtime.clock import FakeClock
from runtime.errors import Refused
from tests.control_plane.test_drills import whole
from tests.control_plane.toys import Crash, new_store, world_of

TOPOLOGY = load("two-regions")
Moment = Literal["before", "after"]


@dataclass
class Scene:
    """A whole platform in memory and a drill's step that breaks it."""

    provider: MemoryProvider
    clock: FakeClock
    world: World
    step: Step
    injected: list[float] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return run_folder(self.world, 1)

    async def inject(self) -> Any:
        return await HANDLERS["inject-fault"](self.world, **self.step.args)

    def dies(self, moment: Moment) -> None:
        """The worker dies at the next injection, before or after anything is broken."""
        inject = self.provider.inject
        armed = [True]

        async def dying(fault: Fault) -> Injected:
            if armed and moment == "before":
                armed.clear()
                raise Crash
            self.injected.append(self.clock.monotonic())
            found = await inject(fault)
            if armed:
                armed.clear()
                raise Crash
            return found

        self.provider.inject = dying  # type: ignore[method-assign]

    def refuses_until(self, possible: float) -> None:
        """Until then there is nothing that could be broken."""
        inject = self.provider.inject

        async def refusing(fault: Fault) -> Injected:
            if self.clock.monotonic() < possible:
                raise Refused("Only 2 orders of the shard are settled: too few to corrupt some.")
            return await inject(fault)

        self.provider.inject = refusing  # type: ignore[method-assign]


# The drills that break processes; the others are tried by interrupting each of their steps.
BREAKING = ("database-failure", "region-failure", "service-outage", "zone-failure")


@pytest_asyncio.fixture(params=BREAKING)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    clock = FakeClock()
    provider, shard_map = await whole(TOPOLOGY, clock)
    async with new_store(tmp_path, clock) as store:
        await store.save_map(shard_map, "test")
        plan = drills.plan(TOPOLOGY, await provider.observe(), shard_map, drill=request.param)
        operation = await store.create_operation(plan, "test", None, "test")
        world = world_of(store, clock, provider, TOPOLOGY, tmp_path)(operation, {})
        yield Scene(
            provider, clock, world, next(step for step in plan.steps if step.name == "inject-fault")
        )


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_fault_is_injected_once_and_never_timed_later_than_it_was(
    scene: Scene, moment: Moment
) -> None:
    scene.dies(moment)
    with suppress(Crash):
        await scene.inject()
    assert not kept(scene.folder, "fault.json")
    scene.clock.advance(7.0)
    document = await scene.inject()
    assert await scene.inject() == document
    (real,) = scene.injected
    assert document["began"] <= real <= document["effective"]
    assert document["began"] >= real - 0.1


async def test_a_fault_that_is_not_possible_yet_is_waited_for(scene: Scene) -> None:
    possible = scene.clock.monotonic() + scene.step.args["phase_seconds"] + 3.0
    scene.refuses_until(possible)
    assert (await scene.inject())["began"] >= possible


async def test_a_fault_that_never_becomes_possible_says_why(scene: Scene) -> None:
    scene.refuses_until(float("inf"))
    with pytest.raises(Refused, match="Only 2 orders"):
        await scene.inject()
    assert not kept(scene.folder, "fault.json")


async def test_what_was_broken_by_halves_is_broken_wholly(scene: Scene) -> None:
    scene.dies("after")
    with suppress(Crash):
        await scene.inject()
    target = scene.step.args["fault"]["target"]
    before = kept(scene.folder, "mark.json")["before"]
    if len(before) < 2:
        pytest.skip("the fault hits one process")
    survivor = next(id for id in before if TOPOLOGY.instance(id).kind == "postgres")
    scene.provider.nodes[survivor].running = True
    scene.provider.deaths[survivor] = 0
    await scene.inject()
    assert len(scene.injected) == 2, target
    assert not scene.provider.nodes[survivor].running


async def test_a_wounded_platform_is_not_broken_further(scene: Scene) -> None:
    await scene.provider.inject(Fault("kill", "s2.us-west-2a"))
    scene.dies("before")
    told = await scene.inject()
    assert "the platform is not whole" in told["leftOut"]
    assert "s2.us-west-2a does not run" in told["leftOut"]
    assert scene.injected == []
    run = evidence.judge(
        drills.find(scene.world.plan.target), 1, {"notrun.json": raw(scene, "notrun.json")}
    )
    assert run.verdict == "void"
    assert "not whole" in run.because[0]
    assert run.fault["fault"]["target"] == scene.step.args["fault"]["target"]
    assert run.fault["at"] is None


async def test_what_is_not_the_primary_any_more_is_left_alone(scene: Scene) -> None:
    moved = scene.step.args["moved"]
    if not moved:
        pytest.skip("the drill moves no primary")
    store = scene.world.store
    instance = next(n.id for n in TOPOLOGY.database_nodes(moved[0]) if n.region == "us-west-2")
    elsewhere = scene.provider.endpoint(instance)
    await store.update_map(
        lambda known: known.with_primary(moved[0], elsewhere, home="us-west-2"), "test"
    )
    scene.dies("before")
    told = await scene.inject()
    assert f"is not the primary of {moved[0]} any more" in told["leftOut"]
    assert scene.injected == []


async def test_every_later_step_of_a_run_that_was_left_out_does_nothing(scene: Scene) -> None:
    await scene.provider.inject(Fault("kill", "s2.us-west-2a"))
    await scene.inject()
    operations = len(await scene.world.store.operations())
    steps = scene.world.plan.steps
    later = steps[[step.name for step in steps].index("inject-fault") + 1 : -1]
    for step in later:
        await HANDLERS[step.name](scene.world, **step.args)
    assert len(await scene.world.store.operations()) == operations
    assert scene.provider.route == "us-east-1"
    assert not kept(scene.folder, "fault.json")


def raw(scene: Scene, name: str) -> bytes:
    return raw_files(scene.folder)[name]
