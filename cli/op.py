"""regionctl op: everything that was or is being done to the platform."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli import render, work
from cli.leaf import READS, Run, group, leaf
from cli.names import known
from cli.render import Table
from cli.when import moment_of
from runtime.errors import Exit

app = group()
Id = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Such as op-12; op list shows them.", autocompletion=known("operation")
    ),
]
TIMEOUT = (*READS, "timeout")
ACTIVE = ("pending", "running")
AT_MOST = 1000


@leaf(
    app,
    "list",
    examples=(
        "regionctl op list",
        "regionctl op list --active -o name",
        "regionctl op list --kind failover --since 7d",
    ),
)
async def list_(
    run: Run,
    active: Annotated[bool, typer.Option("--active", help="Only unfinished ones.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="VERB", help="Only of this verb.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Created since; 15m, 2h, 7d, or a time."),
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=AT_MOST, help="How many, newest first.")
    ] = 20,
) -> None:
    """Operations, newest first."""
    after = moment_of(since, datetime.now(UTC)) if since else None
    chosen = active or kind is not None or after is not None
    async with work.connect(run) as client:
        found = await client.operations(limit=AT_MOST if chosen else limit)
    found = [
        each
        for each in found
        if (not active or each["state"] in ACTIVE)
        and kind in (None, each["kind"])
        and (after is None or datetime.fromisoformat(each["createdAt"]) >= after)
    ][:limit]
    rows = [
        (
            o["id"],
            o["kind"],
            o["target"],
            o["state"],
            render.moment(o["createdAt"]),
            o["reason"],
        )
        for o in found
    ]
    render.show(
        run.output,
        render.listing("OperationList", found),
        tables=[Table(("id", "verb", "target", "state", "created", "reason"), rows)],
        names=[item["id"] for item in found],
    )


@leaf(app, "show", examples=("regionctl op show op-12", "regionctl op show op-12 -o json"))
async def show(run: Run, id: Id) -> None:
    """One operation: its steps, timings and what stopped it."""
    async with work.connect(run) as client:
        work.show_operation(run.output, await client.operation(id))


@leaf(app, "watch", shared=TIMEOUT, examples=("regionctl op watch op-12 --timeout 60",))
async def watch(run: Run, id: Id) -> None:
    """Wait for an operation; the exit code says how it ended."""
    async with work.connect(run) as client:
        found = await work.patiently(lambda: client.operation(id), work.RESTART_SECONDS)
        operation = await work.wait(run, client, found)
    work.show_operation(run.output, operation)


@leaf(
    app,
    "resume",
    shared=(*TIMEOUT, "reason", "detach"),
    examples=("regionctl op resume op-12 --reason 'disk was full'",),
)
async def resume(run: Run, id: Id) -> None:
    """Carry on with a failed operation from the step that failed."""
    async with work.connect(run) as client:
        operation = await client.resume(id, run.reason)
        if run.detach:
            work.show_operation(run.output, operation)
            return
        work.show_operation(run.output, await work.wait(run, client, operation))


@leaf(app, "abort", shared=(*READS, "reason"), examples=("regionctl op abort op-12 --yes",))
async def abort(run: Run, id: Id) -> int:
    """Stop an operation after the step that it is in. Nothing is undone."""
    await run.agree(f"Abort {id}? What it did so far stays done.")
    async with work.connect(run) as client:
        work.show_operation(run.output, await client.abort(id, run.reason))
    return Exit.OK
