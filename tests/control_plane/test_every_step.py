"""Every plan x every step x every interruption: the operation ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.operations import Handler, Operation, run
from control_plane.plan import Plan
from control_plane.plans import PLANNERS
from control_plane.steps import HANDLERS
from control_plane.world import World
from infra.provider import Observed
from runtime.errors import OperationFailed
from runtime.shardmap import ShardMap
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import SCENARIOS
from tests.control_plane.toys import Crash, world_of

Interruption = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


async def crash_before(effect: Callable[[], Awaitable[Any]]) -> Any:
    raise Crash


async def crash_after(effect: Callable[[], Awaitable[Any]]) -> Any:
    await effect()
    raise Crash


async def fail_before(effect: Callable[[], Awaitable[Any]]) -> Any:
    raise OperationFailed("planted")


async def fail_after(effect: Callable[[], Awaitable[Any]]) -> Any:
    await effect()
    raise OperationFailed("planted")


async def repeat(effect: Callable[[], Awaitable[Any]]) -> Any:
    await effect()
    return await effect()


INTERRUPTIONS: dict[str, Interruption] = {
    each.__name__: each for each in (crash_before, crash_after, fail_before, fail_after, repeat)
}


# Whose effect is left behind by a step that did not end: what comes later may trip over it, so one
# run interrupts two steps only, half a plan apart. The others leave nothing behind, or are over
# with the step: one run interrupts every step.
LEAVING = {crash_after.__name__, fail_after.__name__}


def runs(steps: int, interruption: str) -> list[set[int]]:
    """Which steps each run interrupts; every one of `steps` once."""
    apart = (steps + 1) // 2 if interruption in LEAVING else 1
    return [set(range(first, steps, apart)) for first in range(apart)]


def interrupted(left: set[int], by: Interruption) -> dict[str, Handler]:
    """The real handlers; the steps with the numbers in `left` are interrupted at their first
    attempt, and leave it."""

    def wrapped(name: str) -> Handler:
        async def handler(world: World, **args: Any) -> Any:
            async def effect() -> Any:
                return await HANDLERS[name](world, **args)

            number = len(world.results)
            if number in left:
                left.discard(number)
                return await by(effect)
            return await effect()

        return handler

    return {name: wrapped(name) for name in HANDLERS}


async def carry_out(platform: Platform, plan: Plan, handlers: Mapping[str, Handler]) -> Operation:
    """Runs `plan` as an operation: claimed again after a crash, resumed after a failure."""
    store = platform.store
    operation = await store.create_operation(plan, "test", None, "pytest")
    make = world_of(store, platform.clock, platform.provider, platform.topology)
    for worker in range(len(plan.steps) + 2):
        claim = await store.claim(operation.id, f"worker-{worker}")
        if claim is None:
            break
        try:
            operation = await run(store, claim, handlers, make)
        except Crash:
            continue
        if operation.state != "failed":
            break
        await store.resume(operation.id)
    return await store.operation(operation.id)


@dataclass
class Prepared:
    """A scenario's situation, made once, and how its plan ends there when nothing disturbs it."""

    platform: Platform
    database: Path
    plan: Plan
    expected: Any


PREPARED: dict[str, Prepared] = {}


async def prepared(name: str, folder: Path) -> Prepared:
    if name not in PREPARED:
        scenario, database = SCENARIOS[name], folder / f"{name}.db"
        async with Platform.open(database=database) as platform:
            await scenario.prepare(platform)
            plan = await platform.plan(scenario.verb, **scenario.asked)
        async with Platform.copy(platform, database) as undisturbed:
            expected = await outcome(undisturbed, plan, HANDLERS)
        PREPARED[name] = Prepared(platform, database, plan, expected)
    return PREPARED[name]


async def outcome(platform: Platform, plan: Plan, handlers: Mapping[str, Handler]) -> Any:
    """What the world and the map are after the plan."""
    operation = await carry_out(platform, plan, handlers)
    assert operation.state == "succeeded", operation.problem
    observed = await platform.provider.observe()
    lost = platform.provider.lost()
    return comparable(observed), without_times(await platform.map()), lost


def comparable(observed: Observed) -> Observed:
    """Without the time, which passes."""
    epoch = observed.at.replace(year=2000, month=1, day=1, hour=0, minute=0, second=0)
    return replace(observed, at=epoch.replace(microsecond=0))


def without_times(shard_map: ShardMap) -> ShardMap:
    """A soak ends later when something was tried again before it began."""
    moves = tuple(
        replace(move, soak_until="later" if move.soak_until else None) for move in shard_map.moves
    )
    return replace(shard_map, moves=moves)


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_interrupted_plan_ends_like_an_uninterrupted_one(
    name: str, interruption: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = await prepared(name, tmp_path_factory.mktemp("prepared"))
    assert known.plan.steps
    for together in runs(len(known.plan.steps), interruption):
        left = set(together)
        handlers = interrupted(left, INTERRUPTIONS[interruption])
        async with Platform.copy(known.platform, known.database) as platform:
            found = await outcome(platform, known.plan, handlers)
        assert not left
        assert found == known.expected, f"{interruption} at {steps(known.plan, together)}"


def steps(plan: Plan, numbers: set[int]) -> str:
    return ", ".join(f"step {number}, {plan.steps[number].name}" for number in sorted(numbers))


def test_every_planner_has_a_scenario() -> None:
    assert {scenario.verb for scenario in SCENARIOS.values()} == set(PLANNERS)
