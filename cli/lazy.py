"""A command group that imports a command's module only when that command is run.

`regionctl --help` and shell completion list commands from the table alone; importing everything
would cost them several tenths of a second. Typer has no lazy groups, so the group holds stubs
with a name and a help line, and swaps the real command in when it is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from typer import Typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Defaulting(TyperGroup):
    """A group that is also a command: without a subcommand its `list` is meant.

    `regionctl events -f` is `regionctl events list -f`; a word that is no command is still a
    mistake.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else "-"
        if first.startswith("-") and first not in ("-h", "--help") and not ctx.resilient_parsing:
            args.insert(0, "list")
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Lazy:
    """Where a command lives: `module` has `app`; a group is the whole app, a leaf is one of it."""

    module: str
    help: str
    group: bool = False


class LazyGroup(TyperGroup):
    """Subclasses set `table`."""

    table: Mapping[str, Lazy] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, lazy in self.table.items():
            self.commands[name] = TyperCommand(name, help=lazy.help, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.table:
            command = load(name, self.table[name])
            self.commands[name] = command
        return name, command, rest


def load(name: str, lazy: Lazy) -> Any:
    """The real command that `lazy` stands for."""
    app: Typer = import_module(lazy.module).app
    group = get_group(app)
    if not lazy.group:
        return group.commands[name]
    group.name = name
    group.help = lazy.help
    return group
