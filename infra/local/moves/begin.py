"""Setting a move's streams up, also again after one broke, and taking everything down."""

from __future__ import annotations

from collections.abc import Sequence

from infra.local.monitor import Monitor
from infra.local.moves import checks, cleanup, owners, streams
from infra.local.moves.owners import Claim
from infra.local.moves.sides import Direction, Side, opened, ranges_of
from infra.local.site import Site
from infra.moves import require_known
from runtime.shardmap import Move, ShardMap

WAYS: tuple[Direction, Direction] = ("fwd", "rev")


async def start(site: Site, monitor: Monitor, move: Move, shard_map: ShardMap) -> None:
    """See `Moves.start`. A stream that is whole is left alone.

    Each direction copies what its subscriber does not own: at first the whole move forward; after
    a failover in the middle the slots that are not moved yet forward, and those that are moved
    back, so that the move can still be taken back.
    """
    async with opened(monitor, move, shard_map) as sides:
        await checks.same_tables(sides)
        claim = await owners.claim(sides)
        await owners.retire(sides, [each.id for each in shard_map.moves])
        held = await owners.settle(claim, sides.slots)
        for side in (sides.source, sides.target):
            _write_passfiles(site, shard_map, side.shard)
            await streams.grant(side)
        found = [await streams.look(site, sides, way) for way in WAYS]
        if all(stream.problem is None or stream.interrupted for stream in found):
            for way in WAYS:
                await streams.go_on(site, sides, way)
            return
        await _take_down(monitor, claim, held)
        kept = [slot for slot in sides.slots if held[slot] is sides.source]
        moved = [slot for slot in sides.slots if held[slot] is sides.target]
        # The way back first, so that no row of the target is ever written unseen by it.
        await _set_up(site, claim, "rev", moved)
        await _set_up(site, claim, "fwd", kept)


def _write_passfiles(site: Site, shard_map: ShardMap, shard: str) -> None:
    """On every server of the shard: a standby that is promoted takes the subscription over."""
    known = shard_map.shards[shard]
    for end in (known.primary, *known.replicas):
        if site.complete(end.instance):
            streams.write_passfile(site, end.instance)


async def _set_up(site: Site, claim: Claim, way: Direction, slots: Sequence[int]) -> None:
    """The stream copies the rows of `slots`; of none when they are none: then it only follows."""
    sides = claim.sides
    await streams.publish(sides, way, ranges_of(slots or sides.slots))
    await streams.make_slot(sides, way, claim.attempt)
    await streams.subscribe(site, sides, way, claim.attempt, copy=bool(slots))


async def _take_down(monitor: Monitor, claim: Claim, held: dict[int, Side]) -> None:
    """No stream, and on each side only rows of slots that it owns."""
    sides = claim.sides
    for way in WAYS:
        await streams.drop(sides, way)
    for side in (sides.source, sides.target):
        foreign = [slot for slot in sides.slots if held[slot] is not side]
        await cleanup.remove(monitor, claim, side, foreign)
        async with claim.change(side) as connection:
            await connection.execute(
                "DELETE FROM regionctl.fence WHERE move_id = $1", sides.move.id
            )


async def finish(monitor: Monitor, move: Move, shard_map: ShardMap) -> None:
    """See `Moves.finish`."""
    async with opened(monitor, move, shard_map) as sides:
        claim = await owners.claim(sides)
        held = await owners.settle(claim, sides.slots)
        require_known({slot: side.shard for slot, side in held.items()}, shard_map)
        await _take_down(monitor, claim, held)
