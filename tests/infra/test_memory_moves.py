"""The moves of the provider in memory keep what the protocol promises, whatever interrupts them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.memory import MemoryProvider
from infra.moves import Handover
from infra.topology import load
from runtime.errors import Invalid, Problem, Refused
from runtime.shardmap import Move, ShardMap
from tests.infra.platform import first_map

MOVE = Move(7, "s1", "s2", 480, 511)
SLOTS = list(range(480, 512))
S1, S1_STANDBY, S2, S2_STANDBY = (f"{s}.us-east-1{z}" for s in ("s1", "s2") for z in "ab")


class Dead(BaseException):
    """The control plane is gone in the middle of a verb."""


class Shop:
    """Two shards in memory, their newest map, and a customer."""

    def __init__(self) -> None:
        self.provider = MemoryProvider(load("two-regions"))
        self.moves = self.provider.moves
        self.written = 0

    async def open(self) -> Shop:
        for region in self.provider.topology.regions:
            await self.provider.ensure_region(region.name)
        self.map = first_map(self.provider)
        for name, shard in self.map.shards.items():
            await self.provider.create_primary(shard.primary.instance)
            await self.provider.set_epoch(shard.primary.instance, self.map, name)
            for replica in shard.replicas:
                await self.provider.clone(replica.instance, shard.primary.instance)
            await self.provider.set_sync(shard.primary.instance, shard.sync)
        await self.provider.open_route("us-east-1")
        await self.publish(self.map.with_move(MOVE))
        self.write()
        return self

    async def publish(self, shard_map: ShardMap) -> None:
        self.map = shard_map
        await self.provider.publish_map(shard_map)

    def write(self, slot: int = 500) -> bool:
        self.written += 1
        return self.provider.write_slot(slot, f"w{self.written}")

    async def copied(self) -> None:
        for _ in range(20):
            progress = await self.moves.progress(MOVE, self.map)
            if progress.healthy and progress.ready:
                return
            if not progress.healthy:
                await self.moves.start(MOVE, self.map)
        raise AssertionError(progress)

    async def hand_over(self, *, back: bool = False) -> Handover:
        done = await self.moves.hand_over(MOVE, self.map, SLOTS, budget_seconds=0.25, back=back)
        owner = MOVE.source if back else MOVE.target
        await self.publish(self.map.with_slots(480, 511, owner, done.epoch))
        return done

    async def fail_over(self, name: str, to: str) -> None:
        """As the failover's steps do it."""
        await self.provider.fence(self.map.shards[name].primary.instance)
        await self.provider.promote(to)
        end = self.provider.endpoint(to)
        await self.publish(self.map.with_primary(name, end, home=end.region))
        await self.provider.set_epoch(to, self.map, name)


async def moved() -> Shop:
    """A shop whose slots were just handed over."""
    shop = await Shop().open()
    await shop.moves.check(MOVE, shop.map)
    await shop.moves.start(MOVE, shop.map)
    await shop.copied()
    await shop.hand_over()
    return shop


async def test_a_move_takes_every_row_along_and_has_one_owner_at_any_time() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    first = await shop.moves.progress(MOVE, shop.map)
    assert first.healthy
    assert not first.ready
    assert shop.write()
    await shop.copied()
    assert shop.write()
    trial, compared = await shop.moves.rehearse(MOVE, shop.map, SLOTS, budget_seconds=0.25)
    assert (compared.rows, compared.equal) == (3, True)
    assert shop.write()
    done = await shop.hand_over()
    assert done.epoch > trial.epoch
    assert (await shop.moves.compare(MOVE, shop.map, SLOTS)).equal
    assert shop.provider.owners(500) == [S2]
    assert shop.write()
    assert not shop.provider.write_slot_to(S1, 500, "stale", epoch=1)
    assert shop.provider.lost() == []
    await shop.moves.finish(MOVE, shop.map)
    assert 500 not in shop.provider.nodes[S1].rows()
    assert not shop.moves.streams
    assert shop.provider.lost() == []


async def test_every_verb_may_be_repeated() -> None:
    shop = await moved()
    again = await shop.moves.hand_over(MOVE, shop.map, SLOTS, budget_seconds=0.25)
    assert again.epoch == shop.map.place(500).epoch
    for _ in range(2):
        await shop.moves.start(MOVE, shop.map)
        await shop.moves.check(MOVE, shop.map)
        assert (await shop.moves.compare(MOVE, shop.map, SLOTS)).equal
    for _ in range(2):
        await shop.moves.finish(MOVE, shop.map)
    assert shop.provider.owners(500) == [S2]


async def test_what_was_handed_over_goes_back_with_the_rows_that_came_meanwhile() -> None:
    shop = await moved()
    assert shop.write()
    await shop.hand_over(back=True)
    assert shop.provider.owners(500) == [S1]
    assert shop.provider.lost() == []
    assert shop.write()
    await shop.hand_over()
    assert shop.provider.owners(500) == [S2]
    assert shop.provider.lost() == []


async def test_a_lost_source_breaks_the_stream_and_start_copies_anew() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    await shop.copied()
    await shop.fail_over("s1", S1_STANDBY)
    assert shop.write()
    progress = await shop.moves.progress(MOVE, shop.map)
    assert not progress.healthy
    with pytest.raises(Refused):
        await shop.hand_over()
    await shop.moves.start(MOVE, shop.map)
    await shop.copied()
    await shop.hand_over()
    assert (await shop.moves.compare(MOVE, shop.map, SLOTS)).equal
    assert shop.provider.lost() == []


