"""Checks commands against the console without running them."""

from __future__ import annotations

from typing import Any


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
