"""Slots that change hands under writers, readers, relays and sweepers: never two, never none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from runtime import shards as module
from runtime.batches import read_by_shard
from runtime.clock import SystemClock
from runtime.payments import store as payments
from runtime.pool import Connection
from runtime.position import Position
from runtime.routing import Routing
from runtime.shardmap import Placement, ShardMap, slot_of
from runtime.shards import Done, Shards, of_slot, of_user
from tests.runtime.conftest import Platform, endpoint
from tests.runtime.two_shards import Pair, pair, second

pytestmark = pytest.mark.process
__all__ = ["pair", "second"]

ADA, BOB = 1, 42
GUARD = "SELECT regionctl.guard($1, $2)"
INSERT = (
    "INSERT INTO outbox (user_id, event_id, kind, payload, created_at) "
    "VALUES ($1, $2, 'OrderCreated', $3, now())"
)


@contextmanager
def router(platform: Platform, name: str = "shardmap.json", **options: Any) -> Iterator[Shards]:
    """Reads the map from a file of its own name."""
    routing = Routing(platform.root / name, SystemClock())
    routing.refresh()
    shards = Shards(platform.settings("orders"), routing, SystemClock(), **options)
    try:
        yield shards
    finally:
        shards.close()


def publish(platform: Platform, shard_map: ShardMap, name: str) -> None:
    late = replace(platform, root=platform.root)
    late.map_file = platform.root / name
    late.publish(shard_map)


def writing(event: int, user: int = BOB) -> Callable[[Connection, Placement], Any]:
    async def work(connection: Connection, place: Placement) -> str:
        async with connection.transaction():
            await connection.execute(GUARD, place.slot, place.epoch)
            await connection.execute(INSERT, user, event, f'{{"order_id": {event}}}')
        return place.shard.name

    return work


async def counting(connection: Connection, place: Placement) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM outbox"))


async def write(shards: Shards, event: int, user: int = BOB) -> str:
    done: Done[str] = await shards.write(of_user(user), writing(event, user))
    return done.value


async def waits(task: asyncio.Task[Any], seconds: float = 0.15) -> bool:
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return not done


async def test_a_writer_of_a_fenced_slot_waits_and_finds_the_new_owner_while_others_go_on(
    platform: Platform, pair: Pair
) -> None:
    with router(platform) as shards:
        assert await write(shards, 1) == "s1"
        await pair.fence(slot_of(BOB))
        asked = asyncio.create_task(write(shards, 2))
        assert await waits(asked)
        assert await write(shards, 3, ADA) == "s1"
        # What is read meanwhile is what will be handed over.
        assert (await shards.read(of_user(BOB), counting)).value == 2
        moved = await pair.hand_over(slot_of(BOB))
        assert await waits(asked)
        platform.publish(moved)
        assert await asyncio.wait_for(asked, 30) == "s2"
    assert await pair.one.fetchval("SELECT count(*) FROM outbox WHERE user_id = $1", BOB) == 1
    assert await pair.two.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_writer_goes_on_when_the_fence_is_lifted_without_a_new_map(
    platform: Platform, pair: Pair
) -> None:
    with router(platform) as shards:
        await pair.fence(slot_of(BOB))
        asked = asyncio.create_task(write(shards, 1))
        assert await waits(asked)
        await pair.fence(slot_of(BOB), "owned")
        assert await asyncio.wait_for(asked, 30) == "s1"


async def test_a_router_whose_map_comes_late_is_refused_and_goes_on_inside_the_request(
    platform: Platform, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEWER_MAP_SECONDS", 6.0)
    publish(platform, platform.shard_map, "late.json")
    with router(platform) as prompt, router(platform, "late.json") as stale:
        assert [await write(prompt, 1), await write(stale, 2)] == ["s1", "s1"]
        moved = await pair.hand_over(slot_of(BOB))
        platform.publish(moved)
        assert await asyncio.wait_for(write(prompt, 3), 30) == "s2"
        asked = asyncio.create_task(write(stale, 4))
        read = asyncio.create_task(
            stale.read(of_user(BOB), counting, position=Position("s2", moved.next_epoch() - 1, 1))
        )
        assert await waits(asked, 0.6)
        assert await waits(read, 0.0)
        publish(platform, moved, "late.json")
        assert await asyncio.wait_for(asked, 30) == "s2"
        # It sees the write of its position; the other one was under way.
        assert (await asyncio.wait_for(read, 30)).value in (1, 2)
    assert await pair.one.fetchval("SELECT count(*) FROM outbox") == 2


async def test_a_reader_with_an_old_map_is_refused_by_the_old_owner(
    platform: Platform, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(platform, platform.shard_map, "late.json")
    with router(platform, "late.json") as stale:
        assert (await stale.read(of_user(BOB), counting)).place.shard.name == "s1"
        moved = await pair.hand_over(slot_of(BOB))
        monkeypatch.setattr(module, "OWNED_SECONDS", 0.0)
        asked = asyncio.create_task(stale.read(of_user(BOB), counting))
        assert await waits(asked)
        publish(platform, moved, "late.json")
        assert (await asyncio.wait_for(asked, 30)).place.shard.name == "s2"


async def test_a_position_of_one_user_holds_up_no_read_of_another_on_that_shard(
    platform: Platform, pair: Pair
) -> None:
    """Ranges of one shard have epochs of their own."""
    platform.publish(await pair.hand_over(slot_of(BOB)))
    platform.publish(await pair.hand_over(slot_of(ADA)))
    with router(platform, budget=3.0) as shards:
        done = await shards.write(of_user(ADA), writing(1, ADA))
        position = Position("s2", done.place.epoch, 1)
        assert done.place.epoch > platform.shard_map.locate(BOB).epoch
        assert (await shards.read(of_user(BOB), counting, position=position)).value == 1


async def test_a_new_map_cuts_connections_to_servers_of_another_role_only(
    platform: Platform, pair: Pair
) -> None:
    shard_map = platform.shard_map
    replica = replace(endpoint(platform.s1), instance="s1.us-east-1b")
    s1 = replace(shard_map.shards["s1"], replicas=(replica,))
    shard_map = replace(shard_map, version=10, shards={**shard_map.shards, "s1": s1})
    with router(platform) as shards:
        platform.publish(shard_map)
        assert shards._routing.refresh()
        kept = (
            shards.pool(s1.primary),
            shards.pool(replica),
            shards.pool(shard_map.shards["s2"].primary),
        )
        platform.publish(shard_map.with_slots(5, 5, "s2", shard_map.next_epoch()))
        assert shards._routing.refresh()
        assert not any(pool.closed for pool in kept)
        platform.publish(platform.shard_map.with_primary("s1", replica, home="us-east-1"))
        assert shards._routing.refresh()
        assert [pool.closed for pool in kept] == [True, True, False]
        empty = platform.shard_map.with_slots(5, 5, "s1", platform.shard_map.next_epoch())
        platform.publish(empty.without_shard("s2"))
        assert shards._routing.refresh()
        assert kept[2].closed


async def test_a_batch_of_orders_is_known_to_be_lost_only_where_all_its_slots_are_served(
    platform: Platform, pair: Pair
) -> None:
    orders = [(9 << 22) | (slot << 12) for slot in (3, 4)]

    async def served(connection: Connection, _: Placement) -> bool:
        return await payments.all_served(connection, orders)

    with router(platform) as shards:
        assert (await shards.read(of_slot(3), served)).value
        platform.publish(await pair.hand_over(4))
        assert not (await shards.read(of_slot(3), served)).value


async def test_all_shards_are_read_again_when_slots_changed_hands_meanwhile(
    platform: Platform, pair: Pair
) -> None:
    asked: list[int] = []

    async def work(connection: Connection, slots: Any) -> list[int]:
        asked.append(len(slots))
        if len(asked) == 1:
            platform.publish(await pair.hand_over(5))
            shards._routing.refresh()
        return list(slots)

    with router(platform) as shards:
        pages = await read_by_shard(shards, shards._routing, work)
    assert asked[0] == 1024
    assert sorted(asked[1:]) == [1, 1023]
    assert sorted(slot for page in pages for slot in page) == list(range(1024))
