"""regionctl failover: recover from a database or a region that is lost."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import recover, render, work
from cli.leaf import READS, SEVERE, Run, group, leaf
from cli.names import known
from cli.render import Table
from runtime.errors import Refused

app = group()
Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A database (s1, catalog) or a region (us-east-1).",
        autocompletion=known("database", "region"),
    ),
]
Loss = Annotated[
    bool,
    typer.Option("--accept-data-loss", help="Promote what may lack acknowledged writes."),
]
Unfenced = Annotated[
    bool, typer.Option("--unfenced", help="Go on although the old side cannot be stopped.")
]


@leaf(
    app,
    "plan",
    shared=(*READS, "reason"),
    examples=("regionctl failover plan s1", "regionctl failover plan us-east-1 -o json"),
)
async def plan(
    run: Run,
    target: Target,
    loss: Loss = False,
    unfenced: Unfenced = False,
    exit_code: recover.ExitCode = False,
) -> int:
    """What a failover would do and lose. Changes nothing."""
    need_reason(run, loss, unfenced)
    return await recover.plan(run, "failover", _args(target, loss, unfenced), exit_code=exit_code)


@leaf(
    app,
    "run",
    shared=SEVERE,
    examples=(
        "regionctl failover run s1 --confirm s1",
        "regionctl failover run us-east-1 --accept-data-loss --reason INC-441 --confirm us-east-1",
    ),
)
async def run(run: Run, target: Target, loss: Loss = False, unfenced: Unfenced = False) -> None:
    """Fail over. A healthy target is refused: that is a switchover."""
    need_reason(run, loss, unfenced)
    args = _args(target, loss, unfenced)
    if not run.dry_run:
        if run.interactive and run.confirm is None:
            async with work.connect(run) as client:
                recover.announce(await client.plan("failover", args, run.reason))
        await run.insist(target, f"This fails {target} over; what was not replicated is lost.")
    await recover.carry_out(run, "failover", args)


@leaf(
    app,
    "acknowledge",
    shared=(*READS, "reason"),
    examples=("regionctl failover acknowledge s1 --reason 'disk replaced'",),
)
async def acknowledge(
    run: Run,
    database: Annotated[
        str,
        typer.Argument(
            metavar="DATABASE", help="Such as s1 or catalog.", autocompletion=known("database")
        ),
    ],
) -> None:
    """End the quiet period: the database may again fail over by itself."""
    if not run.reason.strip():
        raise Refused(
            "Say why the failovers may be followed by another; it is kept with them.",
            hint="add --reason 'why'",
        )
    await run.agree(
        f"Acknowledge the failovers of {database}? The next one is then automatic again."
    )
    async with work.connect(run) as client:
        answer = await client.acknowledge(database, run.reason)
    count = answer["acknowledged"]
    if not count:
        render.note(f"{database} has no failover that waits for it; there is no quiet period")
    document = {
        "apiVersion": "regionctl/v1",
        "kind": "Acknowledgement",
        "database": database,
        "acknowledged": count,
        "reason": run.reason,
    }
    rows = [(database, count, run.reason)]
    tables = [Table(("database", "failovers acknowledged", "reason"), rows)]
    render.show(run.output, document, tables=tables, names=[database])


def need_reason(run: Run, loss: bool, unfenced: bool) -> None:
    """Raises `Refused` when a guard is overridden without a word why."""
    if (loss or unfenced) and not run.reason.strip():
        raise Refused(
            "--accept-data-loss and --unfenced need a reason; the report will quote it.",
            hint="add --reason 'why'",
        )


def _args(target: str, loss: bool, unfenced: bool) -> dict[str, object]:
    return {"target": target, "accept_data_loss": loss, "unfenced": unfenced}
