"""regionctl switchover: move a healthy database or region, losing nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import recover
from cli.leaf import MUTATES, Run, group, leaf
from cli.names import known
from runtime.errors import Invalid

app = group()
Database = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATABASE]",
        help="Its standby in sync takes over.",
        autocompletion=known("database"),
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="REGION",
        help="Move everything to this region.",
        autocompletion=known("region"),
    ),
]


@leaf(
    app,
    "plan",
    examples=("regionctl switchover plan s1", "regionctl switchover plan --to us-west-2"),
)
async def plan(
    run: Run, database: Database = None, to: To = None, exit_code: recover.ExitCode = False
) -> int:
    """What a switchover would do. Changes nothing."""
    return await recover.plan(run, "switchover", _args(database, to), exit_code=exit_code)


@leaf(
    app,
    "run",
    shared=MUTATES,
    examples=("regionctl switchover run s1", "regionctl switchover run --to us-west-2 --yes"),
)
async def run(run: Run, database: Database = None, to: To = None) -> None:
    """Switch over. Refused when anything would be lost."""
    args = _args(database, to)
    if not run.dry_run:
        await run.agree(f"Move {database or 'every database'}{f' to {to}' if to else ''}?")
    await recover.carry_out(run, "switchover", args)


def _args(database: str | None, to: str | None) -> dict[str, str]:
    if (database is None) == (to is None):
        raise Invalid(
            "Say what to move: one database, or --to a region.",
            hint="regionctl switchover plan s1, or regionctl switchover plan --to us-west-2",
        )
    return {"target": database} if database is not None else {"to": to or ""}
