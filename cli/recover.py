"""What failover, switchover and failback have in common: plan it, or plan and do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli import render, work
from cli.leaf import Run

ExitCode = Annotated[
    bool, typer.Option("--exit-code", help="Exit 20 when there is something to do.")
]


async def plan(run: Run, verb: str, args: Mapping[str, Any], *, exit_code: bool) -> int:
    """Prints the plan; with `exit_code` exit 20 when it has steps."""
    async with work.connect(run) as client:
        made = await client.plan(verb, args, run.reason)
    work.show_plan(run.output, made)
    return work.exit_of_plan(made, asked=exit_code)


async def carry_out(run: Run, verb: str, args: Mapping[str, Any]) -> None:
    """Does it, and prints the operation."""
    async with work.connect(run) as client:
        operation = await work.perform(run, client, verb, args)
    if operation is not None:
        work.show_operation(run.output, operation)


def announce(plan: Mapping[str, Any]) -> None:
    """What a plan will do, for the person who is about to agree to it."""
    render.note(f"will: {', '.join(step['name'] for step in plan['steps']) or 'nothing'}")
    for key, value in plan.get("expected", {}).items():
        if not isinstance(value, dict | list):
            render.note(f"expected {key}: {value}")
