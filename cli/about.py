"""regionctl version and completion."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from cli import programs, render
from cli.leaf import Run, group, leaf
from cli.render import Table

app = group()


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@leaf(app, "version", examples=("regionctl version", "regionctl version -o json"))
async def version(run: Run) -> None:
    """Versions of regionctl, Python and the servers."""
    found = await programs.call("infra.local.doctor", "--versions")
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "Version", **found},
        tables=[Table(("part", "version"), list(found.items()))],
        names=[str(found["regionctl"])],
    )


@leaf(
    app,
    "completion",
    examples=("regionctl completion bash > ~/.local/share/bash-completion/completions/regionctl",),
)
async def completion(
    run: Run, shell: Annotated[Shell, typer.Argument(help="Which shell.")]
) -> None:
    """Print the completion script of a shell."""
    script = get_completion_script(
        prog_name="regionctl",
        complete_var="_REGIONCTL_COMPLETE",
        shell=shell.value,  # nosec B604
    )
    render.show(
        run.output,
        {
            "apiVersion": "regionctl/v1",
            "kind": "Completion",
            "shell": shell.value,
            "script": script,
        },
        tables=[Table((), [], foot=[script])],
        names=[shell.value],
    )
