"""When a reshard may begin on a platform in memory, and how each one ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from control_plane.decisions import left_behind, repairs
from control_plane.sentinel import Sentinel
from control_plane.steps import HANDLERS
from control_plane.world import World
from infra.provider import Fault
from runtime.errors import Invalid, OperationFailed, Refused
from runtime.shardmap import SLOTS, Move
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
from tests.control_plane.scenarios import (
    GROW,
    copying,
    given_unknown,
    grown,
    half_grown,
    settled,
    soaked,
)
from tests.control_plane.toys import world_of


@pytest.mark.parametrize(
    ("prepare", "verb"),
    [
        (grown, "reshard-rollback"),
        (half_grown, "reshard-rollback"),
        (copying, "reshard-abort"),
        (copying, "reshard-rollback"),
        (given_unknown, "reshard-abort"),
        (given_unknown, "reshard-rollback"),
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


async def test_a_move_whose_owners_the_map_does_not_know_is_not_finished(
    platform: Platform,
) -> None:
    await given_unknown(platform)
    (move,) = (await platform.map()).moves
    with pytest.raises(OperationFailed, match="map says") as refused:
        await platform.provider.moves.finish(move, await platform.map())
    assert "shard rollback" in (refused.value.hint or "")
    assert platform.provider.lost() == []
    await platform.run("reshard-rollback")
    await whole(platform)


@pytest.mark.parametrize("lost", ["s1", "s3"])
async def test_a_lost_way_back_is_made_anew_for_the_rollback(platform: Platform, lost: str) -> None:
    await grown(platform)
    await lose_primary(platform, lost)
    write_everywhere(platform, "after failover")
    operation = await start(platform, await platform.plan("reshard-rollback"))
    ended = await go_on(platform, operation)
    assert ended.state == "succeeded", ended.problem
    assert platform.topology.shards == ("s1", "s2")
    await whole(platform)


async def test_a_rollback_goes_back_on_its_own_stream_though_the_other_met_a_conflict(
    platform: Platform,
) -> None:
    await half_grown(platform)
    (move,) = (await platform.map()).moves
    stream = platform.provider.moves.streams[move.id, False]
    stream.problem, stream.conflict = "conflict: planted", True
    await platform.run("reshard-rollback")
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


async def test_a_new_shard_is_not_kept_from_failing_over_by_what_befell_one_of_its_name(
    platform: Platform,
) -> None:
    await settled(platform)
    await platform.store.record_failover("s3", "failover", "op-1")
    await platform.run("reshard", **{**GROW, "to": 2})
    await platform.run("reshard-finish", early=True)
    await platform.run("reshard", **GROW)
    (record,) = await platform.store.failovers("s3")
    assert record["acknowledged"]


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


async def shrunk(platform: Platform) -> None:
    """Of four shards two have given up all their slots, and the soak is over."""
    await grown(platform)
    await platform.run("reshard-finish", early=True)
    await platform.run("reshard", to=2, batch=256, soak=0)


async def test_a_shard_whose_primary_has_crashed_ends_all_the_same(platform: Platform) -> None:
    async def crash() -> None:
        await platform.provider.inject(Fault("kill", "s3.us-east-1a"))

    await shrunk(platform)
    plan = await platform.plan("reshard-finish")
    stopping = [step.name for step in plan.steps].index("stop-retired")
    ended = await go_on(platform, await start(platform, plan), before_step(stopping, crash))
    assert ended.state == "succeeded", ended.problem
    assert platform.topology.shards == ("s1", "s2")
    assert not {id for id in platform.provider.nodes if id.startswith(("s3.", "s4."))}


@pytest.mark.parametrize("verb", ["reshard-finish", "reshard-abort"])
async def test_what_a_failed_end_left_behind_is_removed_by_the_sentinel(
    platform: Platform, verb: str
) -> None:
    async def refuse(world: World, **args: Any) -> Any:
        raise OperationFailed("the disk does not answer")

    await shrunk(platform)
    plan = replace(await platform.plan("reshard-finish"), kind=verb)
    refusing = {**HANDLERS, "stop-retired": refuse}
    failed = await go_on(platform, await start(platform, plan), refusing)
    assert failed.state == "failed"
    assert set((await platform.map()).shards) == {"s1", "s2", "catalog"}

    await Sentinel(platform.provider, platform.store, platform.clock)._repair_once()
    taken_up, _ = await platform.store.operations()
    assert (taken_up.kind, taken_up.requested_by) == ("reshard-abort", "sentinel")
    await platform.carry_out(taken_up.plan)
    assert platform.topology.shards == ("s1", "s2")
    assert (await platform.plan("provision")).steps == ()


@pytest.mark.parametrize(
    ("kind", "state", "taken_up"),
    [
        ("reshard-finish", "failed", True),
        ("reshard-rollback", "failed", True),
        ("reshard-finish", "running", False),
        ("reshard-finish", "succeeded", False),
        ("reshard", "failed", False),
    ],
)
async def test_only_a_failed_end_is_taken_up_and_not_while_slots_move(
    platform: Platform, kind: str, state: str, taken_up: bool
) -> None:
    four, two = platform.topology.with_shards(4), await platform.map()
    assert bool(left_behind(four, two, kind, state)) is taken_up
    assert not left_behind(platform.topology, two, kind, state)
    moving = two.with_move(Move(two.version + 1, "s2", "s1", 512, 513))
    assert not left_behind(four, moving, kind, state)
