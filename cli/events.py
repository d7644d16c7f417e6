"""regionctl events: what the platform did, and what became of its customers' events.

events [list]   operations, steps, automatic failovers
events lag      how far each consumer of customers' events is
events dlq      events that a consumer could not handle and set aside
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cli import dlq, progress, render, work
from cli.lazy import Defaulting
from cli.leaf import Run, group, leaf
from cli.names import known
from cli.render import Output, Table

app = group(cls=Defaulting)
app.add_typer(dlq.app, name="dlq", help="Events that were set aside: look, replay, drop.")


@leaf(
    app,
    "list",
    examples=(
        "regionctl events",
        "regionctl events -f -o jsonl",
        "regionctl events list --operation op-12",
    ),
)
async def list_(
    run: Run,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as they happen.")] = False,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many past ones.")] = 50,
    operation: Annotated[
        str | None,
        typer.Option(
            "--operation",
            metavar="ID",
            help="Only of this operation.",
            autocompletion=known("operation"),
        ),
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


@leaf(app, "lag", examples=("regionctl events lag", "regionctl events lag --region us-west-2"))
async def lag(run: Run, region: dlq.Region = None) -> None:
    """How many of the customers' events each consumer has still to handle."""
    async with work.connect(run) as client:
        found = await client.event_lag(region)
    items = found["items"]
    rows = [(each["group"], each["lag"], each["pending"]) for each in items]
    letters = found["deadLetters"]
    foot = [f"{found['region']}: {letters} dead letters" + (letters > 0) * "  (events dlq list)"]
    render.show(
        run.output,
        {**render.listing("EventLag", items), "region": found["region"], "deadLetters": letters},
        tables=[Table(("consumer", "lag", "pending"), rows, foot=foot)],
        names=[each["group"] for each in items],
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
