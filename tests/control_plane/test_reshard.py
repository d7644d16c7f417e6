"""Resharding on a platform in memory: failovers and crashes in the middle, pauses, trouble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from control_plane.operations import Operation, run
from control_plane.plans.reshard_moves import owners
from control_plane.steps import HANDLERS, reshard_watch
from control_plane.world import World
from infra.moves import Compared
from infra.provider import Fault
from runtime.clock import FakeClock
from runtime.errors import Unavailable
from tests.control_plane.platform import Platform
from tests.control_plane.resharding import (
    FOUR,
    before_step,
    go_on,
    lose_primary,
    start,
    whole,
    write_everywhere,
)
from tests.control_plane.scenarios import GROW, LOSS, used
from tests.control_plane.toys import Crash, world_of


@pytest.mark.parametrize("database", ["s1", "s3"])
async def test_a_failover_before_any_step_changes_nothing_about_the_end(database: str) -> None:
    async with Platform.open() as platform:
        await used(platform)
        steps = (await platform.plan("reshard", **FOUR)).steps
    first = next(n for n, step in enumerate(steps) if step.name == "begin-move")
    for number in range(first if database == "s3" else 1, len(steps)):
        async with Platform.open() as platform:
            await used(platform)
            operation = await start(platform, await platform.plan("reshard", **FOUR))

            async def lose(platform: Platform = platform) -> None:
                write_everywhere(platform, "before")
                await lose_primary(platform, database)
                write_everywhere(platform, "after")

            ended = await go_on(platform, operation, before_step(number, lose))
            assert ended.state == "succeeded", (number, steps[number].name, ended.problem)
            shard_map = await platform.map()
            assert {owners(shard_map.ranges).count(f"s{n}") for n in (1, 2, 3, 4)} == {256}
            await whole(platform)


async def test_a_reshard_that_begins_beside_a_failover_waits_until_that_has_ended(
    platform: Platform,
) -> None:
    """It was planned on a whole platform; what else is in its way is refused at once."""
    await platform.run("reshard", **FOUR)
    await platform.run("reshard-finish", early=True)
    operation = await start(platform, await platform.plan("reshard", to=2))
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))
    await platform.run("relax-sync", database="s1")

    class Meanwhile(FakeClock):
        async def sleep(self, seconds: float) -> None:
            if not (await platform.map()).shards["s1"].sync:
                await platform.run("rejoin", database="s1")
            await super().sleep(seconds)

    claim = await platform.store.claim(operation.id, "worker")
    assert claim is not None
    make = world_of(platform.store, Meanwhile(), platform.provider)
    ended = await run(platform.store, claim, dict(HANDLERS), make)
    assert ended.state == "succeeded", ended.problem
    await platform.run("reshard-rollback")

    operation = await start(platform, await platform.plan("reshard", to=2))
    platform.provider.moves.refused["s2"] = "its disk is full"
    ended = await go_on(platform, operation)
    assert (ended.state, ended.next_step and ended.next_step.name) == ("failed", "check-moves")
    assert ended.problem is not None
    assert "its disk is full" in ended.problem["detail"]
    assert "times" not in ended.problem["detail"]


@pytest.mark.parametrize("step", ["set-epochs", "clone-standbys", "join-sync"])
async def test_a_new_shard_whose_only_server_dies_while_it_is_made_is_made_all_the_same(
    platform: Platform, step: str
) -> None:
    plan = await platform.plan("reshard", **FOUR)
    number = [each.name for each in plan.steps].index(step)
    operation = await start(platform, plan)

    async def lose() -> None:
        await platform.provider.inject(Fault("kill", "s3.us-east-1a"))

    ended = await go_on(platform, operation, before_step(number, lose))
    assert ended.state == "succeeded", ended.problem
    await whole(platform)


STAGES = ("fenced", "drained", "marked", "owned", "moved")


@pytest.mark.parametrize("lost", [None, "s1", "s3"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_control_plane_that_dies_inside_a_hand_over_leaves_one_owner(
    stage: str, lost: str | None
) -> None:
    """Also when the primary of one side dies with it, and its standby takes over first."""
    async with Platform.open() as platform:
        await used(platform)
        operation = await start(platform, await platform.plan("reshard", **FOUR))
        armed = [True]
        results: Mapping[int, Any] = {}
        make = world_of(platform.store, platform.clock, platform.provider)

        def die(at: str) -> None:
            if armed and at == stage and operation.plan.steps[len(results)].name == "hand-over":
                armed.clear()
                raise Crash

        def remember(operation: Operation, found: Mapping[int, Any]) -> World:
            nonlocal results
            results = found
            world: World = make(operation, found)
            return world

        platform.provider.moves.at = die
        claim = await platform.store.claim(operation.id, "first")
        assert claim is not None
        with pytest.raises(Crash):
            await run(platform.store, claim, dict(HANDLERS), remember)
        write_everywhere(platform, "between")
        if lost is not None:
            await lose_primary(platform, lost)
            write_everywhere(platform, "after failover")
        ended = await go_on(platform, operation)
        assert ended.state == "succeeded", ended.problem
        write_everywhere(platform, "last")
        await whole(platform)


async def test_a_hand_over_whose_map_was_not_saved_gets_an_epoch_above_a_failovers(
    platform: Platform,
) -> None:
    """A failover between the two takes the next epoch of the map: no owner may share it."""
    await platform.run("reshard", to=4, batch=256)
    await platform.run("reshard-rollback", batch=256)
    plan = await platform.plan("reshard", to=4, batch=256)
    number = [step.name for step in plan.steps].index("hand-over")
    await platform.carry_out(replace(plan, steps=plan.steps[:number]))
    shard_map = await platform.map()
    move = shard_map.moves[0]
    slots = range(move.first, move.last + 1)
    given = await platform.provider.moves.hand_over(move, shard_map, slots, budget_seconds=1)
    await lose_primary(platform, "s2")
    await platform.carry_out(replace(plan, steps=plan.steps[number : number + 1]))
    place = (await platform.map()).place(move.first)
    assert (place.shard.name, place.epoch > given.epoch) == ("s3", True)
    assert platform.provider.write_slot(move.first, "under the newer epoch")
    await whole(platform)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("database", ["s1", "s3"])
async def test_a_failover_between_the_hand_over_and_its_comparison_is_survived(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, database: str, back: bool
) -> None:
    """The snapshots are gone with the primary, and so are the streams."""
    await used(platform)
    if back:
        await platform.run("reshard", **FOUR)
    moves, armed = platform.provider.moves, [True]
    real = moves.compare

    async def compare(*args: Any) -> Compared:
        if armed:
            armed.clear()
            await lose_primary(platform, database)
            raise Unavailable("the connection is gone")
        return await real(*args)

    monkeypatch.setattr(moves, "compare", compare)
    plan = await platform.plan("reshard-rollback" if back else "reshard", **({} if back else FOUR))
    ended = await go_on(platform, await start(platform, plan))
    assert ended.state == "succeeded", ended.problem
    assert not armed
    await whole(platform)


async def test_a_fence_that_does_not_drain_is_tried_again_and_in_the_end_given_up(
    platform: Platform,
) -> None:
    platform.provider.moves.stuck["s1"] = 3
    await platform.run("reshard", **FOUR)
    await platform.run("reshard-rollback")
    platform.provider.moves.stuck["s2"] = 100
    operation = await start(platform, await platform.plan("reshard", **FOUR))
    ended = await go_on(platform, operation)
    assert (ended.state, ended.next_step and ended.next_step.name) == ("failed", "rehearse-move")
    assert ended.problem is not None
    assert "did not end" in ended.problem["detail"]
    write_everywhere(platform, "still")
    platform.provider.moves.stuck.clear()
    await platform.store.resume(operation.id)
    assert (await go_on(platform, operation)).state == "succeeded"
    await whole(platform)


async def test_rows_that_differ_stop_the_reshard_and_nothing_is_deleted(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def differ(*_: Any) -> Compared:
        return Compared(10, False, (256, 257))

    monkeypatch.setattr(platform.provider.moves, "compare", differ)
    operation = await start(platform, await platform.plan("reshard", **FOUR))
    ended = await go_on(platform, operation)
    assert ended.problem is not None
    assert "shard rollback" in ended.problem["hint"]
    assert ended.problem["extra"]["slots"] == [256, 257]

    operation = await start(platform, await platform.plan("reshard-rollback"))
    ended = await go_on(platform, operation)
    assert ended.next_step is not None
    assert (ended.state, ended.next_step.name) == ("failed", "finish-move")
    assert set(owners((await platform.map()).ranges)) == {"s1", "s2"}
    assert len((await platform.map()).moves) == 1

    monkeypatch.undo()
    await platform.run("reshard-abort")
    assert (await platform.map()).moves == ()
    assert platform.topology.shards == ("s1", "s2")
    await whole(platform)


async def test_a_conflict_stops_the_reshard_at_once_and_keeps_both_sides(
    platform: Platform,
) -> None:
    await used(platform)
    plan = await platform.plan("reshard", **FOUR)
    copying = next(n for n, step in enumerate(plan.steps) if step.name == "await-copy")
    slot = plan.steps[copying].args["first"]
    stray = f"{slot}~stray"

    async def plant() -> None:
        target = plan.steps[copying].args["target"]
        primary = (await platform.map()).shards[target].primary.instance
        platform.provider.nodes[primary].wal.append(stray)

    ended = await go_on(platform, await start(platform, plan), before_step(copying, plant))
    assert ended.problem is not None
    assert (ended.state, "conflict" in ended.problem["detail"]) == ("failed", True)
    nodes = platform.provider.nodes.values()
    assert any(stray in node.wal for node in nodes if node.primary)
    assert len((await platform.map()).moves) == 1
    await platform.run("reshard-abort")
    await whole(platform)


async def test_a_stream_that_goes_on_breaking_fails_the_step_and_keeps_both_sides(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> None:
        """Begins nothing, so that the stream stays lost."""

    monkeypatch.setattr(platform.provider.moves, "start", nothing)
    operation = await start(platform, await platform.plan("reshard", **FOUR))
    ended = await go_on(platform, operation)
    assert (ended.state, ended.next_step and ended.next_step.name) == ("failed", "await-copy")
    assert ended.problem is not None
    assert f"broke {reshard_watch.RESTARTS + 1} times" in ended.problem["detail"]
    assert "shard abort" in ended.problem["hint"]


@pytest.mark.parametrize("broken", [False, True])
async def test_a_paused_reshard_waits_until_it_is_resumed(platform: Platform, broken: bool) -> None:
    """Also when the source gave up meanwhile to keep what the stream still needs."""
    await used(platform)
    operation = await start(platform, await platform.plan("reshard", **FOUR))
    store, waits = platform.store, []

    async def pause() -> None:
        await store.append_event("reshard-paused", {}, operation.id)

    real = platform.clock.sleep

    async def sleep(seconds: float) -> None:
        if await store.reshard_paused(operation.id):
            waits.append(seconds)
            if broken and 10 <= len(waits) < 50:
                for stream in platform.provider.moves.streams.values():
                    stream.problem = "no longer keeps what the stream needs"
            if len(waits) == 50:
                held = {stream.held for stream in platform.provider.moves.streams.values()}
                assert held == {True}
                await store.append_event("reshard-resumed", {}, operation.id)
        await real(seconds)

    platform.clock.sleep = sleep  # type: ignore[method-assign]
    number = [step.name for step in operation.plan.steps].index("await-copy")
    ended = await go_on(platform, operation, before_step(number, pause))
    assert ended.state == "succeeded"
    assert len(waits) == 50
    await whole(platform)


async def test_an_aborted_reshard_ends_in_the_middle_of_its_wait(platform: Platform) -> None:
    operation = await start(platform, await platform.plan("reshard", **FOUR))

    async def stop() -> None:
        await platform.store.append_event("reshard-paused", {}, operation.id)
        await platform.store.abort(operation.id, "enough")

    number = [step.name for step in operation.plan.steps].index("await-copy")
    ended = await go_on(platform, operation, before_step(number, stop))
    assert ended.state == "aborted"
    await platform.run("reshard-abort")
    assert (await platform.map()).moves == ()
    assert (await platform.plan("provision")).steps == ()


@pytest.mark.parametrize("cut", [False, True])
async def test_after_the_loss_of_a_region_in_a_move_each_slot_has_the_owner_of_the_map(
    platform: Platform, cut: bool
) -> None:
    """The replicas elsewhere are of unlike age: one may know of a hand-over, the other not."""
    await used(platform)
    plan = await platform.plan("reshard", **GROW)
    first = [step.name for step in plan.steps].index("hand-over")
    await platform.carry_out(replace(plan, steps=plan.steps[:first]))

    def cut_behind_the_last_look(stage: str) -> None:
        if cut:
            platform.provider.cut.add(frozenset({"us-east-1", "us-west-2"}))

    platform.provider.moves.at = cut_behind_the_last_look
    await platform.carry_out(replace(plan, steps=plan.steps[first : first + 1]))
    await platform.provider.inject(Fault("kill-region", "us-east-1"))
    await platform.run("failover", **LOSS)
    await whole(platform)
    await platform.run("reshard-abort")
    await whole(platform)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("back", [False, True])
async def test_no_slot_is_handed_over_while_the_link_between_the_regions_is_cut(
    platform: Platform, back: bool, lost: bool
) -> None:
    """The old owner's replica has the rows; the new owner's would lack them if a region is lost."""
    await used(platform)
    if back:
        await platform.run("reshard", **GROW)
    plan = await platform.plan("reshard-rollback" if back else "reshard", **({} if back else GROW))
    if not back:
        steps = [step.name for step in plan.steps].index("start-move")
        await platform.carry_out(replace(plan, steps=plan.steps[:steps]))
        plan = replace(plan, steps=plan.steps[steps:])
    before = owners((await platform.map()).ranges)
    await platform.provider.inject(Fault("cut-link", "us-east-1/us-west-2"))
    operation = await start(platform, plan)
    waits: list[float] = []
    real = platform.clock.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 50:
            assert owners((await platform.map()).ranges) == before
            if lost:
                await platform.store.abort(operation.id, "the region is lost")
            else:
                await platform.provider.heal(Fault("cut-link", "us-east-1/us-west-2"))
        await real(seconds)

    platform.clock.sleep = sleep  # type: ignore[method-assign]
    ended = await go_on(platform, operation)
    assert len(waits) >= 50
    if lost:
        assert ended.state == "aborted"
        await platform.provider.inject(Fault("kill-region", "us-east-1"))
        await platform.run("failover", **LOSS)
    else:
        assert ended.state == "succeeded", ended.problem
    await whole(platform)
    events = await platform.store.events(operation_id=operation.id)
    assert any("does not follow" in str(event.data.get("message")) for event in events)
