"""Effects that copy slots and hand them over, through failovers and pauses on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.plans.reshard_moves import Transfer, owners
from control_plane.steps.provision import newest
from control_plane.steps.reshard_owners import handed_over
from control_plane.steps.reshard_watch import (
    Watch,
    find,
    patiently,
    slot_range,
    slots_moved,
)
from control_plane.world import World
from infra.moves import Compared, Handover
from runtime.errors import OperationFailed, Refused, TimedOut, Unavailable
from runtime.shardmap import ShardMap

JSON = dict[str, Any]


async def await_copy(world: World, *, source: str, target: str, first: int, last: int) -> JSON:
    """Every row is on the target, which follows the source closely."""
    began = world.clock.monotonic()
    progress = await Watch(world, Transfer(source, target, first, last)).until_near()
    return {"rows": progress.copied, "seconds": round(world.clock.monotonic() - began, 3)}


async def rehearse_move(
    world: World,
    *,
    source: str,
    target: str,
    first: int,
    last: int,
    slots: Sequence[int],
    budget_seconds: float,
) -> JSON:
    """A real fence, taken down again: what the hand-over will cost, and whether rows agree.

    Raises `OperationFailed` when they do not, or when the fence goes on exceeding its budget.
    """
    transfer = Transfer(source, target, first, last)
    if _belong(await newest(world), slots, target):
        return {}

    async def rehearse() -> tuple[Handover, Compared]:
        await Watch(world, transfer).until_near()
        shard_map = await newest(world)
        fence, compared = await world.provider.moves.rehearse(
            find(shard_map, transfer), shard_map, slot_range(slots), budget_seconds=budget_seconds
        )
        assert fence.pause is not None
        if fence.pause.seconds > budget_seconds:
            raise Refused(f"The fence stood for {fence.pause.seconds * 1000:.0f} ms.")
        return fence, compared

    fence, compared = await patiently(world, rehearse, "The rehearsal of the hand-over")
    if not compared.equal:
        raise _differ(compared, "nothing was handed over; regionctl shard abort drops the copy")
    return {**_paused(fence), "rows": compared.rows}


async def hand_over(
    world: World,
    *,
    source: str,
    target: str,
    first: int,
    last: int,
    slots: Sequence[int],
    budget_seconds: float,
    back: bool = False,
) -> JSON:
    """These slots have another owner, the services know it, and both sides were compared.

    What never was handed over is not taken `back`: it was the source's all along.
    Raises `OperationFailed` when rows differ; when they are taken `back` that is only noted, and
    nothing is deleted later.
    """
    transfer = Transfer(source, target, first, last)
    owner = source if back else target
    if back:
        away = handed_over(world, slots)
        if away is None:
            return {}
        slots = away
    fence = await _give(world, transfer, slots, owner, budget_seconds, back)
    shard_map = await _record(world, slots, owner, fence)
    told = _paused(fence)

    compared = await _compare(world, transfer, slots, back)
    if not compared.equal and not back:
        raise _differ(compared, "regionctl shard rollback --confirm NAME: the source has them all")
    moved, of = slots_moved(world, shard_map)
    await world.emit(
        {
            "kind": "slots-moved",
            "message": f"slots {slots[0]}-{slots[1]} are {owner}'s: "
            + (f"pause {told['pauseSeconds'] * 1000:.0f} ms, " if told else "")
            + f"{compared.rows:,} rows compared; {moved} of {of} slots",
            "slotsMoved": moved,
            "slots": of,
        }
    )
    return {
        "epoch": shard_map.place(slots[0]).epoch,
        **told,
        "attempt": None if fence is None else fence.attempt,
        "rows": compared.rows,
        "differentSlots": list(compared.different_slots),
    }


async def _compare(world: World, transfer: Transfer, slots: Sequence[int], back: bool) -> Compared:
    """Both sides of the slots. A failover since the hand-over took the snapshots, and broke the
    streams, without which no others can be taken: they are made anew first."""

    async def compare() -> Compared:
        latest = await newest(world)
        return await world.provider.moves.compare(find(latest, transfer), latest, slot_range(slots))

    async def mended() -> Compared:
        await Watch(world, transfer, back).until_near()
        return await compare()

    try:
        return await compare()
    except (Refused, Unavailable, TimedOut):
        what = f"The comparison of slots {slots[0]}-{slots[1]}"
        return await patiently(world, mended, what)


def _paused(fence: Handover | None) -> JSON:
    """For how long writers have waited, and the milliseconds of each part; empty: not measured."""
    if fence is None or fence.pause is None:
        return {}
    parts = {f"{name}Ms": round(took * 1000, 2) for name, took in fence.pause.parts.items()}
    return {"pauseSeconds": fence.pause.seconds, "pauseParts": parts}


async def _give(
    world: World,
    transfer: Transfer,
    slots: Sequence[int],
    owner: str,
    budget_seconds: float,
    back: bool,
) -> Handover | None:
    """The provider has handed the slots over; None when the map already says so."""

    async def give() -> Handover | None:
        if _belong(await newest(world), slots, owner):
            return None
        await Watch(world, transfer, back).until_near()
        shard_map = await newest(world)
        return await world.provider.moves.hand_over(
            find(shard_map, transfer),
            shard_map,
            slot_range(slots),
            budget_seconds=budget_seconds,
            back=back,
        )

    return await patiently(world, give, f"The hand-over of slots {slots[0]}-{slots[1]} to {owner}")


async def _record(
    world: World, slots: Sequence[int], owner: str, fence: Handover | None
) -> ShardMap:
    """The map says who owns the slots, under an epoch that the fence rows have too.

    The epoch of the hand-over is not new any more when a failover took one meanwhile: then the
    map gets a newer one, and the owner's fence rows follow before anybody is told.
    """

    def change(shard_map: ShardMap) -> ShardMap:
        if fence is None or _belong(shard_map, slots, owner):
            return shard_map
        epoch = max(fence.epoch, shard_map.next_epoch())
        return shard_map.with_slots(slots[0], slots[1], owner, epoch)

    shard_map = await world.store.update_map(change, f"slots {slots[0]}-{slots[1]} → {owner}")
    pause = None if fence is None else fence.pause
    if pause is not None:
        pause.passed("save")

    saved = [shard_map]

    async def tell() -> None:
        latest = saved.pop() if saved else await newest(world)
        if fence is None or latest.place(slots[0]).epoch != fence.epoch:
            primary = latest.shards[owner].primary.instance
            await world.provider.set_epoch(primary, latest, owner)
        await world.provider.publish_map(latest)
        if pause is not None:
            pause.passed("publish")

    await patiently(world, tell, f"The new owner of slots {slots[0]}-{slots[1]}")
    return shard_map


def _belong(shard_map: ShardMap, slots: Sequence[int], owner: str) -> bool:
    owned = owners(shard_map.ranges)
    return all(owned[slot] == owner for slot in slot_range(slots))


def _differ(compared: Compared, hint: str) -> OperationFailed:
    slots = compared.different_slots
    return OperationFailed(
        f"Rows of {len(slots)} slots differ between source and target. Nothing was deleted.",
        hint=hint,
        runbook="reshard",
        extra={"slots": list(slots)},
    )