async def test_a_lost_target_keeps_what_it_owns_and_the_way_back_begins_anew() -> None:
    shop = await moved()
    assert shop.write()
    await shop.fail_over("s2", S2_STANDBY)
    assert shop.provider.owners(500) == [S2_STANDBY]
    assert shop.provider.lost() == []
    assert shop.write()
    with pytest.raises(Refused, match="stream back"):
        await shop.hand_over(back=True)
    with pytest.raises(Refused, match="stream back"):
        await shop.moves.compare(MOVE, shop.map, SLOTS)
    await shop.copied()
    assert (await shop.moves.compare(MOVE, shop.map, SLOTS)).equal
    await shop.hand_over(back=True)
    assert shop.write()
    assert shop.provider.lost() == []
    await shop.moves.finish(MOVE, shop.map)
    assert shop.provider.lost() == []


async def test_a_target_lost_before_anything_is_handed_over_is_copied_to_anew() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    await shop.copied()
    await shop.fail_over("s2", S2_STANDBY)
    assert not (await shop.moves.progress(MOVE, shop.map)).healthy
    await shop.copied()
    await shop.hand_over()
    assert shop.write()
    await shop.hand_over(back=True)
    assert shop.provider.lost() == []


async def test_what_cannot_be_drained_goes_on_being_written() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    await shop.copied()
    shop.moves.stuck["s1"] = 2
    with pytest.raises(Refused):
        await shop.moves.rehearse(MOVE, shop.map, SLOTS, budget_seconds=0.25)
    with pytest.raises(Refused):
        await shop.hand_over()
    assert shop.write()
    await shop.hand_over()
    assert shop.provider.lost() == []


async def test_a_held_move_stands_still() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    await shop.moves.hold(MOVE, shop.map, on=True)
    for _ in range(5):
        progress = await shop.moves.progress(MOVE, shop.map)
    assert progress.healthy
    assert not progress.ready
    with pytest.raises(Refused):
        await shop.hand_over()
    await shop.moves.hold(MOVE, shop.map, on=False)
    await shop.copied()


async def test_a_row_that_is_there_already_stops_the_stream_and_both_sides_stay() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    shop.provider.nodes[S2].wal.append("500~stranger")
    for _ in range(3):
        progress = await shop.moves.progress(MOVE, shop.map)
    assert not progress.healthy
    assert shop.provider.nodes[S1].rows()[500] == ["w1"]
    assert shop.provider.nodes[S2].rows()[500] == ["stranger"]


async def test_a_move_is_refused_while_the_target_has_something_of_its_slots() -> None:
    shop = await Shop().open()
    shop.provider.nodes[S2].wal.append("490/left over")
    with pytest.raises(Refused, match="490"):
        await shop.moves.check(MOVE, shop.map)
    await shop.moves.finish(MOVE, shop.map)
    await shop.moves.check(MOVE, shop.map)
    shop.moves.refused["s2"] = "its disk has no room for the copy"
    with pytest.raises(Refused, match="no room"):
        await shop.moves.check(MOVE, shop.map)


async def test_one_who_was_thought_dead_cannot_make_a_second_owner() -> None:
    shop = await Shop().open()
    await shop.moves.start(MOVE, shop.map)
    await shop.copied()

    target = shop.provider.nodes[S2]

    def superseded(stage: str) -> None:
        if stage == "marked":
            target.attempts = {MOVE.id: target.attempts[MOVE.id] + 1}

    shop.moves.at = superseded
    with pytest.raises(Refused, match="newer attempt"):
        await shop.hand_over()
    shop.moves.at = lambda stage: None
    assert shop.provider.owners(500) == []
    await shop.moves.start(MOVE, shop.map)
    assert shop.provider.owners(500) == [S1]
    assert shop.write()


STAGES = st.sampled_from(["fenced", "drained", "marked", "owned", "moved"])


@settings(max_examples=60)
@given(stage=STAGES, back=st.booleans(), fail=st.sampled_from(["", "s1", "s2"]))
def test_a_hand_over_that_died_anywhere_is_repeated_and_loses_nothing(
    stage: str, back: bool, fail: str
) -> None:
    async def scenario() -> None:
        shop = await moved() if back else await Shop().open()
        if not back:
            await shop.moves.start(MOVE, shop.map)
            await shop.copied()

        def die(reached: str) -> None:
            if reached == stage:
                shop.moves.at = lambda _: None
                raise Dead

        shop.moves.at = die
        with pytest.raises(Dead):
            await shop.hand_over(back=back)
        assert len(shop.provider.owners(500)) <= 1
        if fail:
            await shop.fail_over(fail, {"s1": S1_STANDBY, "s2": S2_STANDBY}[fail])
        shop.write()
        assert len(shop.provider.owners(500)) <= 1
        try:
            await shop.moves.start(MOVE, shop.map)
            await shop.copied()
            await shop.hand_over(back=back)
        except Problem:
            assert back
            assert fail == "s2"
        assert shop.write()
        assert len(shop.provider.owners(500)) == 1
        assert shop.provider.lost() == []

    asyncio.run(scenario())


async def test_a_memory_platform_grows_and_keeps_every_address() -> None:
    provider = MemoryProvider(load("two-regions"))
    before = {id: provider.endpoint(id) for id in provider.topology.by_id}
    await provider.set_shards(4)
    assert provider.topology.shards == ("s1", "s2", "s3", "s4")
    assert {id: provider.endpoint(id) for id in before} == before
    for count in (0, 65):
        with pytest.raises(Invalid):
            await provider.set_shards(count)


async def test_a_shard_that_the_topology_has_no_more_is_gone_from_its_regions() -> None:
    shop = await Shop().open()
    await shop.provider.set_shards(1)
    await shop.provider.ensure_region("us-east-1")
    assert S2 not in shop.provider.nodes
    assert shop.provider.topology == replace(load("two-regions"), shards=("s1",))
