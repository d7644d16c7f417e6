"""What every command has in common: shared options, examples, exit codes, Ctrl-C.

Typer wants options of the root before the subcommand, and nobody types them there; so each leaf
gets the shared ones itself. A command is an async function that takes a `Run` first and returns an
exit code or None.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from typer.core import TyperGroup

from cli import render
from cli.asking import prompt
from cli.settings import Output, Settings
from runtime.errors import Declined, Exit, Problem, Refused

P = ParamSpec("P")
Command = Callable[Concatenate["Run", P], Awaitable[int | None]]


@dataclass
class Run:
    """One call of a command: its shared options, and the operation that it waits for."""

    output: Output = Output.table
    yes: bool = False
    no_input: bool = False
    state_dir: Path | None = None
    dry_run: bool = False
    reason: str = ""
    detach: bool = False
    timeout: float | None = None
    confirm: str | None = None
    expect_generation: int | None = None
    idempotency_key: str | None = None
    operation: str | None = None

    @property
    def interactive(self) -> bool:
        return not self.no_input and sys.stdin.isatty() and sys.stderr.isatty()

    async def agree(self, question: str) -> None:
        """For what loses nothing: asks at a terminal; where nobody can be asked, it needs `--yes`.

        Raises `Refused` or `Declined`.
        """
        if self.yes:
            return
        if not self.interactive:
            raise Refused(
                f"{question} Nobody can be asked here: nothing was done.", hint="add --yes"
            )
        if (await prompt(f"{question} [y/N] ")).lower() not in ("y", "yes"):
            raise Declined("Declined: nothing was changed.")

    async def insist(self, name: str, consequence: str) -> None:
        """For what may lose data: the name has to be typed, `--yes` is not enough.

        Raises `Refused` or `Declined`.
        """
        given = self.confirm
        if given is None and self.interactive:
            given = await prompt(f"{consequence}\nType {name} to go on: ")
            if given != name:
                raise Declined("Declined: nothing was changed.")
        if given is None:
            why = "--yes is not enough for this. " if self.yes else ""
            raise Refused(f"{consequence} {why}It must be confirmed.", hint=f"add --confirm {name}")
        if given != name:
            raise Refused(
                f"--confirm says {given!r}, but this is about {name!r}.",
                hint=f"add --confirm {name}",
            )


def shared_options() -> dict[str, tuple[Any, Any]]:
    """Each shared option: its annotation and its default."""
    text, path, number, whole = str | None, Path | None, float | None, int | None
    return {
        "output": (
            Annotated[
                Output | None,
                typer.Option("--output", "-o", help="Form of the answer; table unless configured."),
            ],
            None,
        ),
        "yes": (Annotated[bool, typer.Option("--yes", help="Answer yes to y/N.")], False),
        "no_input": (Annotated[bool, typer.Option("--no-input", help="Never ask.")], False),
        "state_dir": (
            Annotated[path, typer.Option("--state-dir", help="Where the platform's state is.")],
            None,
        ),
        "dry_run": (
            Annotated[bool, typer.Option("--dry-run", help="Print the plan; change nothing.")],
            False,
        ),
        "reason": (
            Annotated[str, typer.Option("--reason", help="Recorded with the operation.")],
            "",
        ),
        "detach": (
            Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")],
            False,
        ),
        "timeout": (
            Annotated[
                number,
                typer.Option("--timeout", help="Seconds to wait; then exit 7, the work goes on."),
            ],
            None,
        ),
        "expect_generation": (
            Annotated[
                whole,
                typer.Option(
                    "--expect-generation",
                    metavar="N",
                    help="Refuse when the platform has changed since its plan said N.",
                ),
            ],
            None,
        ),
        "idempotency_key": (
            Annotated[
                text,
                typer.Option(
                    "--idempotency-key",
                    metavar="KEY",
                    help="Given again, the operation that it began is waited for; no other begins.",
                ),
            ],
            None,
        ),
        "confirm": (
            Annotated[
                text, typer.Option("--confirm", metavar="NAME", help="Repeat the name to go ahead.")
            ],
            None,
        ),
    }


READS = ("output", "yes", "no_input", "state_dir")
MUTATES = (*READS, "dry_run", "reason", "detach", "timeout", "expect_generation", "idempotency_key")
SEVERE = (*MUTATES, "confirm")


def leaf(
    app: typer.Typer,
    name: str,
    *,
    examples: tuple[str, ...],
    shared: tuple[str, ...] = READS,
) -> Callable[[Command[P]], Command[P]]:
    """Registers an async function as the command `name` of `app`, with the `shared` options."""

    def register(command: Command[P]) -> Command[P]:
        signature = inspect.signature(command, eval_str=True)
        own = list(signature.parameters.values())[1:]
        table = shared_options()
        added = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=table[key][1], annotation=table[key][0]
            )
            for key in shared
        ]

        def called(**values: Any) -> None:
            run = Run(**{key: values.pop(key) for key in shared})
            run.output = run.output or Settings.read().output
            raise typer.Exit(_carry_out(lambda: command(run, **values), run))  # type: ignore[call-arg]

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
        called.__doc__ = command.__doc__
        called.__name__ = command.__name__
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
        app.command(name, epilog=epilog)(called)
        return command

    return register


def group(cls: type[TyperGroup] | None = None) -> typer.Typer:
    """The Typer app of one module of commands."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    app = typer.Typer(
        cls=cls,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=settings,
    )
    app.callback()(_nothing)
    return app


def _nothing() -> None:
    return None


def _carry_out(command: Callable[[], Awaitable[int | None]], run: Run) -> int:
    """The exit code of the command; what it waited for goes on after Ctrl-C."""

    async def whole() -> int | None:
        return await command()

    try:
        return int(asyncio.run(whole()) or Exit.OK)
    except Problem as problem:
        as_json = run.output in (Output.json, Output.jsonl)
        render.problem(problem, as_json=as_json, operation=run.operation)
        return int(problem.exit)
    except KeyboardInterrupt:
        render.note("\n" + _interrupted(run))
        return int(Exit.INTERRUPTED)


def _interrupted(run: Run) -> str:
    if run.operation is None:
        return "interrupted"
    which = run.operation
    if run.state_dir is not None:
        which += f" --state-dir {run.state_dir}"
    return (
        f"detached; operation {run.operation} continues: regionctl op watch {which}\n"
        f"to cancel: regionctl op abort {which}"
    )
