"""Fence rows and the map: who is made an owner, who is not while a move is under way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtime import checks, owners
from runtime.shardmap import Move, SlotRange, even_ranges

MOVE = Move(7, "s1", "s2", 100, 199)
SOAKING = Move(7, "s1", "s2", 100, 199, soak_until="2030-01-01T00:00:00Z")
WHOLE = even_ranges(["s1"], 1)

Row = tuple[str, int] | None


@pytest.fixture
async def fence(shard_db: checks.Database) -> AsyncIterator[checks.Database]:
    yield shard_db
    await shard_db.execute("DELETE FROM regionctl.slot_owner")
    await owners.set_epochs(shard_db, WHOLE)


async def put(fence: checks.Database, slot: int, row: Row) -> None:
    await fence.execute("DELETE FROM regionctl.slot_owner WHERE slot = $1", slot)
    if row:
        await fence.execute("INSERT INTO regionctl.slot_owner VALUES ($1, $2, $3)", slot, *row)


async def row_of(fence: checks.Database, slot: int) -> Row:
    row = await fence.fetchrow("SELECT state, epoch FROM regionctl.slot_owner WHERE slot=$1", slot)
    return (row["state"], row["epoch"]) if row else None


@pytest.mark.process
async def test_a_database_owns_the_slots_of_the_map_and_epochs_only_grow(
    fence: checks.Database,
) -> None:
    ranges = [SlotRange(0, 9, "s1", 5), SlotRange(20, 29, "s1", 7)]
    await owners.set_epochs(fence, ranges)
    expected: dict[int, Row] = {0: ("owned", 5), 15: ("moved", 1), 29: ("owned", 7)}
    assert {slot: await row_of(fence, slot) for slot in expected} == expected
    await owners.set_epochs(fence, [SlotRange(0, 29, "s1", 6)])
    expected = {0: ("owned", 6), 15: ("owned", 6), 29: ("owned", 7)}
    assert {slot: await row_of(fence, slot) for slot in expected} == expected
    await owners.set_epochs(fence, [])
    assert await fence.fetchval("SELECT count(*) FROM regionctl.owned") == 0
    assert await row_of(fence, 29) == ("moved", 7)


@pytest.mark.process
@pytest.mark.parametrize(
    ("mine", "before", "after"),
    [
        # The map says that the slot is this shard's, under epoch 4.
        (True, ("owned", 1), ("owned", 4)),
        (True, ("owned", 6), ("owned", 6)),
        (True, ("fencing", 1), ("fencing", 4)),
        (True, ("moved", 3), ("moved", 3)),
        (True, ("absent", 1), ("absent", 1)),
        (True, None, None),
        # It is another's.
        (False, ("owned", 6), ("owned", 6)),
        (False, ("fencing", 1), ("fencing", 1)),
        (False, ("moved", 3), ("moved", 3)),
        (False, None, None),
    ],
)
async def test_a_slot_that_is_being_moved_gets_no_owner_from_the_map(
    fence: checks.Database, mine: bool, before: Row, after: Row
) -> None:
    await put(fence, 150, before)
    ranges = [SlotRange(0, 149, "s1", 4), SlotRange(151, 1023, "s1", 4)]
    if mine:
        ranges = [SlotRange(0, 1023, "s1", 4)]
    await owners.set_epochs(fence, ranges, [MOVE])
    assert await row_of(fence, 150) == after
    assert await row_of(fence, 200) == ("owned", 4)


@pytest.mark.process
@pytest.mark.parametrize("before", [("fencing", 1), ("moved", 3), ("absent", 1), None])
async def test_a_slot_that_is_not_being_moved_is_what_the_map_says(
    fence: checks.Database, before: Row
) -> None:
    await put(fence, 150, before)
    await owners.set_epochs(fence, [SlotRange(0, 1023, "s1", 4)], [SOAKING])
    assert await row_of(fence, 150) == ("owned", 4)


GIVEN = SlotRange(100, 131, "s1", 4)


@pytest.mark.parametrize(
    ("found", "moves", "agrees"),
    [
        ([("s1", "owned", 4)], [], True),
        ([("s1", "owned", 5)], [], False),
        ([("s1", "fencing", 4)], [], False),
        ([("s2", "owned", 5)], [], False),
        ([], [], False),
        ([("s1", "owned", 4)], [MOVE], True),
        ([("s1", "fencing", 4)], [MOVE], True),
        ([("s2", "owned", 5)], [MOVE], True),
        ([("s1", "fencing", 4), ("s2", "owned", 5)], [MOVE], True),
        ([("s2", "owned", 3)], [MOVE], False),
        ([("s3", "owned", 5)], [MOVE], False),
        ([], [MOVE], False),
    ],
)
def test_in_a_move_the_other_side_may_own_the_slot_under_a_higher_epoch(
    found: list[tuple[str, str, int]], moves: list[Move], agrees: bool
) -> None:
    assert (owners.owner_fault(GIVEN, found, moves) is None) is agrees


@pytest.mark.process
async def test_two_owners_of_one_slot_are_a_fault_whatever_the_map_says(
    fence: checks.Database,
) -> None:
    assert await owners.faults({"s1": fence}, WHOLE, ()) == []
    assert len(await owners.faults({"s1": fence, "s2": fence}, None, [MOVE])) == 1024
