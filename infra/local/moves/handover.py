"""Slots change hands, for good or as a rehearsal.

Order: claim the move on both sides; lead what an earlier attempt left behind to its end; see that
the streams are whole and quick; fence, drain, marker, snapshots; the new side owns the slots (the
point of no return); the old side has left them. A death anywhere leaves one owner or a fence that
the next claim takes down, never two owners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from infra.local.monitor import Monitor, connect
from infra.local.moves import checks, fence, owners
from infra.local.moves.compare import Snapshots
from infra.local.moves.owners import Claim
from infra.local.moves.sides import Direction, Side, Sides, opened
from infra.local.site import Site
from infra.moves import Handover
from runtime.errors import Refused
from runtime.shardmap import Move, ShardMap


async def hand_over(
    site: Site,
    monitor: Monitor,
    move: Move,
    shard_map: ShardMap,
    slots: Sequence[int],
    *,
    budget_seconds: float,
    back: bool,
) -> tuple[Handover, Snapshots | None]:
    """See `Moves.hand_over`. Snapshots are None when there was nothing left to do."""
    direction: Direction = "rev" if back else "fwd"
    async with opened(monitor, move, shard_map) as sides:
        old, new = sides.flow(direction)
        claim = await owners.claim(sides)
        held = await owners.settle(claim, slots)
        left = [slot for slot in slots if held[slot] is old]
        if not left:
            epoch = await _renew(claim, new, slots, shard_map)
            return Handover(epoch, claim.attempt), None
        await checks.same_tables(sides)
        await fence.require_streams(site, claim, ("rev",) if back else ("fwd", "rev"), slots)
        if back:
            await fence.show_again(site, claim, slots)
        epoch = await _next_epoch(sides, slots, shard_map)
        snapshots = await open_snapshots(site, sides)
        try:
            await fence.probe(claim, old, new, direction)
            pause = await fence.quiet(
                claim, old, new, direction, left, snapshots, budget_seconds=budget_seconds
            )
            await owners.take(claim, new, slots, epoch)
            pause.passed("take")
            await owners.leave(claim, old, left, epoch)
            pause.passed("leave")
        except BaseException:
            snapshots.close()
            raise
        sides.hang_up()
        return Handover(epoch, claim.attempt, pause), snapshots


async def rehearse(
    site: Site,
    monitor: Monitor,
    move: Move,
    shard_map: ShardMap,
    slots: Sequence[int],
    *,
    budget_seconds: float,
) -> tuple[Handover, Snapshots]:
    """The same up to the snapshots, then the owner goes on. Nothing moves.

    Raises `Refused`, also when the slots have not one owner.
    """
    async with opened(monitor, move, shard_map) as sides:
        claim = await owners.claim(sides)
        held = set((await owners.settle(claim, slots)).values())
        if len(held) != 1:
            raise Refused(
                f"Slots {min(slots)} to {max(slots)} are owned by two shards.",
                hint="Rehearse or compare those of one owner.",
            )
        direction: Direction = "fwd" if sides.source in held else "rev"
        old, new = sides.flow(direction)
        await checks.same_tables(sides)
        await fence.require_streams(site, claim, (direction,), slots)
        (epoch, *_) = await owners.epochs(old, slots)
        snapshots = await open_snapshots(site, sides)
        try:
            await fence.probe(claim, old, new, direction)
            pause = await fence.quiet(
                claim, old, new, direction, slots, snapshots, budget_seconds=budget_seconds
            )
            await owners.unfence(claim, old, slots)
            pause.passed("unfence")
        except BaseException:
            snapshots.close()
            raise
        return Handover(epoch, claim.attempt, pause), snapshots


async def open_snapshots(site: Site, sides: Sides) -> Snapshots:
    """Connections for snapshots, made before anybody waits for them."""
    source = await connect(site, sides.source.instance, seconds=5)
    try:
        target = await connect(site, sides.target.instance, seconds=5)
    except BaseException:
        source.terminate()
        raise
    return Snapshots(sides.move, source, target, asyncio.get_running_loop())


async def _next_epoch(sides: Sides, slots: Sequence[int], shard_map: ShardMap) -> int:
    """Higher than every epoch of the map and of the slots' fence rows on both sides."""
    known = await owners.epochs(sides.source, slots) + await owners.epochs(sides.target, slots)
    return max(shard_map.next_epoch(), 1 + max(known))


async def _renew(claim: Claim, new: Side, slots: Sequence[int], shard_map: ShardMap) -> int:
    """The one epoch of slots that `new` owns already.

    A failover may have used up the epoch that they were taken under, before the map had it: then
    they get a newer one, under which nobody has written yet.
    """
    known = await owners.epochs(new, slots)
    in_map = {shard_map.place(slot).shard.name for slot in slots} == {new.shard}
    if len(known) == 1 and (in_map or known[0] >= shard_map.next_epoch()):
        return known[0]
    epoch = max(shard_map.next_epoch(), 1 + max(known))
    await owners.take(claim, new, slots, epoch)
    return epoch
