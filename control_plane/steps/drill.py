"""Effects of drills: load, fault, waiting for the real recovery, and gathering of evidence.

Each run of a drill has a folder, `drills/OPERATION/run-NN`, and every step leaves what it saw
there: the files are the evidence, and a step that is run again after a crash finds them and does
not do its work twice. The probe is a process of its own and outlives the control plane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from control_plane import drills
from control_plane import ledger as ledgers
from control_plane.lag import safe_until
from control_plane.operations import Operation
from control_plane.plans import PLANNERS
from control_plane.steps.drill_files import (
    book,
    keep,
    kept,
    probe_alive,
    run_folder,
    spawn,
)
from control_plane.world import World
from infra.provider import Fault, Observed
from infra.topology import InstanceSpec
from runtime.clock import wait_until
from runtime.errors import MeasurementVoid, Refused, TimedOut

JSON = dict[str, Any]

START_SECONDS = 20.0
STEADY_SECONDS = 30.0
RECOVERY_SECONDS = 60.0
RETURN_SECONDS = 240.0
REDUNDANCY_SECONDS = 180.0
STOP_SECONDS = 20.0
LOOKS = 40


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
            "--url": world.entry_url,
            **({"--ca": world.ca_file} if world.ca_file.exists() else {}),
            "--journal": journal,
            "--stop": folder / "stop",
            "--rate": rate,
            "--seed": seed,
            "--max-seconds": max_seconds,
        }
        arguments = [str(part) for pair in options.items() for part in pair]
        await spawn(world, folder, "loadtests.probe", arguments)

    async def ready() -> JSON | None:
        if not journal.exists():
            return None
        ledger = book(folder)
        if ledger.planned == 0 and ledger.ready is None:
            raise MeasurementVoid(
                "The probe could not create users or orders before the fault.",
                hint="regionctl status, and: regionctl logs",
                extra={"log": str(folder / "probe.log")},
            )
        return {"ready": ledger.ready} if ledger.ready is not None else None

    hint = f"see {folder / 'probe.log'}"
    return await wait_until(
        world.clock, ready, what="the probe to begin", seconds=START_SECONDS, every=0.1, hint=hint
    )


async def await_steady(world: World, *, run: int, seconds: float, success: float) -> JSON:
    """The last `seconds` of the journal had at least `success` (0..1) of successes."""
    folder = run_folder(world, run)

    async def steady() -> JSON | None:
        share = ledgers.success_over(book(folder), seconds)
        return {"success": share} if share >= success else None

    return await wait_until(
        world.clock,
        steady,
        what=f"{seconds:g} s of steady orders before the fault",
        seconds=STEADY_SECONDS,
        every=0.2,
        hint="regionctl status; a drill needs a platform that works",
    )


async def inject_fault(
    world: World,
    *,
    run: int,
    fault: Mapping[str, Any],
    databases: Sequence[str],
    moved: Sequence[str],
    phase_seconds: float,
) -> JSON:
    """Breaks it, once. Returns what was broken and when.

    A worker that died between breaking and recording leaves a mark. Then the fault is timed from
    the mark, which is earlier than the truth: the measured recovery can only be too long.
    """
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "fault.json")
    if known:
        return known
    mark: JSON = kept(folder, "mark.json") or {}
    if not mark:
        await _check_target(world, fault, moved)
        await world.clock.sleep(phase_seconds)
        mark = await _lag(world, fault)
        mark |= {"began": world.clock.monotonic(), "at": world.clock.now().isoformat()}
        keep(folder, "mark.json", mark)
        injected = await world.provider.inject(Fault(**fault))
        mark |= {
            "began": injected.began_monotonic,
            "effective": injected.effective_monotonic,
            "at": injected.began_at.isoformat(),
            "pids": list(injected.pids),
        }
    else:
        if await _is_primary(world, fault["target"]) or not moved:
            await world.provider.inject(Fault(**fault))
        mark["effective"] = world.clock.monotonic()
    document = {"fault": dict(fault), "databases": list(databases), "moved": list(moved), **mark}
    keep(folder, "fault.json", document)
    await world.emit({"kind": "fault-injected", "run": run, "fault": dict(fault)})
    return document


async def _check_target(world: World, fault: Mapping[str, Any], moved: Sequence[str]) -> None:
    spec = world.topology.by_id.get(fault["target"])
    if spec is None or spec.kind != "postgres" or not moved:
        return
    if not await _is_primary(world, fault["target"]):
        raise Refused(
            f"{fault['target']} is not a primary any more: the drill was planned on another state.",
            hint=f"regionctl op abort {world.operation_id}, then run the drill again",
        )


async def _is_primary(world: World, target: str) -> bool:
    """Whether `target`, a database node, zone or region, still has a primary in it."""
    shard_map = await world.store.shard_map()
    if shard_map is None:
        return False
    primaries = [world.topology.instance(s.primary.instance) for s in shard_map.shards.values()]
    return any(target in _places(spec) for spec in primaries)


def _places(spec: InstanceSpec) -> tuple[str, str, str]:
    return spec.id, spec.region, spec.region + spec.zone


async def _lag(world: World, fault: Mapping[str, Any]) -> JSON:
    """How old what the other regions lack can be, just before a region is lost; None: unknown.

    Looks until every replica has what its primary had at an earlier look: all that was
    acknowledged before that look is then safe, whatever clocks and reports say.
    """
    if fault["kind"] != "kill-region":
        return {"lagSeconds": None, "sampled": None}
    databases = [spec.id for spec in world.topology.instances(kind="postgres")]
    looks: list[tuple[float, Observed]] = []
    safe: float | None = None
    for _ in range(LOOKS):
        looks.append((world.clock.monotonic(), await world.provider.observe(databases)))
        safe = safe_until(world.topology, looks, fault["target"])
        if safe is not None:
            break
        await world.clock.sleep(0.05)
    sampled = looks[-1][0]
    return {"lagSeconds": None if safe is None else sampled - safe, "sampled": sampled}


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
    await _patiently(world, all_done, what, RECOVERY_SECONDS, every=0.5)
    document: JSON = {"operations": [_told(operation) for operation in found.values()]}
    document["operations"] += [
        {"id": None, "kind": kind, "target": target, "state": "never opened", "steps": []}
        for kind, target in sorted(wanted - found.keys())
    ]
    keep(folder, "recovery.json", document)
    return document


def _succeeded(operation: Operation | None) -> bool:
    return operation is not None and operation.state == "succeeded"


def _told(operation: Operation) -> JSON:
    return {
        "id": operation.id,
        "kind": operation.kind,
        "target": operation.target,
        "state": operation.state,
        "reason": operation.reason,
        "requestedBy": operation.requested_by,
        "steps": [
            {
                "name": step.name,
                "state": step.state,
                "started": step.started_monotonic,
                "finished": step.finished_monotonic,
                "result": step.result,
            }
            for step in operation.steps
        ],
    }


async def run_recovery(world: World, *, run: int, verb: str, asked: Mapping[str, Any]) -> JSON:
    """Plans `verb` from what is observed now, as an operator would, and waits for its end."""
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "recovery.json")
    if known:
        return known
    operation = await _perform(world, run, verb, asked, RECOVERY_SECONDS)
    document = {"operations": [_told(operation)]}
    keep(folder, "recovery.json", document)
    return document


async def run_return(world: World, *, run: int, verb: str, asked: Mapping[str, Any]) -> JSON:
    """What brings the platform back to its design before the next repeat. Raises when it fails."""
    operation = await _perform(world, run, verb, asked, RETURN_SECONDS)
    if operation.state != "succeeded":
        raise Refused(
            f"{operation.id}, the {verb}, {operation.state}: the drill cannot be repeated.",
            hint=f"regionctl op show {operation.id}",
        )
    return {"operation": operation.id}


async def _perform(
    world: World, run: int, verb: str, asked: Mapping[str, Any], seconds: float
) -> Operation:
    """One operation for each run and verb, however often this is called."""
    key = f"{world.operation_id}/{run}/{verb}"
    refusals: list[Refused] = []

    async def opened() -> Operation | None:
        known = await world.store.operation_by_key(key)
        if known is not None:
            return known
        try:
            plan = PLANNERS[verb](
                world.topology,
                await world.provider.observe(),
                await world.store.shard_map(),
                **asked,
            )
            reason = str(asked.get("reason") or f"drill {world.operation_id}")
            return await world.store.create_operation(plan, reason, key, world.operation_id)
        except Refused as refused:
            refusals[:] = [refused]
            return None

    try:
        operation = await wait_until(
            world.clock, opened, what=f"the {verb} to be opened", seconds=seconds
        )
    except TimedOut as timed_out:
        raise (refusals[0] if refusals else timed_out) from None

    async def ended() -> bool:
        return (await world.store.operation(operation.id)).finished

    await _patiently(world, ended, f"{operation.id} to end", seconds)
    return await world.store.operation(operation.id)


async def await_hold(world: World, *, run: int) -> JSON:
    """Waits until recovery is proven for every kind of operation; gives up after a minute."""
    folder = run_folder(world, run)
    fault = kept(folder, "fault.json")

    def times() -> dict[str, float | None]:
        began, effective = fault["began"], fault["effective"]
        return ledgers.rto(book(folder), fault["databases"], began=began, effective=effective)

    async def proven() -> bool:
        return None not in times().values()

    await _patiently(world, proven, "steady service", RECOVERY_SECONDS, every=0.25)
    return {"rto": times()}


async def heal_fault(world: World, *, run: int) -> JSON:
    """The fault is taken away; what it broke is left to the operations that mend it."""
    fault = kept(run_folder(world, run), "fault.json")["fault"]
    await world.provider.heal(Fault(**fault))
    return {}


async def await_redundancy(world: World, *, run: int) -> JSON:
    """Waits until nothing is missing any more: every server, every standby, in sync again."""
    folder = run_folder(world, run)
    missing: list[str] = ["not looked yet"]

    async def whole() -> bool:
        observed = await world.provider.observe()
        missing[:] = drills.wounds(world.topology, observed, await world.store.shard_map())
        return not missing

    restored = await _patiently(world, whole, "full redundancy", REDUNDANCY_SECONDS, every=0.3)
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

    async def gone() -> bool:
        return not await asyncio.to_thread(probe_alive, folder)

    ended = await _patiently(world, gone, "the probe to end", STOP_SECONDS, every=0.1)
    return {"ended": ended, **asdict(ledgers.counts(book(folder)))}


async def _patiently(
    world: World, condition: Any, what: str, seconds: float, *, every: float = 0.1
) -> bool:
    """Waits for `condition`; False, instead of an error, when it does not come."""
    try:
        await wait_until(world.clock, condition, what=what, seconds=seconds, every=every)
    except TimedOut:
        return False
    return True
