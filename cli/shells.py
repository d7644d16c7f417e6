"""What shells are told when they ask for completions.

As Typer does it, but without Rich, whose import a person would feel at every key.
"""

from __future__ import annotations

from typer._click.shell_completion import CompletionItem, add_completion_class
from typer._completion_classes import BashComplete, FishComplete, ZshComplete

ESCAPED = {'"': '""', "'": "''", "$": "\\$", "`": "\\`", ":": r"\\:"}


class Zsh(ZshComplete):
    def format_completion(self, item: CompletionItem) -> str:
        words = [item.value, item.help] if item.help else [item.value]
        return ":".join(f'"{_escaped(word)}"' for word in words)


class Fish(FishComplete):
    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{' '.join(item.help.split())}" if item.help else str(item.value)


def register() -> None:
    add_completion_class(BashComplete, "bash")
    add_completion_class(Zsh, "zsh")
    add_completion_class(Fish, "fish")


def _escaped(text: str) -> str:
    return "".join(ESCAPED.get(character, character) for character in text)
