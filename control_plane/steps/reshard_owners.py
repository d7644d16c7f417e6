"""Who owns the slots of a move that stopped: the databases say it, and the map learns of it.

A hand-over is done when the target's database says so; a control plane that dies then, or an
operation that is aborted, leaves a map that names the old owner. Whatever ends a move begins here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.plans.reshard_moves import Transfer, owners, runs
from control_plane.steps.provision import newest
from control_plane.steps.reshard_watch import found, patiently, slot_range
from control_plane.world import World
from runtime.shardmap import ShardMap

JSON = dict[str, Any]
Owned = dict[int, tuple[str, int]]


async def settle_owners(world: World, *, moves: Sequence[Mapping[str, Any]]) -> JSON:
    """The map names the owners that the databases have, and nothing that was left half done can
    change them any more.

    `handedOver` are the slots, as runs, that were not their source's then.
    """
    transfers = [Transfer(**args) for args in moves]
    owned: Owned = {}
    for transfer in transfers:
        owned |= await _owners(world, transfer)

    def change(shard_map: ShardMap) -> ShardMap:
        return _with_owners(shard_map, owned)

    await world.store.update_map(change, "slots that were handed over before the map had it")

    async def tell() -> int:
        shard_map = await newest(world)
        for name in sorted({name for name, _ in owned.values()}):
            primary = shard_map.shards[name].primary.instance
            await world.provider.set_epoch(primary, shard_map, name)
        await world.provider.publish_map(shard_map)
        return shard_map.version

    version = await patiently(world, tell, "The owners that the map names")
    source = {slot: each.source for each in transfers for slot in range(each.first, each.last + 1)}
    away = sorted(slot for slot, (name, _) in owned.items() if name != source[slot])
    return {"version": version, "handedOver": [list(run) for run in runs(away)]}


async def _owners(world: World, transfer: Transfer) -> Owned:
    async def ask() -> Owned:
        shard_map = await newest(world)
        move = found(shard_map, transfer)
        return {} if move is None else await world.provider.moves.owners(move, shard_map)

    return await patiently(world, ask, f"Who owns slots {transfer.first} to {transfer.last}")


def _with_owners(shard_map: ShardMap, owned: Owned) -> ShardMap:
    """Each run of slots that has another owner gets an epoch that nobody had before."""
    known = owners(shard_map.ranges)
    for name in sorted({name for name, _ in owned.values()}):
        odd = [slot for slot in sorted(owned) if owned[slot][0] == name != known[slot]]
        for first, last in runs(odd):
            taken = max(owned[slot][1] for slot in range(first, last + 1))
            epoch = max(taken, shard_map.next_epoch())
            shard_map = shard_map.with_slots(first, last, name, epoch)
    return shard_map


def handed_over(world: World, slots: Sequence[int]) -> tuple[int, int] | None:
    """Of the slots (first, last) those that `settle_owners` found away from their source."""
    results = [each for each in world.results.values() if isinstance(each, dict)]
    away = {
        slot for each in results for run in each.get("handedOver", ()) for slot in slot_range(run)
    }
    mine = [slot for slot in slot_range(slots) if slot in away]
    return (mine[0], mine[-1]) if mine else None
