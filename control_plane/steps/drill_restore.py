"""Effects of drills that restore: copies out of backups, read through and ended again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from control_plane.evidence_data import acknowledged
from control_plane.ledger import CREATE_ORDER
from control_plane.merging import merge
from control_plane.steps.drill_files import book, keep, kept, leave_out, run_folder, unless_left_out
from control_plane.steps.drill_operations import ended, open_once, patiently, perform
from control_plane.world import World
from infra.backups import Backup, Restored, Target
from infra.lsn import format_lsn
from infra.provider import Fault
from runtime.clock import wait_until
from runtime.errors import OperationFailed, Refused, TimedOut, Unavailable
from runtime.shardmap import CATALOG

JSON = dict[str, Any]

BACKUP_SECONDS = 300.0
ARCHIVED_SECONDS = 60.0
RESTORE_SECONDS = 600.0
CUT_SECONDS = 60.0
STILL_SECONDS = 1.5
GIGABYTE = 1_000_000_000


async def ensure_backups(
    world: World, *, run: int, databases: Sequence[str], chained: Sequence[str]
) -> JSON:
    """Each of these databases has a backup, and each of `chained` an incremental one."""
    folder = run_folder(world, run)
    newest: dict[str, Backup] = {}

    async def missing() -> list[str]:
        newest.update({each.database: each for each in await world.provider.backups.list()})
        return [
            name
            for name in databases
            if name not in newest or (name in chained and newest[name].parent is None)
        ]

    try:
        for kind in ("first", "second"):
            for name in await missing():
                ask = {"database": name}
                await perform(world, run, "backup", ask, BACKUP_SECONDS, f"{kind}-backup-{name}")
        without = await missing()
    except (Refused, Unavailable) as problem:
        return leave_out(folder, problem.detail)
    if without:
        return leave_out(folder, f"no backup of {', '.join(without)} could be taken")
    return {"backups": {name: newest[name].id for name in databases}}


@unless_left_out
async def restore_before(
    world: World, *, run: int, database: str, production_gigabytes: float
) -> JSON:
    """A copy of the database beside the platform, as it was just before the corruption."""
    lsn = kept(run_folder(world, run), "fault.json")["detail"]["lsn"]
    return await _restore(world, run, {database: lsn}, production_gigabytes)


@unless_left_out
async def assume_loss(
    world: World, *, run: int, databases: Sequence[str], phase_seconds: float
) -> JSON:
    """From one moment on the archive receives nothing more, as if every server were gone.

    The regions are cut off from each other for that long; what the archive had by then is the
    target of the restore.
    """
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "fault.json")
    if known:
        return known
    await world.clock.sleep(phase_seconds)
    link = "/".join(region.name for region in world.topology.regions[:2])
    cut = Fault("cut-link", link, expires_seconds=CUT_SECONDS)
    injected = await world.provider.inject(cut)
    try:
        received = await _received(world, databases)
    except TimedOut as problem:
        return leave_out(folder, problem.detail)
    finally:
        await world.provider.heal(cut)
    document = {
        "fault": {"kind": "loss", "target": "every database"},
        "databases": [],
        "began": injected.began_monotonic,
        "effective": injected.effective_monotonic,
        "at": injected.began_at.isoformat(),
        "lagSeconds": None,
        "sampled": None,
        "detail": {"received": received},
    }
    keep(folder, "fault.json", document)
    return document


async def _received(world: World, databases: Sequence[str]) -> dict[str, int]:
    """The position up to which each archive has everything, once it stands still and is stored.

    Raises `TimedOut` when it does not come to rest: then the cut had no effect.
    """
    seen: list[tuple[float, dict[str, int]]] = []

    async def rests() -> dict[str, int] | None:
        archives = {each.database: each for each in await world.provider.backups.archives()}
        mine = [archives[name] for name in databases]
        now = {each.database: each.received for each in mine if each.received is not None}
        at = world.clock.monotonic()
        if not seen or seen[-1][1] != now:
            seen[:] = [(at, now)]
        stored = all((each.uploaded or 0) >= (each.received or 0) for each in mine)
        still = at - seen[-1][0] >= STILL_SECONDS
        return now if still and stored and len(now) == len(databases) else None

    return await wait_until(
        world.clock, rests, what="the archive to stand still", seconds=CUT_SECONDS, every=0.2
    )


@unless_left_out
async def restore_copies(
    world: World, *, run: int, databases: Sequence[str], production_gigabytes: float
) -> JSON:
    """Every database beside the platform, with everything that the archive had."""
    received = kept(run_folder(world, run), "fault.json")["detail"]["received"]
    wanted = {name: received[name] for name in databases}
    return await _restore(world, run, wanted, production_gigabytes)


async def _restore(
    world: World, run: int, wanted: dict[str, int], production_gigabytes: float
) -> JSON:
    """The real restores, side by side: database → LSN in bytes."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "restore.json")
    if known:
        return known
    for database, lsn in wanted.items():
        await _await_archived(world, database, lsn)
    opened = {
        database: await open_once(
            world,
            run,
            "restore",
            {
                "database": database,
                "to": "new",
                "at": format_lsn(lsn),
                "server": server_name(world, run, database),
            },
            ARCHIVED_SECONDS,
            f"restore-{database}",
        )
        for database, lsn in wanted.items()
    }
    for operation in opened.values():
        done = await ended(world, operation.id, RESTORE_SECONDS)
        if done.state != "succeeded":
            why = (done.problem or {}).get("detail", done.state)
            raise OperationFailed(
                f"The restore of {operation.target} failed: {why}",
                hint=f"regionctl op resume {operation.id}, then {world.operation_id}",
            )
    copies = [
        await world.provider.backups.restored(server_name(world, run, name)) for name in wanted
    ]
    document = {
        "at": world.clock.monotonic(),
        "copies": [_copy(each) for each in copies],
        "productionBytes": production_gigabytes * GIGABYTE,
    }
    keep(folder, "restore.json", document)
    return document


