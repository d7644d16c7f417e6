"""Whether both sides of a move have the same rows, under snapshots of one and the same state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from infra.local.moves.sides import SLOT, TABLES, Ranges, Side, within
from infra.moves import Compared
from runtime.shardmap import Move

# Generated columns are not streamed; and what a search index is made of has no hash.
_COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname)
FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEHIND = "SELECT FROM regionctl.fence WHERE move_id = {} AND kind = '{}' AND epoch = {}"
# (move, kind, attempt) of a row in regionctl.fence.
Mark = tuple[int, str, int]
Sums = dict[tuple[str, int], tuple[int, int, int]]


@dataclass(frozen=True)
class Snapshots:
    """A connection of its own to each side, in one read-only transaction each once opened."""

    move: Move
    source: Any
    target: Any
    loop: asyncio.AbstractEventLoop

    async def open(self, side: Side) -> None:
        """Takes the snapshot of one side. The caller has made sure that nobody writes there."""
        await self._of(side).execute(f"{_BEGIN}; SELECT 1")

    async def open_behind(self, side: Side, mark: Mark) -> bool:
        """Takes the snapshot if it has the marker, and so all before it. May be asked again."""
        connection = self._of(side)
        again = "ROLLBACK; " if connection.is_in_transaction() else ""
        seen = await connection.execute(f"{again}{_BEGIN}; {_BEHIND.format(*mark)}")
        return bool(seen == "SELECT 1")

    def _of(self, side: Side) -> Any:
        return self.source if side.shard == self.move.source else self.target

    @property
    def usable(self) -> bool:
        return (
            self.loop is asyncio.get_running_loop()
            and not self.source.is_closed()
            and not self.target.is_closed()
        )

    def close(self) -> None:
        if self.loop is asyncio.get_running_loop():
            self.source.terminate()
            self.target.terminate()


async def compare(snapshots: Snapshots, ranges: Ranges) -> Compared:
    """Count, exclusive-or and sum of the rows' hashes, for every slot and table of both sides."""
    ours, theirs = await asyncio.gather(
        _sums(snapshots.source, ranges), _sums(snapshots.target, ranges)
    )
    different = {
        slot
        for table, slot in ours.keys() | theirs.keys()
        if ours.get((table, slot)) != theirs.get((table, slot))
    }
    rows = sum(count for count, _, _ in theirs.values())
    return Compared(rows, not different, tuple(sorted(different)))


async def _sums(connection: Any, ranges: Ranges) -> Sums:
    found: Sums = {}
    for table in TABLES:
        columns = await connection.fetchval(_COLUMNS, f"public.{table}")
        rows = await connection.fetch(
            "SELECT slot, count(*) AS count, bit_xor(hash) AS mixed, sum(hash::numeric) AS total "  # noqa: S608
            f"FROM (SELECT {SLOT} AS slot, hash_record_extended(ROW({columns}), 0) AS hash "
            f"FROM public.{table} WHERE {within(ranges)}) AS hashed GROUP BY slot"
        )
        for row in rows:
            found[table, row["slot"]] = (row["count"], row["mixed"], int(row["total"]))
    return found
