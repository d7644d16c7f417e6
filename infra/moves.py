"""Moving slots of users from one shard to another while both are written to.

A move is of one contiguous range from one source to one target, by logical replication that only
sees the rows of those slots. The write fence is in the source database: its slots are set to
`fencing`, writers of the slots are refused and wait, and whoever was inside is waited for. Every
verb may be repeated, also by another control plane after the first died in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runtime.clock import Clock
from runtime.errors import OperationFailed
from runtime.shardmap import Move, ShardMap


@dataclass(frozen=True)
class Progress:
    """`copied` of `rows` (an estimate) are on the target; `ready`: every table streams.

    `lag_bytes` is WAL of the source that the target has not confirmed. `healthy` is false when the
    stream broke: `start` then begins it anew. With `conflict` it stopped because a side has rows
    that it should not have: `start` would discard those of whom does not own them, so that is left
    to people.
    """

    rows: int
    copied: int
    ready: bool
    lag_bytes: int | None
    healthy: bool
    problem: str | None = None
    conflict: bool = False


@dataclass(frozen=True)
class Compared:
    """Rows of the slots on both sides, and whether count and checksum of every slot agree."""

    rows: int
    equal: bool
    different_slots: tuple[int, ...] = ()


@dataclass
class Pause:
    """How long writers of some slots have waited, and for what. It begins when it is made."""

    clock: Clock
    began: float = field(init=False)
    parts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    def passed(self, part: str) -> None:
        """All the time since the part before was for this one."""
        self.parts[part] = self.clock.monotonic() - self.began - self.seconds


@dataclass(frozen=True)
class Handover:
    """What was done under which epoch. `attempt` is the number under which it was done; an older
    attempt can change nothing more.

    `pause` is None when an earlier attempt had done it. After a hand-over it goes on until the map
    is published.
    """

    epoch: int
    attempt: int
    pause: Pause | None = None


def require_known(owned: Mapping[int, str], shard_map: ShardMap) -> None:
    """Raises `OperationFailed` unless the map has the owner (slot → shard) of every slot.

    A hand-over that the map has not yet: plans made from the map would delete the owner.
    """
    odd = [slot for slot, name in owned.items() if name != shard_map.place(slot).shard.name]
    if odd:
        raise OperationFailed(
            f"Slot {odd[0]} is {owned[odd[0]]}'s in the databases; the map says "
            f"{shard_map.place(odd[0]).shard.name} (so it is for {len(odd)} slots). Nothing was "
            "deleted.",
            hint="regionctl shard rollback or abort first records who owns them",
            runbook="reshard",
            extra={"slots": odd},
        )


class Moves(Protocol):
    async def sizes(self, shard_map: ShardMap) -> dict[str, dict[int, tuple[int, int]]]:
        """shard → slot → (rows of users' tables, bytes, both estimates from a sample)."""
        ...

    async def check(self, move: Move, shard_map: ShardMap) -> None:
        """Raises `Refused`: no disk for the copy, target slots not empty, a transaction is older
        than the fence's deadline, tables differ. `Unavailable`: a shard without its primary or its
        standby."""
        ...

    async def start(self, move: Move, shard_map: ShardMap) -> None:
        """Both sides publish, the target copies and follows, the source follows the target back.

        Repairs a stream that broke: rows of slots that are not the target's yet are removed from
        it and copied again. Returns when both directions are set up, not when the copy is done.
        """
        ...

    async def progress(self, move: Move, shard_map: ShardMap) -> Progress: ...

    async def hold(self, move: Move, shard_map: ShardMap, *, on: bool) -> None:
        """Copy and stream stop for a while (throttle, pause) or go on."""
        ...

    async def rehearse(
        self, move: Move, shard_map: ShardMap, slots: Sequence[int], *, budget_seconds: float
    ) -> tuple[Handover, Compared]:
        """Fence, drain, marker, snapshots, unfence; then both sides are compared. Nothing moves.

        Raises `Refused` when the fence could not be drained within the budget, or the tables of
        both sides have not the same columns (any more); so does `hand_over`.
        """
        ...

    async def hand_over(
        self,
        move: Move,
        shard_map: ShardMap,
        slots: Sequence[int],
        *,
        budget_seconds: float,
        back: bool = False,
    ) -> Handover:
        """`slots` (contiguous) become the target's under a new epoch; `back`: the source's again.

        Idempotent by the fence rows: owner set on the new side: done, its epoch is returned; else
        the old side is unfenced and it begins anew under a higher attempt. Not drained within the
        budget: unfenced again and `Refused`, nobody lost anything. The caller saves and publishes
        the map and then calls `compare`.
        """
        ...

    async def compare(self, move: Move, shard_map: ShardMap, slots: Sequence[int]) -> Compared:
        """Both sides of slots that were handed over: under the snapshots that were opened behind
        the fence, or, when those are gone, under a new fence of milliseconds."""
        ...

    async def owners(self, move: Move, shard_map: ShardMap) -> dict[int, tuple[str, int]]:
        """slot → (shard, epoch), as the databases say after a hand-over that was left half done was
        led to its end. No older attempt can change any of it later."""
        ...

    async def finish(self, move: Move, shard_map: ShardMap) -> None:
        """No stream, slot or publication of the move is left, and rows of its slots only where
        they are owned. Deletes in batches; they reach nobody else.

        Raises `OperationFailed`, with nothing deleted, when the map names other owners."""
        ...
