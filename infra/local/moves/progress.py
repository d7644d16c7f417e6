"""How far the copy of a move is."""

from __future__ import annotations

from infra.local.moves import streams
from infra.local.moves.sides import TABLES, Sides, ranges_of, within
from infra.local.site import Site
from infra.moves import Progress

# Rows that a table's running first copy has written so far.
_COPYING = """
SELECT c.relname, p.tuples_processed FROM pg_stat_progress_copy p
JOIN pg_class c ON c.oid = p.relid
WHERE p.type = 'CALLBACK' AND p.command = 'COPY FROM'
"""


async def count(sides: Sides) -> dict[str, int]:
    """table → rows of the move's slots on the source. Reads every block."""
    condition = within(ranges_of(sides.slots))
    return {
        table: await sides.source.connection.fetchval(
            f"SELECT count(*) FROM public.{table} WHERE {condition}"  # noqa: S608
        )
        for table in TABLES
    }


async def progress(site: Site, sides: Sides, expected: dict[str, int]) -> Progress:
    """`expected`: what `count` once said."""
    forward = await streams.look(site, sides, "fwd")
    back = await streams.look(site, sides, "rev")
    copying = {
        row["relname"]: int(row["tuples_processed"])
        for row in await sides.target.connection.fetch(_COPYING)
    }
    copied = sum(
        rows if forward.states.get(table) in ("f", "s", "r") else min(rows, copying.get(table, 0))
        for table, rows in expected.items()
    )
    problem = forward.problem or back.problem
    return Progress(
        rows=sum(expected.values()),
        copied=copied,
        ready=forward.ready and back.ready and not forward.held,
        lag_bytes=forward.lag_bytes,
        healthy=problem is None,
        problem=problem,
        conflict=forward.conflict or back.conflict,
    )
