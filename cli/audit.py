"""regionctl audit: who wanted what and why, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import render, work
from cli.leaf import Run, group, leaf
from cli.names import known
from cli.render import Table
from runtime.errors import MeasurementVoid

app = group()


@leaf(
    app,
    "audit",
    examples=(
        "regionctl audit",
        "regionctl audit --actor ada -n 200 -o jsonl",
        "regionctl audit --operation op-12",
        "regionctl audit --verify",
    ),
)
async def audit(
    run: Run,
    operation: Annotated[
        str | None,
        typer.Option(
            "--operation",
            metavar="ID",
            help="Only about this operation.",
            autocompletion=known("operation"),
        ),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor",
            metavar="NAME",
            help="Only of this token, or root, sentinel.",
            autocompletion=known("actor"),
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=10_000, help="How many of the last.")
    ] = 50,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the chain of the whole log instead.")
    ] = False,
) -> None:
    """Every change that was asked for or refused, by whom and why, oldest first."""
    async with work.connect(run) as client:
        if verify:
            _judge(run, await client.verify_audit())
            return
        found = await client.audit(operation=operation, actor=actor, limit=limit)
    rows = [
        (
            each["sequence"],
            render.moment(each["at"]),
            each["actor"],
            each["role"],
            each["kind"],
            f"{each['action']} {each['target']}".strip(),
            each["operation"],
            "; ".join(text for text in (each["outcome"], each["reason"]) if text),
        )
        for each in found
    ]
    columns = ("#", "at", "who", "role", "", "what", "operation", "outcome, reason")
    render.show(
        run.output,
        render.listing("AuditLog", found),
        tables=[Table(columns, rows)],
        names=[str(each["sequence"]) for each in found],
    )


def _judge(run: Run, verdict: dict[str, Any]) -> None:
    """Raises `MeasurementVoid`, naming the first entry that is not what was written."""
    broken = verdict["broken"]
    if broken is not None:
        raise MeasurementVoid(
            f"The audit log is broken at entry {broken['sequence']}: {broken['why']}.",
            hint="Nothing from there on can be believed; compare with a backup of the records.",
            extra=verdict,
        )
    document = {"apiVersion": "regionctl/v1", "kind": "AuditVerdict", **verdict}
    rows = [("entries", verdict["entries"]), ("head", verdict["head"]), ("is", "whole")]
    render.show(run.output, document, tables=[Table(("", ""), rows)], names=[str(verdict["head"])])
