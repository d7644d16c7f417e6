"""Effects that add shards, begin moves between them and end both.

Each reads the newest map and finds its move there by source, target and slots: a failover between
two steps, or in the middle of one, changes who the primaries are and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from control_plane.plans.reshard_moves import Transfer
from control_plane.steps.provision import newest, stop_databases, together
from control_plane.steps.reshard_watch import find, found, patiently
from control_plane.world import World
from runtime.errors import OperationFailed, Refused, TimedOut, Unavailable
from runtime.shardmap import CATALOG, Move, Shard, ShardMap

JSON = dict[str, Any]
RESTART_SECONDS = 60.0


async def check_moves(world: World, *, moves: Sequence[Mapping[str, Any]]) -> JSON:
    """Raises `Refused` when a move between shards that exist could not be carried out.

    A shard that is made by this operation is looked at before its first move begins. The end of a
    failover is waited for; what only a person can change is refused at once.
    """

    async def check() -> JSON:
        shard_map = await newest(world)
        for args in moves:
            if args["target"] in shard_map.shards:
                await world.provider.moves.check(Move(shard_map.version + 1, **args), shard_map)
        return {"moves": len(moves)}

    return await patiently(world, check, "The check of the moves", (Unavailable, TimedOut))


async def adopt_shards(world: World, *, count: int) -> JSON:
    """The topology has `count` shards, also this process's own, and all that the map still has.

    Where that needs a new process this one ends; the next one repeats the step and finds it done.
    """
    shard_map = await newest(world)
    count = max(count, sum(name != CATALOG for name in shard_map.shards))
    await world.provider.set_shards(count)
    if len(world.topology.shards) != count:
        world.restart()
        await world.clock.sleep(RESTART_SECONDS)
        raise OperationFailed(
            "The control plane was to be started again with the new topology, and still runs.",
            hint=f"regionctl op resume {world.operation_id}",
        )
    return {"shards": count}


async def adopt_new_shards(world: World, *, shards: Sequence[str]) -> JSON:
    """The map has these shards, which own nothing yet; those that it has are left alone.

    That a former shard of the name failed over does not keep the new one from doing so.
    """
    known = (await newest(world)).shards
    for name in shards:
        if name not in known:
            await world.store.acknowledge(name, "the failovers were of a former shard of this name")

    def change(shard_map: ShardMap) -> ShardMap:
        for name in shards:
            if name not in shard_map.shards:
                shard_map = shard_map.with_shard(_new_shard(world, name, shard_map.next_epoch()))
        return shard_map

    shard_map = await world.store.update_map(change, f"new shards: {', '.join(shards)}")
    return {"version": shard_map.version}


def _new_shard(world: World, name: str, epoch: int) -> Shard:
    primary, *others = world.topology.database_nodes(name)
    replicas = tuple(world.provider.endpoint(node.id) for node in others)
    return Shard(name, epoch, primary.region, world.provider.endpoint(primary.id), replicas)


async def begin_move(world: World, *, source: str, target: str, first: int, last: int) -> JSON:
    """The map has the move. Raises `OperationFailed` when the provider goes on refusing it."""
    transfer = Transfer(source, target, first, last)

    async def checked() -> None:
        shard_map = await newest(world)
        if found(shard_map, transfer) is None:
            move = Move(shard_map.version + 1, source, target, first, last)
            await world.provider.moves.check(move, shard_map)

    await patiently(world, checked, f"The move of slots {first}-{last} to {target}")

    def change(shard_map: ShardMap) -> ShardMap:
        if found(shard_map, transfer) is not None:
            return shard_map
        return shard_map.with_move(Move(shard_map.version + 1, source, target, first, last))

    shard_map = await world.store.update_map(change, f"slots {first}-{last}: {source} → {target}")
    await world.provider.publish_map(shard_map)
    return {"move": find(shard_map, transfer).id, "version": shard_map.version}


async def start_move(world: World, *, source: str, target: str, first: int, last: int) -> JSON:
    """The target copies and follows, and the source follows it back."""
    transfer = Transfer(source, target, first, last)

    async def start() -> int:
        shard_map = await newest(world)
        move = find(shard_map, transfer)
        await world.provider.moves.start(move, shard_map)
        return move.id

    return {"move": await patiently(world, start, f"The stream from {source} to {target}")}


async def begin_soak(world: World, *, moves: Sequence[Mapping[str, Any]], seconds: float) -> JSON:
    """From now on for `seconds` the moves can be taken back; then the sentinel finishes them."""
    until = (world.clock.now() + timedelta(seconds=seconds)).isoformat()

    def change(shard_map: ShardMap) -> ShardMap:
        for args in moves:
            move = find(shard_map, Transfer(**args))
            if move.soak_until is None:
                shard_map = shard_map.with_move(replace(move, soak_until=until))
        return shard_map

    shard_map = await world.store.update_map(change, f"all slots moved; soak until {until}")
    await world.provider.publish_map(shard_map)
    return {"until": max((str(move.soak_until) for move in shard_map.moves), default=None)}


async def reopen_moves(world: World, *, moves: Sequence[Mapping[str, Any]]) -> JSON:
    """The moves are taken back: from here on nobody finishes them."""

    def change(shard_map: ShardMap) -> ShardMap:
        for args in moves:
            move = found(shard_map, Transfer(**args))
            if move is not None and move.soak_until is not None:
                shard_map = shard_map.with_move(replace(move, soak_until=None))
        return shard_map

    shard_map = await world.store.update_map(change, "the moves are taken back")
    return {"version": shard_map.version}


async def finish_move(
    world: World,
    *,
    source: str,
    target: str,
    first: int,
    last: int,
    even_different: bool = False,
) -> JSON:
    """No stream of the move is left, and rows of its slots only where they are owned.

    Raises `OperationFailed` when both sides were found to differ while this operation handed slots
    over: nothing is deleted then, unless `even_different`.
    """
    different = _different(world)
    if different and not even_different:
        raise OperationFailed(
            f"Rows of slots {different[0]} to {different[-1]} differ on both sides; both are kept.",
            hint="compare them; regionctl shard abort then keeps the owner's rows only",
            runbook="reshard",
            extra={"slots": different},
        )
    transfer = Transfer(source, target, first, last)

    async def finish() -> None:
        shard_map = await newest(world)
        move = found(shard_map, transfer)
        if move is not None:
            await world.provider.moves.finish(move, shard_map)

    await patiently(world, finish, f"The end of the move from {source} to {target}")

    def change(shard_map: ShardMap) -> ShardMap:
        move = found(shard_map, transfer)
        return shard_map if move is None else shard_map.without_move(move.id)

    shard_map = await world.store.update_map(change, f"{source} → {target} is over")
    return {"version": shard_map.version}


def _different(world: World) -> list[int]:
    """Slots whose rows an earlier step of this operation found to differ."""
    results = [each for each in world.results.values() if isinstance(each, dict)]
    return sorted({slot for each in results for slot in each.get("differentSlots", ())})


async def retire_shards(world: World, *, shards: Sequence[str]) -> JSON:
    """The map has these shards no more, from the last one back to the first that owns slots.

    One that owns slots after all, of which the plan could not know, stays, and those before it.
    Raises `Refused` while one of them moves slots.
    """

    def change(shard_map: ShardMap) -> ShardMap:
        for name in reversed(shards):
            if shard_map.slots_of(name):
                break
            if name in shard_map.shards:
                try:
                    shard_map = shard_map.without_shard(name)
                except ValueError as error:
                    raise Refused(f"{error}.", hint="regionctl shard map") from error
        return shard_map

    shard_map = await world.store.update_map(change, f"retired: {', '.join(shards)}")
    return {
        "version": shard_map.version,
        "kept": [name for name in shards if name in shard_map.shards],
    }


async def stop_retired(world: World, *, instances: Sequence[str]) -> JSON:
    """Of these nodes those run no more whose shard the map does not have."""
    retired = await _retired(world, instances)
    return await stop_databases(world, instances=retired, even_crashed=True)


async def remove_retired(world: World, *, instances: Sequence[str]) -> JSON:
    """Of these stopped nodes the data of those is gone whose shard the map does not have."""
    retired = await _retired(world, instances)
    await together(*(world.provider.remove_database(each) for each in retired))
    return {"removed": retired}


async def _retired(world: World, instances: Sequence[str]) -> list[str]:
    shard_map = await newest(world)
    return [
        each
        for each in instances
        if world.topology.instance(each).component not in shard_map.shards
    ]
