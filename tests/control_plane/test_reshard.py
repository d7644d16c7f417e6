"""Resharding on a platform in memory: failovers and crashes in the middle, pauses, trouble."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from control_plane.decisions import repairs
from control_plane.operations import Handler, Operation, run
from control_plane.plan import Plan
from control_plane.plans.reshard_moves import owners
from control_plane.steps import HANDLERS, reshard_copy
from control_plane.world import World
from infra.moves import Compared
from infra.provider import Fault
from runtime.errors import Invalid, OperationFailed, Refused
from runtime.shardmap import SLOTS
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import GROW, copying, grown, half_grown, settled, soaked, used
from tests.control_plane.toys import Crash, world_of

FOUR: dict[str, Any] = {"to": 4, "batch": 128}


async def whole(platform: Platform) -> None:
    """Nothing acknowledged is lost, and each slot has the one owner that the map names."""
    assert platform.provider.lost() == []
    shard_map = await platform.map()
    for slot in range(0, SLOTS, 17):
        owner = shard_map.place(slot).shard.primary.instance
        assert platform.provider.owners(slot) == [owner], slot


def write_everywhere(platform: Platform, name: str) -> None:
    """Customers write; who meets a fence or a failover would wait, and here gives up."""
    for slot in range(0, SLOTS, 31):
        platform.provider.write_slot(slot, f"{name}-{slot}")


async def start(platform: Platform, plan: Plan) -> Operation:
    return await platform.store.create_operation(plan, "test", None, "pytest")


async def go_on(
    platform: Platform, operation: Operation, handlers: dict[str, Handler] | None = None
) -> Operation:
    """One worker's life: to the end of the operation, or to its own."""
    claim = await platform.store.claim(operation.id, "worker")
    assert claim is not None
    make = world_of(platform.store, platform.clock, platform.provider)
    return await run(platform.store, claim, handlers or dict(HANDLERS), make)


async def lose_primary(platform: Platform, database: str) -> None:
    """Its standby takes over, and then the old one comes back as a standby."""
    primary = (await platform.map()).shards[database].primary.instance
    await platform.provider.inject(Fault("kill", primary))
    for verb, asked in (("failover", {"target": database}), ("rejoin", {"database": database})):
        plan = await platform.plan(verb, **asked)
        await platform.store.create_operation(plan, verb, None, "sentinel")
        ended = await go_on(platform, (await platform.store.operations(limit=1))[0])
        assert ended.state == "succeeded", ended.problem


def before_step(number: int, do: Callable[[], Awaitable[None]]) -> dict[str, Handler]:
    """The real handlers; `do` happens once, before step `number`."""
    armed = [True]

    def wrapped(handler: Handler) -> Handler:
        async def call(world: World, **args: Any) -> Any:
            if armed and len(world.results) == number and world.plan.kind.startswith("reshard"):
                armed.clear()
                await do()
            return await handler(world, **args)

        return call

    return {name: wrapped(handler) for name, handler in HANDLERS.items()}


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
    assert f"broke {reshard_copy.RESTARTS + 1} times" in ended.problem["detail"]
    assert "shard abort" in ended.problem["hint"]


async def test_a_paused_reshard_waits_until_it_is_resumed(platform: Platform) -> None:
    await used(platform)
    operation = await start(platform, await platform.plan("reshard", **FOUR))
    store, waits = platform.store, []

    async def pause() -> None:
        await store.append_event("reshard-paused", {}, operation.id)

    real = platform.clock.sleep

    async def sleep(seconds: float) -> None:
        if await store.reshard_paused(operation.id):
            waits.append(seconds)
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


@pytest.mark.parametrize(
    ("prepare", "verb"),
    [
        (grown, "reshard-rollback"),
        (half_grown, "reshard-rollback"),
        (copying, "reshard-abort"),
        (soaked, "reshard-finish"),
    ],
)
async def test_after_the_end_the_platform_is_as_if_made_so(
    platform: Platform, prepare: Callable[[Platform], Awaitable[None]], verb: str
) -> None:
    await prepare(platform)
    await platform.run(verb)
    shard_map = await platform.map()
    owning = {name for name in shard_map.shards if shard_map.slots_of(name)}
    assert owning == set(platform.topology.shards) == set(shard_map.shards) - {"catalog"}
    assert shard_map.moves == ()
    assert (await platform.plan("provision")).steps == ()
    rows = [node.rows() for node in platform.provider.nodes.values() if node.primary]
    assert all(sum(slot in each for each in rows) <= 1 for slot in range(SLOTS))
    await whole(platform)


