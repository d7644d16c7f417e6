"""Effects of the drill "data-corruption": found by the invariants, put right from a copy."""

from __future__ import annotations

import contextlib
from typing import Any

from control_plane.merging import merge
from control_plane.steps.drill_evidence import SETTLING_SECONDS
from control_plane.steps.drill_files import keep, kept, leave_out, run_folder, unless_left_out
from control_plane.steps.drill_operations import patiently
from control_plane.steps.drill_restore import server_name
from control_plane.world import World
from infra.provider import Fault
from runtime.errors import OperationFailed, Refused, Unavailable

JSON = dict[str, Any]

DETECT_SECONDS = 60.0
ROUNDS = 10


@unless_left_out
async def await_invariants(world: World, *, run: int) -> JSON:
    """Every invariant holds before the fault: else nobody could tell what broke it."""
    broken: list[str] = []

    async def whole() -> bool:
        broken[:] = await _broken(world)
        return not broken

    if not await patiently(world, whole, "invariants", SETTLING_SECONDS, every=0.25):
        return leave_out(run_folder(world, run), f"broken before the fault: {', '.join(broken)}")
    return {}


@unless_left_out
async def detect_corruption(world: World, *, run: int) -> JSON:
    """Asks the platform's invariants until one does not hold; that none breaks is evidence too."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "detected.json")
    if known:
        return known
    broken: list[str] = []

    async def found() -> bool:
        broken[:] = await _broken(world)
        return bool(broken)

    await patiently(world, found, "a broken invariant", DETECT_SECONDS, every=0.25)
    document = {"at": world.clock.monotonic(), "broken": broken}
    keep(folder, "detected.json", document)
    return document


async def _broken(world: World) -> list[str]:
    return [each["name"] for each in await world.provider.invariants() if not each["held"]]


@unless_left_out
async def merge_rows(world: World, *, run: int, database: str) -> JSON:
    """What the corruption took from the live rows comes back from the copy.

    Rows are looked at again until nothing is wrong, because slots and rows may move meanwhile.
    What came back is written down before it is done.
    """
    folder, repairs = run_folder(world, run), world.provider.repairs
    id = server_name(world, run, database)
    for _ in range(ROUNDS):
        shard_map = await world.store.shard_map()
        assert shard_map is not None
        primary = shard_map.shards[database].primary.instance
        try:
            found = merge(await repairs.differences(id, primary))
            if kept(folder, "merge.json") is None:
                keep(folder, "merge.json", {**found.to_json(), "at": world.clock.monotonic()})
            if not found.changes:
                break
            await repairs.repair(primary, found.changes)
        except (Refused, Unavailable):
            await world.clock.sleep(0.5)
    else:
        raise OperationFailed(
            f"Rows of {database} are still not as its copy {id} has them.",
            hint=f"regionctl op resume {world.operation_id}",
        )
    await world.provider.resend_events(database)
    await _drop_caches(world)
    document = {**kept(folder, "merge.json"), "at": world.clock.monotonic()}
    keep(folder, "merge.json", document)
    return document


async def _drop_caches(world: World) -> None:
    """Caches may have kept rows as they were between the corruption and the repair."""
    for cache in world.topology.instances(component="cache"):
        with contextlib.suppress(Unavailable):
            await world.provider.inject(Fault("drop-cache", cache.id))


@unless_left_out
async def await_repaired(world: World, *, run: int, database: str) -> JSON:
    """Waits until every invariant holds again, with orders coming in all the time."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "repaired.json")
    if known:
        return known
    broken: list[str] = []

    async def whole() -> bool:
        broken[:] = await _broken(world)
        return not broken

    held = await patiently(world, whole, "invariants", SETTLING_SECONDS, every=0.25)
    document = {"at": world.clock.monotonic(), "held": held, "broken": broken}
    keep(folder, "repaired.json", document)
    return document
