"""Who owns a slot, as the fence rows of two databases say, and who may change that.

Whoever is going to change something claims the move first: a number on both sides, one higher than
both. Every later change checks, in its own transaction and under a lock on that number, that it is
still the newest. A control plane that was thought dead and wakes up can therefore change nothing.
A claim's commit waits for the standby, so what is read after it is not lost by a failover.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from infra.local.moves.sides import Side, Sides
from runtime.errors import OperationFailed

_KNOWN = "SELECT coalesce(max(attempt), 0) FROM regionctl.handover WHERE move_id = $1"
_CLAIM = """
INSERT INTO regionctl.handover AS known (move_id, attempt) VALUES ($1, $2)
ON CONFLICT (move_id) DO UPDATE SET attempt = excluded.attempt
WHERE known.attempt < excluded.attempt
RETURNING attempt
"""
# Far above what a claim of a move that ended could have.
_RETIRE = """
UPDATE regionctl.handover SET attempt = attempt + 1000000
WHERE move_id <> ALL($1::bigint[]) AND attempt < 1000000
"""
_STATES = "SELECT slot, state, epoch FROM regionctl.slot_owner WHERE slot = ANY($1::int[])"
# A change of fence rows by a claim that is still the newest, or nothing: the lock on its number is
# taken before the first row is looked at. One statement, because writers may be waiting.
_CHANGE = """
WITH mine AS (
    SELECT FROM regionctl.handover WHERE move_id = {move} AND attempt = {attempt} FOR UPDATE
), changed AS ({change})
SELECT FROM mine
"""
_TAKE = """
INSERT INTO regionctl.slot_owner (slot, state, epoch)
SELECT slot, 'owned', {epoch} FROM unnest({slots}) AS given(slot) WHERE EXISTS (SELECT FROM mine)
ON CONFLICT (slot) DO UPDATE SET state = 'owned', epoch = excluded.epoch
"""
_FENCE = """
UPDATE regionctl.slot_owner SET state = 'fencing'
WHERE slot = ANY({slots}) AND state = 'owned' AND EXISTS (SELECT FROM mine)
"""
_UNFENCE = """
UPDATE regionctl.slot_owner SET state = 'owned'
WHERE slot = ANY({slots}) AND state = 'fencing' AND EXISTS (SELECT FROM mine)
"""
_LEAVE = """
UPDATE regionctl.slot_owner SET state = 'moved', epoch = greatest(epoch, {epoch})
WHERE slot = ANY({slots}) AND state = 'fencing' AND EXISTS (SELECT FROM mine)
"""
_NOT_WAITING = "SET LOCAL synchronous_commit = off"


@dataclass(frozen=True)
class Claim:
    """The right to change the fence rows and rows of one move, until somebody claims it anew."""

    sides: Sides
    attempt: int

    @contextlib.asynccontextmanager
    async def change(self, side: Side, connection: Any = None) -> AsyncIterator[Any]:
        """A transaction on `side` in which no newer claim can begin.

        Raises `OperationFailed` when there is a newer one. An unknown outcome is raised as the
        driver raises it: the next claim waits for it and then reads what came of it.
        """
        used = connection or side.connection
        async with used.transaction():
            attempt = await used.fetchval(
                "SELECT attempt FROM regionctl.handover WHERE move_id = $1 FOR UPDATE",
                self.sides.move.id,
            )
            if attempt != self.attempt:
                raise _superseded(self.sides)
            yield used


async def claim(sides: Sides) -> Claim:
    """The newest claim. Raises `OperationFailed` when another is made at the same time."""
    both = (sides.target, sides.source)
    known = [await side.connection.fetchval(_KNOWN, sides.move.id) for side in both]
    attempt = max(known) + 1
    for side in both:
        if await side.connection.fetchval(_CLAIM, sides.move.id, attempt) is None:
            raise _superseded(sides)
    return Claim(sides, attempt)


async def retire(sides: Sides, living: Sequence[int]) -> None:
    """What is still under way of moves that ended can change nothing more on either side."""
    for side in (sides.source, sides.target):
        await side.connection.execute(_RETIRE, [sides.move.id, *living])


def _superseded(sides: Sides) -> OperationFailed:
    return OperationFailed(
        f"Another control plane has taken over move {sides.move.id}; nothing was changed here.",
        hint="regionctl op list",
    )


async def settle(claim: Claim, slots: Sequence[int]) -> dict[int, Side]:
    """slot → owner, after whatever an earlier attempt left half done was led to its end.

    Owned on one side: the other one has left it. Fenced and owned nowhere: unfenced again.
    Raises `OperationFailed` for a slot with two owners or none.
    """
    sides = claim.sides
    here = await _states(sides.source, slots)
    there = await _states(sides.target, slots)
    owners: dict[int, Side] = {}
    for side, mine, others in ((sides.source, here, there), (sides.target, there, here)):
        other = sides.target if side is sides.source else sides.source
        owned = [slot for slot in slots if mine.get(slot, ("", 0))[0] == "owned"]
        stuck = [
            slot
            for slot in slots
            if mine.get(slot, ("", 0))[0] == "fencing"
            and others.get(slot, ("", 0))[0] not in ("owned", "fencing")
        ]
        left = [slot for slot in owned if others.get(slot, ("", 0))[0] == "fencing"]
        if left:
            await leave(claim, other, left, max(mine[slot][1] for slot in left))
        if stuck:
            await unfence(claim, side, stuck)
        for slot in (*owned, *stuck):
            if slot in owners:
                raise _unclear(sides, slot, "two owners")
            owners[slot] = side
    for slot in slots:
        if slot not in owners:
            raise _unclear(sides, slot, "no owner")
    return owners


async def settled(sides: Sides) -> dict[int, tuple[str, int]]:
    """slot → (shard, epoch) of all slots of the move, settled under a new claim."""
    held = await settle(await claim(sides), sides.slots)
    states = {side.shard: await _states(side, sides.slots) for side in (sides.source, sides.target)}
    return {slot: (side.shard, states[side.shard][slot][1]) for slot, side in held.items()}


def _unclear(sides: Sides, slot: int, what: str) -> OperationFailed:
    return OperationFailed(
        f"Slot {slot} has {what} among {sides.source.shard} and {sides.target.shard}.",
        hint="Compare regionctl.slot_owner of both with: regionctl shard map",
        extra={"slot": slot, "move": sides.move.id},
    )


async def _states(side: Side, slots: Sequence[int]) -> dict[int, tuple[str, int]]:
    rows = await side.connection.fetch(_STATES, list(slots))
    return {row["slot"]: (row["state"], row["epoch"]) for row in rows}


async def epochs(side: Side, slots: Sequence[int]) -> list[int]:
    """The different epochs that the fence rows of `slots` have there."""
    return sorted({epoch for _, epoch in (await _states(side, slots)).values()})


async def fence(claim: Claim, side: Side, slots: Sequence[int], *, seconds: float) -> None:
    """Writers of the slots are refused from now on. Raises the driver's LockNotAvailableError.

    Not waiting for the disk or the standby: whoever lets the other side take the slots commits
    something on this side before, and waits for that. A fence that is lost earlier was never one.
    """
    limit = f"SET LOCAL lock_timeout = {max(1, int(seconds * 1000))}"
    await _change(claim, side, slots, _FENCE, settings=f"{limit}; {_NOT_WAITING}; ")


async def unfence(claim: Claim, side: Side, slots: Sequence[int]) -> None:
    """The side that was fenced goes on as it was, under the same epoch."""
    await _change(claim, side, slots, _UNFENCE)


async def take(claim: Claim, side: Side, slots: Sequence[int], epoch: int) -> None:
    """The slots are `side`'s. The other side must be fenced and drained."""
    await _change(claim, side, slots, _TAKE, epoch=epoch)


async def leave(claim: Claim, side: Side, slots: Sequence[int], epoch: int) -> None:
    """The slots, which the other side has taken, are no longer `side`'s.

    Not waiting either: as long as it is fenced nobody writes there, and `settle` says it again.
    """
    await _change(claim, side, slots, _LEAVE, epoch=epoch, settings=f"{_NOT_WAITING}; ")


async def _change(
    claim: Claim,
    side: Side,
    slots: Sequence[int],
    change: str,
    *,
    epoch: int = 0,
    settings: str = "",
) -> None:
    """One round trip. Raises `OperationFailed` when there is a newer claim."""
    given = f"'{{{','.join(map(str, slots))}}}'::int[]"
    statement = _CHANGE.format(
        move=claim.sides.move.id,
        attempt=claim.attempt,
        change=change.format(slots=given, epoch=epoch),
    )
    if await side.connection.execute(settings + statement) == "SELECT 0":
        raise _superseded(claim.sides)
