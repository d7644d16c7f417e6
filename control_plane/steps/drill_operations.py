"""Operations that a drill provokes or opens, exactly as an operator or the sentinel would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from control_plane.operations import Operation
from control_plane.plans import PLANNERS
from control_plane.world import World
from runtime.clock import wait_until
from runtime.errors import Refused, TimedOut

JSON = dict[str, Any]


async def perform(
    world: World, run: int, verb: str, asked: Mapping[str, Any], seconds: float, name: str = ""
) -> Operation:
    """One operation for each run and `name` (default: the verb), however often this is called.

    Waits for its end, at most `seconds`; it is returned as it is then.
    """
    operation = await open_once(world, run, verb, asked, seconds, name)
    return await ended(world, operation.id, seconds)


async def open_once(
    world: World, run: int, verb: str, asked: Mapping[str, Any], seconds: float, name: str = ""
) -> Operation:
    """Plans `verb` from what is observed now; what a guard refuses is tried again for `seconds`.

    Raises the last `Refused` when the time is over.
    """
    key = f"{world.operation_id}/{run}/{name or verb}"
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
        return await wait_until(
            world.clock, opened, what=f"the {verb} to be opened", seconds=seconds
        )
    except TimedOut as timed_out:
        raise (refusals[0] if refusals else timed_out) from None


async def ended(world: World, id: str, seconds: float) -> Operation:
    """The operation when it has ended, or as it is after `seconds`."""

    async def finished() -> bool:
        return (await world.store.operation(id)).finished

    await patiently(world, finished, f"{id} to end", seconds)
    return await world.store.operation(id)


def told(operation: Operation) -> JSON:
    """What the evidence keeps of an operation: its end, and the times and results of its steps."""
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


async def patiently(
    world: World,
    condition: Callable[[], Awaitable[bool]],
    what: str,
    seconds: float,
    *,
    every: float = 0.1,
) -> bool:
    """Waits for `condition`; False, instead of an error, when it does not come."""
    try:
        await wait_until(world.clock, condition, what=what, seconds=seconds, every=every)
    except TimedOut:
        return False
    return True
