"""Properties of the shard map through moves of slots: one owner a slot, epochs that only grow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.shardmap import SLOTS, Move, ShardMap
from tests.runtime.test_shardmap import a_map, end

SLOT = st.integers(0, SLOTS - 1)
RANGE = st.tuples(SLOT, SLOT).map(lambda pair: (min(pair), max(pair)))
NAMES = ["s1", "s2", "s3", "s4"]
CHANGE = st.one_of(
    st.tuples(st.just("slots"), RANGE, st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("primary"), st.sampled_from(NAMES)),
)


def owners(shard_map: ShardMap) -> dict[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = {}
    for owned in shard_map.ranges:
        for slot in range(owned.first, owned.last + 1):
            assert slot not in found
            found[slot] = (owned.shard, owned.epoch)
    assert sorted(found) == list(range(SLOTS))
    return found


def changed(shard_map: ShardMap, change: tuple[Any, ...]) -> ShardMap:
    if change[0] == "slots":
        (first, last), shard, more = change[1:]
        return shard_map.with_slots(first, last, shard, shard_map.next_epoch() + more)
    return shard_map.with_primary(change[1], end(f"{change[1]}.rb"), home="r")


@given(st.lists(CHANGE, max_size=12))
def test_every_slot_has_one_owner_and_each_change_of_hands_a_new_epoch(
    changes: list[tuple[Any, ...]],
) -> None:
    now = a_map(4)
    held: dict[int, set[str]] = {1: set(NAMES)}
    for change in changes:
        before, newest = owners(now), now.next_epoch()
        now = changed(now, change)
        after = owners(now)
        for slot, (shard, epoch) in after.items():
            assert epoch >= before[slot][1]
            assert (shard, epoch) == before[slot] or epoch >= newest
            held.setdefault(epoch, set()).add(shard)
        # No two owners ever had the same epoch; but for the first, which all had.
        assert all(len(shards) == 1 for epoch, shards in held.items() if epoch > 1)
        assert now.next_epoch() >= newest


@given(st.lists(CHANGE, max_size=12))
def test_neighbours_of_one_owner_and_epoch_are_one_range(changes: list[tuple[Any, ...]]) -> None:
    now = a_map(4)
    for change in changes:
        now = changed(now, change)
    for left, right in zip(now.ranges, now.ranges[1:], strict=False):
        assert left.last + 1 == right.first
        assert (left.shard, left.epoch) != (right.shard, right.epoch)


@given(RANGE, st.sampled_from(NAMES))
def test_only_the_slots_given_change_hands(moved: tuple[int, int], shard: str) -> None:
    whole = a_map(4)
    after = owners(whole.with_slots(*moved, shard, 9))
    for slot, owner in owners(whole).items():
        inside = moved[0] <= slot <= moved[1]
        assert after[slot] == ((shard, 9) if inside else owner)


@given(st.integers(0, 1))
def test_slots_change_hands_under_a_new_epoch_only(epoch: int) -> None:
    with pytest.raises(ValueError, match="not new"):
        a_map(2).with_slots(0, 9, "s2", epoch)


@given(RANGE)
def test_a_shard_leaves_the_map_when_it_owns_and_moves_nothing(moved: tuple[int, int]) -> None:
    whole = a_map(2)
    move = Move(whole.version + 1, "s1", "s2", *moved)
    for busy in (whole, whole.with_slots(0, 511, "s2", 2).with_move(move)):
        with pytest.raises(ValueError, match="still owns or moves"):
            busy.without_shard("s1")
    left = whole.with_slots(0, 511, "s2", 2).with_move(move).without_move(move.id)
    # The highest epoch of all is that of the shard that goes.
    left = left.with_primary("s1", end("s1.rb"), home="r")
    gone = left.without_shard("s1")
    assert list(gone.shards) == ["s2"]
    assert set(owners(gone).values()) == {("s2", 1), ("s2", 2)}
    assert gone.next_epoch() == left.next_epoch()


@given(RANGE, RANGE, st.none() | st.just("2030-01-01T00:00:00Z"))
def test_a_move_is_in_the_map_once_and_survives_the_wire(
    one: tuple[int, int], two: tuple[int, int], until: str | None
) -> None:
    whole = a_map(4)
    first, second = Move(2, "s1", "s2", *one), Move(3, "s3", "s4", *two)
    after = whole.with_move(first).with_move(second).with_move(Move(2, "s1", "s2", *one, until))
    assert {move.id for move in after.moves} == {2, 3}
    assert len(after.moves) == 2
    assert next(move for move in after.moves if move.id == 2).soak_until == until
    assert owners(after) == owners(whole)
    assert after.version == whole.version + 3
    assert ShardMap.from_json(json.loads(json.dumps(after.to_json()))) == after
    assert after.without_move(2).without_move(3).moves == ()
