"""What a reshard will move, how long that takes, and how long a user waits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from control_plane.plans.reshard_moves import Transfer

JSON = dict[str, Any]

COPY_ROWS_PER_SECOND = 50_000.0
"""Before the first copy here. Measured on two cores: 150 000 without other load."""
PAUSE_SECONDS = 0.03
HAND_OVER_SECONDS = 1.0
"""Of a batch with its comparison; most of it is outside the pause."""


@dataclass(frozen=True)
class Facts:
    """`sizes`: shard → slot → (rows, bytes); `pauses`: of the last fences, and
    `rows_per_second` of the last copies here (empty: none yet)."""

    sizes: Mapping[str, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    pauses: Sequence[float] = ()
    rows_per_second: Sequence[float] = ()


def estimate(moves: Sequence[Transfer], batch: int, facts: Facts) -> JSON:
    """What `--dry-run` says beforehand. `rows` and `bytes` are None when nobody could say."""
    listed = [_size(move, facts) for move in moves]
    known = bool(facts.sizes)
    rows = sum(each["rows"] or 0 for each in listed)
    batches = sum(len(move.batches(batch)) for move in moves)
    speed = median(facts.rows_per_second) if facts.rows_per_second else COPY_ROWS_PER_SECOND
    seconds = rows / speed + batches * HAND_OVER_SECONDS
    pauses = sorted(facts.pauses)
    return {
        "slots": sum(move.slots for move in moves),
        "handOvers": batches,
        "rows": rows if known else None,
        "bytes": sum(each["bytes"] or 0 for each in listed) if known else None,
        "seconds": round(seconds, 1) if known else None,
        "pauseSeconds": round(median(pauses), 4) if pauses else PAUSE_SECONDS,
        "worstPauseSeconds": round(pauses[-1], 4) if pauses else None,
        "pausesMeasured": len(pauses),
        "moves": listed,
    }


def _size(move: Transfer, facts: Facts) -> JSON:
    sizes = facts.sizes.get(move.source)
    found = [(sizes or {}).get(slot, (0, 0)) for slot in range(move.first, move.last + 1)]
    return {
        **move.args(),
        "slots": move.slots,
        "rows": sum(rows for rows, _ in found) if sizes is not None else None,
        "bytes": sum(size for _, size in found) if sizes is not None else None,
    }
