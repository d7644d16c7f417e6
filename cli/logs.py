"""regionctl logs: what the servers wrote."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from cli import render, work
from cli.leaf import Run, group, leaf
from cli.names import known
from cli.render import Output
from runtime.plain import plain

app = group()


@leaf(
    app,
    "logs",
    examples=("regionctl logs s1.us-east-1a -n 50", "regionctl logs edge -o json"),
)
async def logs(
    run: Run,
    instances: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INSTANCE]...", help="Default: all of them.", autocompletion=known("instance")
        ),
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="Last lines of each.")] = 20,
) -> None:
    """The last lines of each instance's log."""
    async with work.connect(run) as client:
        found: dict[str, list[str]] = await client.logs(instances or [], lines)
    items = [{"instance": name, "lines": text} for name, text in found.items()]
    if run.output is Output.table:
        for name, text in found.items():
            for line in lines_of(text):
                render.out(f"{name}: {line}" if len(found) > 1 else line)
        return
    render.show(run.output, render.listing("LogList", items), names=list(found))


def lines_of(text: Iterable[str]) -> list[str]:
    """Each on a line of its own, and nothing in them that a terminal would obey."""
    return [plain(line, keep="\t") for each in text for line in each.splitlines() or [""]]
