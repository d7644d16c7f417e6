"""Effects of drills: the fault itself, injected once and timed honestly, and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane import drills
from control_plane.lag import safe_until
from control_plane.steps.drill_files import keep, kept, leave_out, run_folder, unless_left_out
from control_plane.world import World
from infra.provider import Fault, Injected, Observed
from infra.topology import InstanceSpec
from runtime.clock import wait_until
from runtime.errors import Refused, TimedOut

JSON = dict[str, Any]

WHOLE_SECONDS = 10.0
POSSIBLE_SECONDS = 30.0
LOOKS = 40
TOUCHED = ("absent", "stopped", "frozen")


@unless_left_out
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

    Before it breaks anything it leaves a mark: the time, and which processes run. A worker that
    finds a mark without a record looks for those processes. All as they were: nothing was broken,
    and it begins anew. Some of them: it breaks the rest. None: it breaks nothing more. What was
    broken in between has an uncertain moment: recovery is timed from the earliest that it can be
    (the mark), loss up to the latest (now), so neither can look better than it was.
    """
    folder = run_folder(world, run)
    known: JSON | None = kept(folder, "fault.json")
    if known:
        return known
    broken = Fault(**fault)
    mark: JSON | None = kept(folder, "mark.json")
    untouched = await _untouched(world, mark["before"]) if mark else set()
    if mark and len(untouched) < len(mark["before"]):
        if untouched:
            await _break(world, broken)
        mark |= {"effective": world.clock.monotonic()}
    else:
        obstacle = await _obstacle(world, fault, moved)
        if obstacle:
            return leave_out(folder, obstacle, fault)
        await world.clock.sleep(phase_seconds)
        mark = await _mark(world, fault)
        keep(folder, "mark.json", mark)
        injected = await _break(world, broken)
        mark |= {
            "began": injected.began_monotonic,
            "effective": injected.effective_monotonic,
            "at": injected.began_at.isoformat(),
            "pids": list(injected.pids),
            **({"detail": dict(injected.detail)} if injected.detail else {}),
        }
    document = {"fault": dict(fault), "databases": list(databases), "moved": list(moved), **mark}
    keep(folder, "fault.json", document)
    await world.emit({"kind": "fault-injected", "run": run, "fault": dict(fault)})
    return document


@unless_left_out
async def heal_fault(world: World, *, run: int) -> JSON:
    """The fault is taken away; what it broke is left to the operations that mend it."""
    fault = kept(run_folder(world, run), "fault.json")["fault"]
    await world.provider.heal(Fault(**fault))
    return {}


async def _break(world: World, fault: Fault) -> Injected:
    """A provider refuses what cannot be done yet: rows are corrupted once there are enough."""
    refusals: list[Refused] = []

    async def done() -> Injected | None:
        try:
            return await world.provider.inject(fault)
        except Refused as refused:
            refusals.append(refused)
            return None

    try:
        return await wait_until(world.clock, done, what="x", seconds=POSSIBLE_SECONDS, every=0.5)
    except TimedOut:
        raise refusals[-1] from None


async def _obstacle(world: World, fault: Mapping[str, Any], moved: Sequence[str]) -> str | None:
    """Why this run would not be the one that was planned; None when it would.

    A repeat on a platform that is still wounded proves nothing, and may finish it off.
    """
    shard_map = await world.store.shard_map()
    for name in moved:
        primary = shard_map.shards[name].primary.instance if shard_map else None
        if primary is None or fault["target"] not in _places(world.topology.instance(primary)):
            return f"{fault['target']} is not the primary of {name} any more"
    missing: list[str] = []

    async def whole() -> bool:
        observed = await world.provider.observe()
        missing[:] = drills.wounds(world.topology, observed, await world.store.shard_map())
        return not missing

    try:
        await wait_until(world.clock, whole, what="x", seconds=WHOLE_SECONDS, every=0.3)
    except TimedOut:
        return f"the platform is not whole: {'; '.join(missing)}"
    return None


def _places(spec: InstanceSpec) -> tuple[str, str, str]:
    return spec.id, spec.region, spec.region + spec.zone


async def _mark(world: World, fault: Mapping[str, Any]) -> JSON:
    """What is before the fault: which processes run there, how far replicas are, and the time."""
    observed = await world.provider.observe()
    before = {
        id: view.pid
        for id, view in observed.instances.items()
        if fault["target"] in _places(world.topology.instance(id)) and view.state == "running"
    }
    lag = await _lag(world, fault)
    now = {"began": world.clock.monotonic(), "at": world.clock.now().isoformat()}
    return {"before": before, **lag, **now}


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


async def _untouched(world: World, before: Mapping[str, int | None]) -> set[str]:
    """Those of the processes that still run as they did."""
    observed = await world.provider.observe(list(before))
    return {
        id
        for id, pid in before.items()
        if (view := observed.instances[id]).pid == pid and view.state not in TOUCHED
    }
