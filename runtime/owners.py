"""The fence rows of databases and the map: how they are set, and whether they agree.

Everything here takes raw asyncpg connections of the superuser, one a database, and is idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.directory import Database
from runtime.shardmap import Move, SlotRange

LEAVE = """
UPDATE regionctl.slot_owner SET state = 'moved'
WHERE slot <> ALL($1::int[]) AND state IN ('owned', 'fencing')
"""
OWN = """
INSERT INTO regionctl.slot_owner AS mine (slot, state, epoch)
SELECT slot, 'owned', epoch FROM unnest($1::int[], $2::bigint[]) AS given(slot, epoch)
ON CONFLICT (slot) DO UPDATE SET state = 'owned', epoch = greatest(mine.epoch, excluded.epoch)
WHERE (mine.state, mine.epoch) IS DISTINCT FROM ('owned', greatest(mine.epoch, excluded.epoch))
"""
RAISE = """
UPDATE regionctl.slot_owner AS mine SET epoch = given.epoch
FROM unnest($1::int[], $2::bigint[]) AS given(slot, epoch)
WHERE mine.slot = given.slot AND mine.epoch < given.epoch AND mine.state IN ('owned', 'fencing')
"""
STATES = "SELECT slot, state, epoch FROM regionctl.slot_owner"


async def set_epochs(
    connection: Database, ranges: Sequence[SlotRange], moves: Sequence[Move] = ()
) -> None:
    """This database owns the slots of `ranges`, and no others, as the map says; epochs only grow.

    The catalog is one range of the single slot 0. Where one of the map's `moves` is under way, the
    databases are ahead of the map, and only the move itself may change an owner: such a slot stays
    what it is here, and an owner's epoch becomes the map's when that is higher.
    """
    given = {slot: owned.epoch for owned in ranges for slot in range(owned.first, owned.last + 1)}
    moving = {
        slot
        for move in moves
        if move.soak_until is None
        for slot in range(move.first, move.last + 1)
    }
    settled = {slot: epoch for slot, epoch in given.items() if slot not in moving}
    async with connection.transaction():
        await connection.execute(LEAVE, [*given, *moving])
        await connection.execute(OWN, list(settled), list(settled.values()))
        await connection.execute(RAISE, list(given), list(given.values()))


async def faults(
    shards: Mapping[str, Database], ranges: Sequence[SlotRange] | None, moves: Sequence[Move]
) -> list[str]:
    """What is wrong with the owners of slots: two of one slot, or others than the map's `ranges`.

    Databases are read one after the other, so a fault counts when it is there twice.
    """
    found = await _faults(shards, ranges, moves)
    again = await _faults(shards, ranges, moves) if found else []
    return [fault for fault in found if fault in again]


async def _faults(
    shards: Mapping[str, Database], ranges: Sequence[SlotRange] | None, moves: Sequence[Move]
) -> list[str]:
    rows: dict[int, list[tuple[str, str, int]]] = {}
    for name, shard in shards.items():
        for row in await shard.fetch(STATES):
            if row["state"] in ("owned", "fencing"):
                rows.setdefault(row["slot"], []).append((name, row["state"], row["epoch"]))
    faults: list[str] = []
    for slot, found in sorted(rows.items()):
        owners = [(name, epoch) for name, state, epoch in found if state == "owned"]
        if len(owners) > 1:
            faults.append(f"slot {slot}: {owners}")
    for given in ranges or ():
        for slot in range(given.first, given.last + 1):
            between = [move for move in moves if move.first <= slot <= move.last]
            if fault := owner_fault(given, rows.get(slot, []), between):
                faults.append(f"slot {slot}: {fault}")
    return faults


def owner_fault(
    given: SlotRange, found: Sequence[tuple[str, str, int]], moves: Sequence[Move]
) -> str | None:
    """How the (shard, state, epoch) of a slot that say `owned` or `fencing` contradict the map.

    In a move, the map may be behind: the other side owns it then, under a higher epoch.
    """
    expected = (given.shard, given.epoch)
    owners = [(name, epoch) for name, state, epoch in found if state == "owned"]
    if not moves:
        return None if owners == [expected] else f"{owners}, the map says {expected}"
    sides = {side for move in moves for side in (move.source, move.target)}
    for name, _, epoch in found:
        if (name, epoch) == expected or (name in sides and epoch > given.epoch):
            return None
    return f"{list(found)} in a move, the map says {expected}"
