"""Effects that make the platform exist, run and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from control_plane.world import World
from infra.provider import Follower
from infra.topology import Topology
from runtime.clock import wait_until
from runtime.errors import OperationFailed, Refused
from runtime.shardmap import CATALOG, Endpoint, Shard, ShardMap, even_ranges

JSON = dict[str, Any]
Pairs = Sequence[Mapping[str, str]]
T = TypeVar("T")


async def together(*works: Awaitable[T]) -> list[T]:
    """The results of all. Raises what the first that failed raised, when every one has ended.

    A step that failed holds no lock any more, so nothing of it may go on behind its back.
    """
    ended = await asyncio.gather(*works, return_exceptions=True)
    results: list[T] = []
    for each in ended:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results


async def ensure_regions(world: World, *, regions: Sequence[str]) -> JSON:
    await together(*(world.provider.ensure_region(region) for region in regions))
    return {"regions": list(regions)}


async def remove_region(world: World, *, region: str) -> JSON:
    await world.provider.remove_region(region)
    return {"region": region}


async def start_servers(world: World, *, instances: Sequence[str]) -> JSON:
    await world.provider.ensure_running(instances)
    return {"started": len(instances)}


async def stop_servers(world: World, *, instances: Sequence[str]) -> JSON:
    await world.provider.ensure_stopped(instances)
    return {"stopped": len(instances)}


async def create_primaries(world: World, *, instances: Sequence[str]) -> JSON:
    await together(*(world.provider.create_primary(id) for id in instances))
    return {"created": list(instances)}


async def start_databases(world: World, *, instances: Sequence[str]) -> JSON:
    await together(*(world.provider.start_database(id) for id in instances))
    return {"started": list(instances)}


async def stop_databases(
    world: World, *, instances: Sequence[str], even_crashed: bool = False
) -> JSON:
    """Returns the final position (LSN, bytes) of each; with `even_crashed` None for one that died
    before it could be stopped: nobody will ask where its history ends."""

    async def stop(instance: str) -> int | None:
        try:
            return await world.provider.stop_database(instance)
        except OperationFailed:
            observed = await world.provider.observe([instance])
            if even_crashed and observed.state(instance) in ("stopped", "absent"):
                return None
            raise

    positions = await together(*map(stop, instances))
    return {"positions": dict(zip(instances, positions, strict=True))}


async def adopt_map(world: World) -> JSON:
    """The first shard map: everything where the topology puts it. A later map is left alone."""
    shard_map = await world.store.shard_map()
    if shard_map is None:
        first = first_map(world.topology, world.provider.endpoint)
        shard_map = await world.store.save_map(first, "first map")
    return {"version": shard_map.version}


def first_map(topology: Topology, endpoint: Callable[[str], Endpoint]) -> ShardMap:
    """Primaries in the first zone of the primary region, slots dealt evenly, all at epoch 1."""

    def shard(name: str) -> Shard:
        primary, *replicas = topology.database_nodes(name)
        ends = tuple(endpoint(node.id) for node in replicas)
        return Shard(name, 1, primary.region, endpoint(primary.id), ends)

    return ShardMap(
        version=1,
        ranges=even_ranges(topology.shards, 1),
        shards={name: shard(name) for name in topology.databases},
        queues={
            region.name: endpoint(topology.instances(component="queue", region=region.name)[0].id)
            for region in topology.regions
        },
    )


async def set_epochs(
    world: World, *, databases: Sequence[str] | None = None, ends_moves: bool = False
) -> JSON:
    """The fence rows of each database's primary say what the newest map says.

    With `ends_moves` also where slots move between these databases: both are replicas of unlike
    age, and what was under way between their old primaries has ended with them.
    """
    shard_map = await newest(world)
    names = list(shard_map.shards) if databases is None else list(databases)
    await _start_idle(world, shard_map, names)
    open_moves = [m for m in shard_map.moves if not {m.source, m.target} <= set(names)]
    known = replace(shard_map, moves=tuple(open_moves)) if ends_moves else shard_map
    await together(
        *(
            world.provider.set_epoch(known.shards[name].primary.instance, known, name)
            for name in names
        )
    )
    return {name: shard_map.shards[name].epoch for name in names}


async def _start_idle(world: World, shard_map: ShardMap, databases: Collection[str]) -> None:
    """The primaries of those that own nothing yet run: a shard that is being made has no standby
    that could take over, and as long as it has none there is nothing that it could lose."""
    idle = [
        shard.primary.instance
        for name in databases
        if name != CATALOG
        and not (shard := shard_map.shards[name]).sync
        and not shard_map.slots_of(name)
    ]
    if idle:
        observed = await world.provider.observe(idle)
        stopped = [id for id in idle if observed.state(id) == "stopped"]
        await together(*(world.provider.start_database(id) for id in stopped))


async def publish_map(world: World) -> JSON:
    shard_map = await newest(world)
    await world.provider.publish_map(shard_map)
    return {"version": shard_map.version}


async def check_upstreams(world: World, standbys: Pairs) -> None:
    """Raises `Refused` unless each entry follows its database's primary of this moment.

    A plan that has grown old must never turn a primary into somebody's standby.
    """
    shard_map = await newest(world)
    for entry in standbys:
        database = world.topology.instance(entry["instance"]).component
        primary = shard_map.shards[database].primary.instance
        if entry["upstream"] != primary or entry["instance"] == primary:
            raise Refused(
                f"{primary} is the primary of {database} now; {entry['instance']} cannot follow "
                f"{entry['upstream']}.",
                hint=f"regionctl op abort {world.operation_id}; the sentinel plans it again",
            )


async def clone_standbys(world: World, *, standbys: Pairs) -> JSON:
    await check_upstreams(world, standbys)
    nodes = [world.topology.instance(entry["instance"]) for entry in standbys]
    await _start_idle(world, await newest(world), {node.component for node in nodes})
    await together(
        *(world.provider.clone(entry["instance"], entry["upstream"]) for entry in standbys)
    )
    return {"cloned": [entry["instance"] for entry in standbys]}


async def join_sync(world: World, *, standbys: Pairs) -> JSON:
    """Commits wait for each standby, and only then is it recorded as in sync."""
    databases = {entry["database"] for entry in standbys}
    await _start_idle(world, await newest(world), databases)
    await together(*(_join(world, entry["database"], entry["standby"]) for entry in standbys))
    return {"joined": [entry["standby"] for entry in standbys]}


async def _join(world: World, database: str, standby: str) -> None:
    """First it streams, then commits wait for it, then it has all that was committed before.

    The last wait matters: what was acknowledged before commits began to wait may still be on its
    way, and a standby recorded in sync without it would lose that at a promotion.
    """
    primary = (await newest(world)).shards[database].primary.instance

    async def follower() -> tuple[int, Follower] | None:
        view = (await world.provider.observe([primary])).postgres(primary)
        if view is None or view.position is None:
            return None
        for found in view.followers:
            if found.instance == standby and found.streaming:
                return view.position, found
        return None

    hint = f"regionctl logs {standby} {primary}"
    await wait_until(
        world.clock, follower, what=f"{standby} to stream from {primary}", seconds=60, hint=hint
    )
    await world.provider.set_sync(primary, [standby])

    async def waited_for() -> int | None:
        seen = await follower()
        return seen[0] if seen and seen[1].sync else None

    position = await wait_until(
        world.clock, waited_for, what=f"commits to wait for {standby}", seconds=30, hint=hint
    )

    async def has_all() -> bool:
        seen = await follower()
        return seen is not None and seen[1].sync and seen[0] - seen[1].lag_bytes >= position

    await wait_until(
        world.clock, has_all, what=f"{standby} to have all commits", seconds=60, hint=hint
    )

    def record(shard_map: ShardMap) -> ShardMap:
        shard = shard_map.shards[database]
        if shard.primary.instance != primary:
            raise Refused(
                f"{shard.primary.instance} has become the primary of {database} meanwhile.",
                hint="regionctl status; the sentinel plans it again",
            )
        if shard.sync == (standby,):
            return shard_map
        return shard_map.with_sync(database, (standby,))

    await world.store.update_map(record, f"{standby} is in sync")


async def seed_catalog(world: World) -> JSON:
    await world.provider.seed()
    return {}


async def open_route(world: World, *, region: str) -> JSON:
    await world.provider.open_route(region)
    return {"route": region}


async def close_route(world: World) -> JSON:
    await world.provider.close_route()
    return {"route": None}


async def await_ready(world: World, *, seconds: float) -> JSON:
    """Every instance that can run does; but those of a shard that a reshard has not finished."""

    shard_map = await world.store.shard_map()
    known = shard_map.shards if shard_map else world.topology.databases

    async def missing() -> bool:
        observed = await world.provider.observe()
        waiting.clear()
        waiting.extend(
            spec.id
            for spec in world.topology.instances()
            if not observed.running(spec.id)
            and (spec.kind != "postgres" or spec.component in known)
            and not {spec.region, spec.region + spec.zone} & observed.unreachable
        )
        return not waiting

    waiting: list[str] = []
    await wait_until(
        world.clock,
        missing,
        what="every instance to run",
        seconds=seconds,
        every=0.2,
        hint="regionctl status names those that do not; regionctl logs INSTANCE says why",
    )
    return {}


async def newest(world: World) -> ShardMap:
    """The newest map. Raises `Refused` before the first."""
    return await world.store.update_map(lambda shard_map: shard_map, "")
