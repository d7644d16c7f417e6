"""Which slots move when the number of shards changes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.plans.reshard_moves import (
    Transfer,
    minimal_moves,
    owners,
    quotas,
    runs,
)
from runtime.shardmap import SLOTS, SlotRange, even_ranges


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(1, count + 1)]


@st.composite
def dealt(draw: st.DrawFn) -> tuple[SlotRange, ...]:
    """All slots, in runs of any length, to 1..16 shards."""
    shards = names(draw(st.integers(1, 16)))
    cuts = sorted(draw(st.sets(st.integers(1, SLOTS - 1), max_size=24)))
    bounds = [0, *cuts, SLOTS]
    return tuple(
        SlotRange(first, after - 1, draw(st.sampled_from(shards)), epoch)
        for epoch, (first, after) in enumerate(itertools.pairwise(bounds), start=1)
    )


def after(ranges: tuple[SlotRange, ...], moves: tuple[Transfer, ...]) -> list[str]:
    owned = owners(ranges)
    for move in moves:
        for slot in range(move.first, move.last + 1):
            assert owned[slot] == move.source, "what moves was the source's, and moves once"
            owned[slot] = move.target
    return owned


@given(dealt(), st.integers(1, 16))
def test_every_slot_has_one_owner_and_shares_differ_by_at_most_one(
    ranges: tuple[SlotRange, ...], count: int
) -> None:
    owned = after(ranges, minimal_moves(ranges, names(count)))
    shares = [owned.count(name) for name in names(count)]
    assert sum(shares) == SLOTS
    assert max(shares) - min(shares) <= 1


@given(dealt(), st.integers(1, 16))
def test_no_plan_moves_fewer_slots(ranges: tuple[SlotRange, ...], count: int) -> None:
    """The lower bound: whatever the shares are, what a shard lacks has to come from another one."""
    owned = owners(ranges)
    counts = sorted((owned.count(name) for name in names(count)), reverse=True)
    least, more = divmod(SLOTS, count)
    shares = [least + 1] * more + [least] * (count - more)
    best = sum(max(0, share - have) for share, have in zip(shares, counts, strict=True))
    moves = minimal_moves(ranges, names(count))
    assert sum(move.slots for move in moves) == best
    assert all(move.source != move.target and move.first <= move.last for move in moves)


@given(st.integers(1, 16), st.integers(1, 16))
def test_few_moves_are_needed_from_even_shares(now: int, then: int) -> None:
    moves = minimal_moves(even_ranges(names(now), 1), names(then))
    assert len(moves) <= now + then
    assert bool(moves) == (now != then)


def test_two_become_four_and_four_become_two_by_whole_halves() -> None:
    two, four = even_ranges(names(2), 1), even_ranges(names(4), 1)
    assert minimal_moves(two, names(4)) == (
        Transfer("s1", "s3", 256, 511),
        Transfer("s2", "s4", 768, 1023),
    )
    grown = (
        SlotRange(0, 255, "s1", 1),
        SlotRange(256, 511, "s3", 2),
        SlotRange(512, 767, "s2", 1),
        SlotRange(768, 1023, "s4", 2),
    )
    assert minimal_moves(grown, names(2)) == (
        Transfer("s3", "s1", 256, 511),
        Transfer("s4", "s2", 768, 1023),
    )
    assert minimal_moves(four, names(4)) == ()


def test_who_has_most_keeps_the_share_that_is_rounded_up() -> None:
    assert quotas({"s1": 0, "s2": 1024}, ["s1", "s2", "s3"]) == {"s2": 342, "s1": 341, "s3": 341}


@given(st.sets(st.integers(0, SLOTS - 1)), st.integers(1, 64))
def test_runs_cover_the_slots_once_and_none_is_longer_than_asked(
    slots: set[int], size: int
) -> None:
    found = runs(sorted(slots), size)
    assert [slot for first, last in found for slot in range(first, last + 1)] == sorted(slots)
    assert all(last - first < size for first, last in found)


@pytest.mark.parametrize(("size", "count"), [(32, 8), (256, 1), (100, 3)])
def test_a_transfer_is_handed_over_in_batches(size: int, count: int) -> None:
    assert len(Transfer("s1", "s3", 256, 511).batches(size)) == count
