"""Effects that take the writes from one node and give them to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.steps.provision import check_upstreams, newest, together
from control_plane.world import World
from runtime.clock import wait_until
from runtime.errors import Refused, Unavailable
from runtime.shardmap import CATALOG, Shard, ShardMap

JSON = dict[str, Any]


async def confirm_lost(world: World, *, instance: str) -> JSON:
    """The last look before acting. Raises `Refused` when the instance answers again."""
    observed = await world.provider.observe([instance])
    if observed.running(instance):
        raise Refused(f"{instance} answers again: nothing was changed.", hint="regionctl status")
    return {"state": observed.state(instance)}


async def record_unsynced(world: World, *, databases: Sequence[str]) -> JSON:
    """From here on no standby of these databases counts as in sync, durably."""

    def change(shard_map: ShardMap) -> ShardMap:
        changed = shard_map
        for name in databases:
            if changed.shards[name].sync:
                changed = changed.with_sync(name, ())
        return changed

    shard_map = await world.store.update_map(change, f"out of sync: {', '.join(databases)}")
    return {"version": shard_map.version}


async def set_sync(world: World, *, instance: str, standbys: Sequence[str]) -> JSON:
    await world.provider.set_sync(instance, standbys)
    return {"waitsFor": list(standbys)}


async def fence_instance(world: World, *, instance: str, unfenced: bool = True) -> JSON:
    """Ends the old primary where it can be reached.

    Where it cannot, the standby in sync that is promoted next is the fence: without it the old
    primary can acknowledge nothing. With another standby (`unfenced` is false) this raises
    `Refused`.
    """
    fenced = await world.provider.fence(instance)
    if not fenced.fenced and not unfenced:
        raise Refused(
            f"{instance} could not be fenced ({fenced.how}): it may still take writes.",
            hint="make sure that it is off, then repeat with --unfenced --reason …",
            runbook="database-failure",
        )
    return {"fenced": fenced.fenced, "how": fenced.how}


async def fence_region(world: World, *, region: str, unfenced: bool) -> JSON:
    """Raises `Refused` when the region cannot be proven silent and nobody said to go on."""
    fenced = await world.provider.fence_region(region)
    if not fenced.fenced and not unfenced:
        raise Refused(
            f"{region} could not be fenced ({fenced.how}): it may still take writes.",
            hint="make sure that it is off, then repeat with --unfenced --reason …",
            runbook="region-failure",
        )
    return {"fenced": fenced.fenced, "how": fenced.how}


async def promote(
    world: World,
    *,
    instances: Sequence[str],
    lost: Sequence[str] = (),
    accept_data_loss: bool = False,
) -> JSON:
    """Returns for each new primary its timeline and the position (LSN, bytes) it began at.

    Raises `Refused` when the database has got another primary since this was planned, or when a
    primary that was `lost` answers again: a resumed operation must not make a second one.
    """
    for instance in lost:
        await confirm_lost(world, instance=instance)
    shard_map = await newest(world)
    for instance in instances:
        database = world.topology.instance(instance).component
        shard = shard_map.shards[database]
        planned = world.plan.premises.get(database, ["", -1])[:2]
        if [shard.primary.instance, shard.epoch] != planned:
            raise Refused(
                f"{shard.primary.instance} has become the primary of {database} since this "
                f"{world.plan.kind} was planned.",
                hint=f"regionctl op abort {world.operation_id}",
            )
    results = await together(
        *(world.provider.promote(id, accept_data_loss=accept_data_loss) for id in instances)
    )
    return dict(zip(instances, results, strict=True))


async def advance_map(world: World, *, changes: Sequence[Mapping[str, Any]]) -> JSON:
    """Each database gets its new primary and home under a new epoch; done once per change.

    With "renew" it gets a new epoch also when the primary stays the same node (with other data).
    """

    def due(shard: Shard, entry: Mapping[str, Any]) -> bool:
        if shard.primary.instance != entry["instance"]:
            return True
        planned = world.plan.premises.get(shard.name, ["", -1])[1]
        return bool(entry.get("renew")) and shard.epoch == planned

    def change(shard_map: ShardMap) -> ShardMap:
        changed = shard_map
        for entry in changes:
            if due(changed.shards[entry["database"]], entry):
                changed = changed.with_primary(
                    entry["database"],
                    world.provider.endpoint(entry["instance"]),
                    home=entry["home"],
                )
        return changed

    names = ", ".join(f"{entry['database']} → {entry['instance']}" for entry in changes)
    shard_map = await world.store.update_map(change, names)
    return {
        "version": shard_map.version,
        "epochs": {
            entry["database"]: shard_map.shards[entry["database"]].epoch for entry in changes
        },
    }


async def record_failover(world: World, *, databases: Sequence[str], kind: str) -> JSON:
    for database in databases:
        await world.store.record_failover(database, kind, world.operation_id)
    return {}


async def salvage(world: World, *, standbys: Sequence[Mapping[str, str]]) -> JSON:
    """Exports what only the deposed primaries have, before they are rewound."""
    found = await together(
        *(world.provider.salvage(entry["instance"], entry["upstream"]) for entry in standbys)
    )
    return {
        entry["instance"]: {"rows": each.rows, "path": each.path, "orders": list(each.orders)}
        for entry, each in zip(standbys, found, strict=True)
    }


async def return_standbys(world: World, *, standbys: Sequence[Mapping[str, str]]) -> JSON:
    """Each node follows its upstream: as it is, rewound, or copied anew."""
    await check_upstreams(world, standbys)
    ways = await together(
        *(_return(world, entry["instance"], entry["upstream"]) for entry in standbys)
    )
    return {entry["instance"]: way for entry, way in zip(standbys, ways, strict=True)}


async def _return(world: World, instance: str, upstream: str) -> str:
    try:
        await world.provider.follow(instance, upstream)
    except Refused:
        return await world.provider.rewind(instance, upstream)
    return "follow"


async def resend_events(
    world: World, *, databases: Sequence[str], settle_seconds: float = 0.0
) -> JSON:
    """Events that no consumer has recorded go to the stream again, `settle_seconds` from now.

    A queue is often lost together with databases, whose failovers run beside this one: the step
    waits until they have a primary again.
    """
    shards = [name for name in databases if name != CATALOG]
    await world.clock.sleep(settle_seconds)

    async def resend(database: str) -> int:
        async def sent() -> int | None:
            try:
                return await world.provider.resend_events(database)
            except Unavailable:
                return None

        return await wait_until(
            world.clock,
            sent,
            what=f"{database} and the catalog to answer",
            seconds=60,
            every=0.2,
            hint="regionctl status",
        )

    counts = await together(*(resend(name) for name in shards))
    return dict(zip(shards, counts, strict=True))


async def return_orphan_stock(world: World) -> JSON:
    """Databases were promoted at different points: stock taken by lost orders is put back."""
    return {"orders": await world.provider.return_orphan_stock()}


async def restore_directory(world: World) -> JSON:
    """Databases were promoted at different points: the e-mail directory follows the shards."""
    return {"rows": await world.provider.restore_directory()}


async def promote_queue(world: World, *, instance: str) -> JSON:
    await world.provider.promote_queue(instance)
    return {"instance": instance}


async def advance_queue(world: World, *, region: str, instance: str) -> JSON:
    def change(shard_map: ShardMap) -> ShardMap:
        if shard_map.queues[region].instance == instance:
            return shard_map
        return shard_map.with_queue(region, world.provider.endpoint(instance))

    shard_map = await world.store.update_map(change, f"queue of {region} → {instance}")
    return {"version": shard_map.version}
