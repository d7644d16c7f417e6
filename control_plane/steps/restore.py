"""Effects of a restore, beside the platform or in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.plans.restore import target_of
from control_plane.steps.backup_watch import told
from control_plane.steps.provision import newest
from control_plane.world import World
from infra.backups import Archive, Restored
from runtime.clock import wait_until
from runtime.errors import Refused, TimedOut
from runtime.shardmap import ShardMap

JSON = dict[str, Any]


async def check_target(
    world: World, *, database: str, at: str | None, id: str | None, in_place: bool = False
) -> JSON:
    """The backup from which the target can be reached, proven before anything is touched.

    Raises `Refused` when it cannot be, and in place also when slots changed hands since: the
    restored database would have users that are another's by now, and lack some of its own.
    """
    backup = await world.provider.backups.check_target(database, target_of(at), id)
    if in_place:
        check_slots(database, await world.store.maps_since(backup.map_version))
    return {"backup": backup.id, "at": at}


def check_slots(database: str, maps: Sequence[ShardMap]) -> None:
    """Raises `Refused` unless `database` had the same slots, and no part in a move, in all `maps`.

    With rows it would also get back the streams of a move that nobody knows any more.
    """
    owned = {
        frozenset(
            slot for each in known.slots_of(database) for slot in range(each.first, each.last + 1)
        )
        for known in maps
    }
    moved = any(database in (move.source, move.target) for known in maps for move in known.moves)
    if moved or len(owned) > 1:
        raise Refused(
            f"Slots of {database} were moved since the backup was taken: in place it would not fit "
            "the other shards any more.",
            hint="restore with --to new and take rows from there, or choose a later target",
            runbook="restore",
        )


async def await_archived(
    world: World, *, instance: str, others: Sequence[str], seconds: float
) -> JSON:
    """The archive has all that the stopped primary wrote: what is given up can be restored too.

    Raises `Refused` when it does not come; the primary and the `others` that were stopped with it
    are started again then, and nothing has changed.
    """
    database = world.topology.instance(instance).component
    final = await world.provider.stop_database(instance)

    async def received() -> Archive | None:
        for archive in await world.provider.backups.archives():
            if archive.database == database and (archive.received or 0) >= final:
                return archive
        return None

    try:
        archive = await wait_until(
            world.clock, received, what=f"the archive of {database}", seconds=seconds, every=0.2
        )
    except TimedOut:
        for each in (instance, *others):
            await world.provider.start_database(each)
        raise Refused(
            f"The archive of {database} has not received everything up to {final}; its primary "
            "runs again.",
            hint="regionctl backup status; or --accept-data-loss --reason …",
            runbook="restore",
        ) from None
    return {"final": final, "received": archive.received}


async def restore_into(
    world: World, *, instance: str, database: str, at: str | None, id: str | None
) -> JSON:
    """From the backup `id`, or the newest that reaches `at`.

    Raises `Refused` when another node has become the primary since this was planned."""
    shard = (await newest(world)).shards[database]
    planned = world.plan.premises.get(database, ["", -1])[:2]
    if [shard.primary.instance, shard.epoch] != planned:
        raise Refused(
            f"{shard.primary.instance} has become the primary of {database} since this was "
            "planned.",
            hint=f"regionctl op abort {world.operation_id}",
        )
    making = world.provider.backups.restore_into(instance, database, target_of(at), id)
    return await told(world, instance, making)


async def restore_aside(
    world: World, *, database: str, at: str | None, id: str | None, server: str | None
) -> JSON:
    """The restored server, by default called after its database and this operation."""
    name = server or f"{database}-{world.operation_id}"
    making = world.provider.backups.restore_aside(name, database, target_of(at), id)
    return restored_json(await told(world, name, making))


async def discard_restored(world: World, *, id: str) -> JSON:
    await world.provider.backups.discard(id)
    return {"id": id}


def restored_json(restored: Restored) -> JSON:
    """A restored server on the wire: camelCase, times in ISO 8601."""
    return {
        "id": restored.id,
        "database": restored.database,
        "host": restored.host,
        "port": restored.port,
        "user": restored.user,
        "dbname": restored.dbname,
        "passfile": restored.passfile,
        "reachedLsn": restored.reached_lsn,
        "reachedAt": restored.reached_at.isoformat() if restored.reached_at else None,
        "timeline": restored.timeline,
        "bytes": restored.bytes,
        "seconds": dict(restored.seconds),
    }
