"""regionctl dr: the disaster-recovery table beside what was measured."""

from __future__ import annotations

from typing import Any

from cli import render, work
from cli.leaf import Run, group, leaf
from cli.render import Table
from runtime.errors import Exit

app = group()


@leaf(app, "dr", examples=("regionctl dr", "regionctl dr -o json"))
async def dr(run: Run) -> int:
    """The verdict sheet: each scenario's limits, what was measured, and when it was proven."""
    async with work.connect(run) as client:
        document = await client.dr()
    items: list[dict[str, Any]] = document["items"]
    rows = [
        (
            row["scenario"],
            render.seconds(row["rtoLimitSeconds"]),
            render.seconds(row.get("rtoSeconds")),
            render.seconds(row.get("rtoMarginSeconds")),
            render.seconds(row["rpoLimitSeconds"]),
            render.seconds(row.get("rpoSeconds")),
            render.moment(row.get("lastProvenAt")),
            row["state"],
        )
        for row in items
    ]
    foot = [
        f"{row['scenario']}: {row['because']}"
        for row in items
        if row["state"] != "not proven" and row.get("because")
    ]
    columns = ("scenario", "rto limit", "rto", "margin", "rpo limit", "rpo", "last proven", "state")
    render.show(
        run.output,
        document,
        tables=[Table(columns, rows, foot=foot)],
        names=[row["scenario"] for row in items],
    )
    return Exit.OK
