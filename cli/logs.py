"""regionctl logs and events: what the servers wrote, and what the platform did."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cli import progress, render, work
from cli.leaf import Run, group, leaf
from cli.render import Output, Table

app = group()


@leaf(
    app,
    "logs",
    examples=("regionctl logs s1.us-east-1a -n 50", "regionctl logs edge -o json"),
)
async def logs(
    run: Run,
    instances: Annotated[
        list[str] | None, typer.Argument(metavar="[INSTANCE]...", help="Default: all of them.")
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="Last lines of each.")] = 20,
) -> None:
    """The last lines of each instance's log."""
    async with work.connect(run) as client:
        found: dict[str, list[str]] = await client.logs(instances or [], lines)
    items = [{"instance": name, "lines": text} for name, text in found.items()]
    if run.output is Output.table:
        for name, text in found.items():
            for line in text:
                render.out(f"{name}: {line}" if len(found) > 1 else line)
        return
    render.show(run.output, render.listing("LogList", items), names=list(found))


@leaf(
    app,
    "events",
    examples=("regionctl events", "regionctl events -f -o jsonl"),
)
async def events(
    run: Run,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as they happen.")] = False,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many past ones.")] = 50,
    operation: Annotated[
        str | None, typer.Option("--operation", metavar="ID", help="Only of this operation.")
    ] = None,
) -> None:
    """What the platform did: operations, steps, automatic failovers."""
    async with work.connect(run) as client:
        past: list[dict[str, Any]] = await client.past_events(operation, limit=limit)
        if follow:
            for event in past:
                _one(run.output, event)
            after = past[-1]["sequence"] if past else 0
            async for event in client.events(operation, after=after):
                _one(run.output, event)
            return
    rows = [(e["sequence"], e["at"], e.get("operation"), progress.remark(e)) for e in past]
    render.show(
        run.output,
        render.listing("EventList", past),
        tables=[Table(("#", "at", "operation", "what"), rows)],
        names=[str(event["sequence"]) for event in past],
    )


def _one(output: Output, event: dict[str, Any]) -> None:
    if output is Output.table:
        render.out(f"{event['at']}  {event.get('operation') or '-'}  {progress.remark(event)}")
    elif output is Output.name:
        render.out(str(event["sequence"]))
    elif output is Output.yaml:
        render.out("---")
        render.show(output, event)
    else:
        render.out(json.dumps(event, ensure_ascii=False))
