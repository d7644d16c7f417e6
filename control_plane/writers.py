"""Whether a slot ever had two writers at once, as its clients saw it. Pure.

Two writers are proven when a write of an older epoch was sent after a write of a newer epoch of the
same slot had been acknowledged, and was acknowledged too, whichever shards took them. A late answer
to an early write proves nothing: it may have been committed before the newer epoch began. Slots
that were moved have epochs of their own: those of one shard say nothing about each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.ledger import CREATE_USER, WRITES, Attempt, Ledger
from runtime.shardmap import CATALOG, slot_of


@dataclass(frozen=True)
class TwoWriters:
    """`shard`: its name, or "slot 17". `seconds`: how long after `newer` first acknowledged a write
    `older` still took writes."""

    shard: str
    older: str
    newer: str
    seconds: float
    writes: int


def two_writers(ledger: Ledger) -> tuple[TwoWriters, ...]:
    """Every proof that a slot had two writers at once; none is the only acceptable answer.

    The catalog is taken as one, and so are writes of a shard that name no user.
    """
    groups: dict[str, dict[tuple[int, str], list[Attempt]]] = defaultdict(lambda: defaultdict(list))
    for attempt in ledger.attempts:
        if attempt.ok and attempt.kind in WRITES and attempt.shard and attempt.epoch is not None:
            place = _slot(attempt)
            groups[place][(attempt.epoch, attempt.region or "")].append(attempt)
    return tuple(
        window
        for shard, writers in sorted(groups.items())
        for older in sorted(writers)
        for newer in sorted(writers)
        if older < newer
        for window in [_overlap(shard, older, newer, writers)]
        if window is not None
    )


def _slot(attempt: Attempt) -> str:
    """Of the user whose write it is; a user without a number is a place of its own."""
    user = attempt.record if attempt.kind == CREATE_USER else attempt.user
    if attempt.shard == CATALOG or not user:
        return str(attempt.shard)
    return f"slot {slot_of(int(user))}" if user.isdecimal() else user


def _overlap(
    shard: str,
    older: tuple[int, str],
    newer: tuple[int, str],
    writers: Mapping[tuple[int, str], Sequence[Attempt]],
) -> TwoWriters | None:
    """Two regions under one epoch may follow each other in either order; epochs may not."""
    late, since = _after(writers[older], writers[newer])
    if not late:
        return None
    if older[0] == newer[0] and not _after(writers[newer], writers[older])[0]:
        return None
    names = [f"epoch {epoch} in {region or 'no region'}" for epoch, region in (older, newer)]
    seconds = max(a.sent for a in late) - since
    return TwoWriters(shard, names[0], names[1], seconds, len(late))


def _after(ones: Sequence[Attempt], others: Sequence[Attempt]) -> tuple[list[Attempt], float]:
    """Those of `ones` sent after the first of `others` had been acknowledged, and when that was."""
    first = min(a.done for a in others if a.done is not None)
    return [a for a in ones if a.sent > first], first
