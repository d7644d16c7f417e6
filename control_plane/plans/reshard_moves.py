"""Which slots go where when the number of shards changes: as few as can be. Pure.

Every shard ends with 1024/N slots, rounded down or up, and keeps as many of its own as it may. A
shard gives from the end of what it has, so that what it keeps stays in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.shardmap import SLOTS, Move, ShardMap, SlotRange

JSON = dict[str, Any]


@dataclass(frozen=True)
class Transfer:
    """Slots `first`..`last` (both included) go from `source` to `target`."""

    source: str
    target: str
    first: int
    last: int

    @property
    def slots(self) -> int:
        return self.last - self.first + 1

    def args(self) -> JSON:
        """As arguments of a step."""
        return {
            "source": self.source,
            "target": self.target,
            "first": self.first,
            "last": self.last,
        }

    def is_of(self, move: Move) -> bool:
        return self == transfer_of(move)

    def batches(self, size: int) -> list[tuple[int, int]]:
        """Its slots in runs of at most `size`: (first, last)."""
        return runs(range(self.first, self.last + 1), size)


def transfer_of(move: Move) -> Transfer:
    return Transfer(move.source, move.target, move.first, move.last)


def runs(slots: Iterable[int], size: int = SLOTS) -> list[tuple[int, int]]:
    """Ascending slots as contiguous runs of at most `size`: (first, last)."""
    found: list[tuple[int, int]] = []
    for slot in slots:
        if found and slot == found[-1][1] + 1 and slot - found[-1][0] < size:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return found


def owners(ranges: Iterable[SlotRange]) -> list[str]:
    """The owner of each slot, by its number."""
    owned = [""] * SLOTS
    for each in ranges:
        owned[each.first : each.last + 1] = [each.shard] * (each.last - each.first + 1)
    return owned


def owned_by_target(shard_map: ShardMap, move: Move) -> list[int]:
    """The slots of `move` that were handed over and not taken back."""
    found = owners(shard_map.ranges)
    return [slot for slot in range(move.first, move.last + 1) if found[slot] == move.target]


def quotas(counts: Mapping[str, int], shards: Sequence[str]) -> dict[str, int]:
    """How many slots each of `shards` ends with. Who has most now gets the rounded-up share."""
    least, more = divmod(SLOTS, len(shards))
    ranked = sorted(shards, key=lambda name: -counts.get(name, 0))
    return {name: least + (rank < more) for rank, name in enumerate(ranked)}


def minimal_moves(ranges: Iterable[SlotRange], shards: Sequence[str]) -> tuple[Transfer, ...]:
    """The transfers after which exactly `shards` own all slots, evenly. Empty: they already do.

    No plan moves fewer slots: a shard gives only what it has above its quota.
    """
    owned = owners(ranges)
    counts = {name: owned.count(name) for name in (*shards, *owned)}
    quota = quotas(counts, shards)
    given: list[int] = []
    for name, count in counts.items():
        surplus = count - quota.get(name, 0)
        if surplus > 0:
            mine = [slot for slot in range(SLOTS) if owned[slot] == name]
            given += mine[-surplus:]
    need = {name: quota[name] - counts[name] for name in shards if quota[name] > counts[name]}
    return tuple(_deal(sorted(given), owned, need))


def _deal(given: Sequence[int], owned: list[str], need: dict[str, int]) -> list[Transfer]:
    """The given slots to those in need: a neighbour first, so that fewer ranges are left."""
    pieces: list[tuple[int, int]] = []
    for slot in given:
        if pieces and slot == pieces[-1][1] + 1 and owned[slot] == owned[pieces[-1][0]]:
            pieces[-1] = (pieces[-1][0], slot)
        else:
            pieces.append((slot, slot))
    transfers = []
    for first, last in pieces:
        while first <= last:
            beside = [owned[slot] for slot in (first - 1, last + 1) if 0 <= slot < SLOTS]
            target = next((name for name in beside if need.get(name)), next(iter(need)))
            end = min(last, first + need[target] - 1)
            transfers.append(Transfer(owned[first], target, first, end))
            need[target] -= end - first + 1
            if not need[target]:
                del need[target]
            first = end + 1
    return transfers
