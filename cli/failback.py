"""regionctl failback: after a region failover, bring the home region back, losing nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import recover
from cli.leaf import MUTATES, Run, group, leaf
from cli.names import known

app = group()
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="REGION",
        help="The home; default: the primary region.",
        autocompletion=known("region"),
    ),
]


@leaf(app, "plan", examples=("regionctl failback plan",))
async def plan(run: Run, to: To = None, exit_code: recover.ExitCode = False) -> int:
    """What a failback would do. Changes nothing."""
    return await recover.plan(run, "failback", {"to": to} if to else {}, exit_code=exit_code)


@leaf(
    app,
    "run",
    shared=MUTATES,
    examples=("regionctl failback run", "regionctl failback run --yes --reason 'home again'"),
)
async def run(run: Run, to: To = None) -> None:
    """Rejoin the home region's servers and hand everything back to them."""
    if not run.dry_run:
        await run.agree(f"Hand everything back to {to or 'the primary region'}?")
    await recover.carry_out(run, "failback", {"to": to} if to else {})
