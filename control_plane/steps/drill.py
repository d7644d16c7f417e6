"""Effects of drills: load, fault, waiting for the real recovery, and gathering of evidence.

Each run of a drill has a folder, `drills/OPERATION/run-NN`, and every step leaves what it saw
there: the files are the evidence, and a step that is run again after a crash finds them and does
not do its work twice. The probe is a process of its own and outlives the control plane.

A run that cannot begin (no steady orders, a platform that is not whole) is left out: its reason
becomes evidence, its later steps do nothing, and the report says "void" of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from control_plane import drills
from control_plane import ledger as ledgers
from control_plane.operations import Operation
from control_plane.steps.drill_files import (
    book,
    keep,
    kept,
    leave_out,
    probe_alive,
    run_folder,
    spawn,
    unless_left_out,
)
from control_plane.steps.drill_operations import patiently, perform, told
from control_plane.world import World
from runtime.clock import wait_until
from runtime.errors import MeasurementVoid, TimedOut

JSON = dict[str, Any]

START_SECONDS = 60.0
STEADY_SECONDS = 30.0
RECOVERY_SECONDS = 60.0
RETURN_SECONDS = 240.0
REDUNDANCY_SECONDS = 180.0
STOP_SECONDS = 20.0


async def acknowledge(world: World, *, databases: Sequence[str]) -> JSON:
    """Earlier failovers of these databases have been seen: the sentinel may act again."""
    for database in databases:
        await world.store.acknowledge(database, f"drill {world.operation_id}")
    return {}


async def start_probe(
    world: World, *, run: int, rate: float, seed: int, max_seconds: float
) -> JSON:
    """A client process begins to order through the edge. One that runs already is kept.

    The journal is created exclusively by the probe itself, so two probes cannot share a run.
    """
    folder = run_folder(world, run)
    journal = folder / "journal.jsonl"
    if not journal.exists():
        options = {
            "--journal": journal,
            "--stop": folder / "stop",
            "--rate": rate,
            "--seed": seed,
            "--max-seconds": max_seconds,
        }
        arguments = [str(part) for pair in options.items() for part in pair]
        await spawn(world, folder, "loadtests.probe", [*world.as_client(), *arguments])

    async def ready() -> JSON | None:
        if not journal.exists():
            return None
        ledger = book(folder)
        if ledger.planned == 0 and ledger.ready is None:
            raise MeasurementVoid("the probe could not create users or orders before the fault")
        return {"ready": ledger.ready} if ledger.ready is not None else None

    try:
        return await wait_until(
            world.clock, ready, what="the probe to begin", seconds=START_SECONDS, every=0.1
        )
    except (MeasurementVoid, TimedOut) as problem:
        return leave_out(folder, f"{problem.detail} See {folder / 'probe.log'}.")


@unless_left_out
async def await_steady(world: World, *, run: int, seconds: float, success: float) -> JSON:
    """The last `seconds` of the journal had at least `success` (0..1) of successes."""
    folder = run_folder(world, run)

    async def steady() -> JSON | None:
        share = ledgers.success_over(book(folder), seconds)
        return {"success": share} if share >= success else None

    what = f"{seconds:g} s of steady orders before the fault"
    try:
        return await wait_until(world.clock, steady, what=what, seconds=STEADY_SECONDS, every=0.2)
    except TimedOut as problem:
        return leave_out(folder, problem.detail)


@unless_left_out
async def await_recovery(world: World, *, run: int, operations: Sequence[Sequence[str]]) -> JSON:
    """Waits for the sentinel's operations, each [kind, target]. It is not an error that they fail
    or do not come: the evidence then says so."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "recovery.json")
    if known:
        return known
    since = kept(folder, "fault.json")["at"]
    wanted = {(kind, target) for kind, target in operations}
    found: dict[tuple[str, str], Operation] = {}

    async def all_done() -> bool:
        for operation in reversed(await world.store.operations(limit=20)):
            pair = (operation.kind, operation.target)
            fresh = operation.created_at.isoformat() >= since
            if pair in wanted and fresh and not _succeeded(found.get(pair)):
                found[pair] = operation
        return all(_succeeded(found.get(pair)) for pair in wanted)

    what = ", ".join(f"{kind} of {target}" for kind, target in sorted(wanted))
    # Seldom enough not to compete with the recovery itself for the processor.
    await patiently(world, all_done, what, RECOVERY_SECONDS, every=0.5)
    document: JSON = {"operations": [told(operation) for operation in found.values()]}
    document["operations"] += [
        {"id": None, "kind": kind, "target": target, "state": "never opened", "steps": []}
        for kind, target in sorted(wanted - found.keys())
    ]
    keep(folder, "recovery.json", document)
    return document


def _succeeded(operation: Operation | None) -> bool:
    return operation is not None and operation.state == "succeeded"


@unless_left_out
async def run_recovery(world: World, *, run: int, verb: str, asked: Mapping[str, Any]) -> JSON:
    """Plans `verb` from what is observed now, as an operator would, and waits for its end."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "recovery.json")
    if known:
        return known
    operation = await perform(world, run, verb, asked, RECOVERY_SECONDS)
    document = {"operations": [told(operation)]}
    keep(folder, "recovery.json", document)
    return document


@unless_left_out
async def run_return(world: World, *, run: int, verb: str, asked: Mapping[str, Any]) -> JSON:
    """What brings the platform back to its design before the next repeat.

    When it fails, the next repeat finds that the platform is not whole and leaves itself out.
    """
    operation = await perform(world, run, verb, asked, RETURN_SECONDS)
    return {"operation": operation.id, "state": operation.state}


@unless_left_out
async def await_hold(world: World, *, run: int) -> JSON:
    """Waits until recovery is proven for every kind of operation; gives up after a minute."""
    folder = run_folder(world, run)
    fault = kept(folder, "fault.json")

    def times() -> dict[str, float | None]:
        began, effective = fault["began"], fault["effective"]
        return ledgers.rto(book(folder), fault["databases"], began=began, effective=effective)

    async def proven() -> bool:
        return None not in times().values()

    await patiently(world, proven, "steady service", RECOVERY_SECONDS, every=0.25)
    return {"rto": times()}


@unless_left_out
async def await_redundancy(world: World, *, run: int) -> JSON:
    """Waits until nothing is missing any more: every server, every standby, in sync again."""
    folder = run_folder(world, run)
    missing: list[str] = ["not looked yet"]

    async def whole() -> bool:
        observed = await world.provider.observe()
        missing[:] = drills.wounds(world.topology, observed, await world.store.shard_map())
        return not missing

    restored = await patiently(world, whole, "full redundancy", REDUNDANCY_SECONDS, every=0.3)
    document = {
        "restored": restored,
        "at": world.clock.monotonic(),
        "detail": "; ".join(missing),
    }
    keep(folder, "redundancy.json", document)
    return document


async def stop_probe(world: World, *, run: int) -> JSON:
    """Asks the probe to end and waits until it has written its last line, or has died."""
    folder = run_folder(world, run)
    (folder / "stop").touch()
    if not (folder / "journal.jsonl").exists():
        return {"ended": False}

    async def gone() -> bool:
        return not await asyncio.to_thread(probe_alive, folder)

    ended = await patiently(world, gone, "the probe to end", STOP_SECONDS, every=0.1)
    return {"ended": ended, **asdict(ledgers.counts(book(folder)))}