async def _await_archived(world: World, database: str, lsn: int) -> None:
    """Raises the last `Refused` when the archive cannot reach `lsn` in time."""
    refusals: list[Refused] = []

    async def reachable() -> bool:
        try:
            await world.provider.backups.check_target(database, Target(lsn=lsn))
        except Refused as refused:
            refusals[:] = [refused]
            return False
        return True

    if not await patiently(world, reachable, "the archive", ARCHIVED_SECONDS, every=0.25):
        raise refusals[0]


def _copy(restored: Restored) -> JSON:
    return {
        "id": restored.id,
        "database": restored.database,
        "reachedLsn": restored.reached_lsn,
        "reachedAt": restored.reached_at.isoformat() if restored.reached_at else None,
        "timeline": restored.timeline,
        "bytes": restored.bytes,
        "seconds": dict(restored.seconds),
    }


def server_name(world: World, run: int, database: str) -> str:
    return f"{world.operation_id}-{run}-{database}"


@unless_left_out
async def inspect_copies(world: World, *, run: int, databases: Sequence[str]) -> JSON:
    """Each copy is read through: invariants, sums over all rows, every acknowledged write."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "copies.json")
    if known:
        return known
    fault = kept(folder, "fault.json")
    writes = acknowledged(book(folder), fault["effective"])
    orders = [str(a.record) for a in writes if a.kind == CREATE_ORDER]
    users = [str(a.record) for a in writes if a.kind != CREATE_ORDER]
    shards = [name for name in databases if name != CATALOG]
    found = dict(
        zip(
            databases,
            await asyncio.gather(*(_inspect(world, run, n, orders, users) for n in databases)),
            strict=True,
        )
    )
    missing = set.intersection(*(set(found[name].pop("missing")) for name in shards))
    served = sum(found[name].pop("served") for name in shards)
    gone_orders = missing.intersection(orders)
    document = {
        "at": world.clock.monotonic(),
        "asked": len(orders) + len(users),
        "served": served + len(users) - len(missing - gone_orders),
        "missing": sorted(missing),
        "copies": [{"database": name, **told} for name, told in found.items()],
    }
    keep(folder, "copies.json", document)
    return document


async def _inspect(
    world: World, run: int, database: str, orders: list[str], users: list[str]
) -> JSON:
    id = server_name(world, run, database)
    if database == CATALOG:
        orders = users = []
    found = asdict(await world.provider.repairs.inspect(id, orders, users))
    different = 0
    if database != CATALOG:
        shard_map = await world.store.shard_map()
        assert shard_map is not None
        primary = shard_map.shards[database].primary.instance
        different = len(merge(await world.provider.repairs.differences(id, primary)).changes)
    return {**found, "different": different}


@unless_left_out
async def plant_damages(world: World, *, run: int, database: str, kinds: Sequence[str]) -> JSON:
    """Plants each damage in a copy of the archive; the restore must notice every one."""
    folder = run_folder(world, run)
    damages = kept(folder, "damages.json") or []
    for kind in kinds:
        if kind in {each["kind"] for each in damages}:
            continue
        try:
            saw = await world.provider.repairs.noticed(database, kind)
        except (Refused, Unavailable) as problem:
            saw = None
            damages.append({"kind": kind, "caught": False, "saw": problem.detail})
        else:
            damages.append({"kind": kind, "caught": saw is not None, "saw": saw or "nothing"})
        keep(folder, "damages.json", damages)
    return {"planted": len(damages), "caught": sum(each["caught"] for each in damages)}


async def discard_copies(world: World, *, run: int) -> JSON:
    """Nothing of the restored copies is left."""
    known: JSON | None = kept(run_folder(world, run), "restore.json")
    names = [each["id"] for each in known["copies"]] if known else []
    for name in names:
        await world.provider.backups.discard(name)
    return {"discarded": names}
