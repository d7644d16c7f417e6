"""Finds the console's commands, and checks command lines against them, without running them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves() -> dict[str, Any]:
    """Every command that does something, by its words: "drill run" → the command."""
    from cli import lazy, main

    return {
        path: command
        for name, entry in main.COMMANDS.items()
        for path, command in _below(name, lazy.load(name, entry))
    }


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _below(f"{path} {name}", child)


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def parse(words: list[str]) -> Any:
    """The leaf command's context, with every option and argument checked; nothing is run."""
    from typer.main import get_command

    from cli.main import app

    command: Any = get_command(app)
    context, name = None, "regionctl"
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, words, parent=context)
        rest = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)
    return command.make_context(name, words, parent=context)
