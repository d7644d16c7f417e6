"""How many rows and bytes each slot has, from a sample of the blocks."""

from __future__ import annotations

from typing import Any

from infra.local.moves.sides import SLOT, TABLES

# Of each table about so many blocks are read.
SAMPLE_BLOCKS = 1024

Sizes = dict[int, tuple[int, int]]


async def sizes(connection: Any) -> Sizes:
    """slot → (rows, bytes with indexes) of the database, without slots that have none."""
    found: dict[int, tuple[float, float]] = {}
    for table in TABLES:
        row = await connection.fetchrow(
            "SELECT pg_relation_size(c) / current_setting('block_size')::int AS blocks, "
            "pg_total_relation_size(c) AS bytes FROM (SELECT $1::text::regclass AS c) AS one",
            f"public.{table}",
        )
        percent = min(100.0, 100.0 * SAMPLE_BLOCKS / max(1, row["blocks"]))
        counted = await connection.fetch(
            f"SELECT {SLOT} AS slot, count(*) AS rows FROM public.{table} "  # noqa: S608
            f"TABLESAMPLE SYSTEM ({percent:.4f}) GROUP BY 1"
        )
        total = sum(each["rows"] for each in counted)
        for each in counted:
            rows, size = found.get(each["slot"], (0.0, 0.0))
            found[each["slot"]] = (
                rows + each["rows"] * 100 / percent,
                size + row["bytes"] * each["rows"] / total,
            )
    return {slot: (round(rows), round(size)) for slot, (rows, size) in sorted(found.items())}