async def test_a_lost_way_back_refuses_the_rollback_and_says_what_can_be_done(
    platform: Platform,
) -> None:
    await grown(platform)
    await lose_primary(platform, "s3")
    operation = await start(platform, await platform.plan("reshard-rollback"))
    ended = await go_on(platform, operation)
    assert ended.state == "failed"
    assert ended.problem is not None
    assert "lost" in ended.problem["detail"]
    await whole(platform)


async def test_fewer_shards_keep_every_row_and_the_empty_ones_end(platform: Platform) -> None:
    await settled(platform)
    await platform.run("reshard", **{**GROW, "to": 2})
    write_everywhere(platform, "soaking")
    assert "s3.us-east-1a" in platform.provider.nodes
    await platform.run("reshard-finish", early=True)
    assert not [id for id in platform.provider.nodes if id.startswith("s3.")]
    assert platform.topology.shards == ("s1", "s2")
    await whole(platform)


async def test_a_process_with_the_old_topology_ends_so_that_the_next_one_goes_on(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local platform's topology is read once, when the process starts."""
    ended: list[bool] = []
    make = world_of(platform.store, platform.clock, platform.provider)
    operation = await start(platform, await platform.plan("reshard", **FOUR))
    stays = platform.provider.topology

    async def remember(count: int) -> None:
        nonlocal stays
        stays = platform.topology.with_shards(count)

    monkeypatch.setattr(platform.provider, "set_shards", remember)
    world = replace(make(operation, {}), restart=lambda: ended.append(True))
    with pytest.raises(OperationFailed, match="still runs"):
        await HANDLERS["adopt-shards"](world, count=4)
    assert ended == [True]
    platform.provider.topology = stays
    assert await HANDLERS["adopt-shards"](world, count=4) == {"shards": 4}
    assert ended == [True]


@pytest.mark.parametrize("asked", [{"to": 0}, {"to": 65}, {"to": 4, "batch": 0}, {"to": "4"}])
async def test_what_makes_no_sense_is_invalid(platform: Platform, asked: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await platform.plan("reshard", **asked)


async def test_a_reshard_is_refused_when_there_is_nothing_to_do_or_it_is_not_the_time(
    platform: Platform,
) -> None:
    with pytest.raises(Refused, match="already"):
        await platform.plan("reshard", to=2)
    for verb in ("reshard-rollback", "reshard-finish", "reshard-abort"):
        with pytest.raises(Refused):
            await platform.plan(verb)
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))
    await platform.run("relax-sync", database="s1")
    with pytest.raises(Refused, match="s1 has no standby in sync"):
        await platform.plan("reshard", to=4)
    await platform.run("rejoin", database="s1")
    platform.provider.moves.refused["s2"] = "12 GiB are needed, 3 are free"
    operation = await start(platform, await platform.plan("reshard", to=1))
    ended = await go_on(platform, operation)
    assert ended.problem is not None
    assert "12 GiB" in ended.problem["detail"]
    assert (await platform.map()).moves == ()


async def test_another_reshard_waits_for_the_end_of_the_last(platform: Platform) -> None:
    await grown(platform)
    with pytest.raises(Refused, match="taken back") as refused:
        await platform.plan("reshard", to=4)
    assert "finish" in (refused.value.hint or "")
    with pytest.raises(Refused, match="soak ends"):
        await platform.plan("reshard-finish")
    with pytest.raises(Refused, match="nothing to abort"):
        await platform.plan("reshard-abort")


async def test_an_unfinished_reshard_is_neither_finished_nor_begun_again(
    platform: Platform,
) -> None:
    await half_grown(platform)
    with pytest.raises(Refused, match="not over"):
        await platform.plan("reshard", to=4)
    with pytest.raises(Refused, match="Not every slot"):
        await platform.plan("reshard-finish")


async def test_nobody_else_mends_a_shard_that_is_still_being_made(platform: Platform) -> None:
    plan = await platform.plan("reshard", **FOUR)
    names = [step.name for step in plan.steps]

    async def astray() -> set[str]:
        observed = await platform.provider.observe()
        return {each.target for each in repairs(platform.topology, observed, await platform.map())}

    made, joined = names.index("clone-standbys"), names.index("begin-move")
    await platform.carry_out(replace(plan, steps=plan.steps[:made]))
    assert await astray() == set()
    await platform.carry_out(replace(plan, steps=plan.steps[made:joined]))
    await platform.provider.inject(Fault("kill", "s3.us-east-1b"))
    await platform.run("relax-sync", database="s3")
    assert await astray() == {"s3"}
