"""Writes the reference of the command line, from the commands themselves, as Markdown.

python -m cli.reference [FOLDER]    default: docs/reference
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from cli import lazy, leaf, main
from cli.settings import KEYS, PREFIX
from runtime.errors import Exit

FOLDER = Path("docs/reference")
MADE = "<!-- Made by `make docs` from the code: change it there. -->"

EXITS = {
    Exit.OK: ("done; healthy; passed", "nothing"),
    Exit.BUG: ("a defect of regionctl", "report the file that the message names"),
    Exit.USAGE: ("wrong words, a wrong setting, or nothing has that name", "see the hint"),
    Exit.AUTH: ("no valid token, or its role may not do this", "regionctl token create"),
    Exit.FAILED: ("the operation ran and failed", "regionctl op show ID, regionctl op resume ID"),
    Exit.REFUSED: ("a guard said no; nothing was changed", "see the hint"),
    Exit.UNREACHABLE: ("the control plane does not answer", "regionctl doctor, regionctl up"),
    Exit.STILL_RUNNING: ("waited long enough; the operation goes on", "regionctl op watch ID"),
    Exit.DECLINED: ("a person said no; nothing was changed", "nothing"),
    Exit.VOID: ("the measurement or the evidence cannot be trusted", "do it again; see why"),
    Exit.MISSED: ("an objective was missed", "read the report"),
    Exit.DEGRADED: ("degraded; only with --exit-status", "regionctl status"),
    Exit.DOWN: ("customers are not served; only with --exit-status", "regionctl status"),
    Exit.CHANGES: ("the plan has steps; only with --exit-code", "carry it out, or not"),
    Exit.INTERRUPTED: ("Ctrl-C; an operation that was waited for goes on", "regionctl op watch ID"),
    Exit.TERMINATED: ("ended by SIGTERM", "nothing"),
}

VARIABLES = {
    "REGIONCTL_DATABASE_URL": "Database of the control plane's records, for `up`; default: SQLite.",
    "REGIONCTL_PROMETHEUS_BIN": "Prometheus, for `up --with monitoring`; default: found in `PATH`.",
    "REGIONCTL_ALERTMANAGER_BIN": "Alertmanager, in the same way.",
    "REGIONCTL_PAGERDUTY_KEY_FILE": "File with the key of who is told of critical alerts.",
    "REGIONCTL_SLACK_URL_FILE": "File with the webhook of who is told of the others.",
    "REGIONCTL_SLACK_CHANNEL": "Where in Slack; default: `#regionctl`.",
    "REGIONCTL_ALERT_WEBHOOK": "URL that is sent every alert, as Alertmanager's JSON.",
    "REGIONCTL_SCRAPE_SECONDS": "How often Prometheus reads metrics, 1 to 300; default: 15.",
    "NO_COLOR": "Not empty: no colours, unless `REGIONCTL_COLOUR` wants them.",
    "TERM": "`dumb`: no colours, and nothing is repainted.",
    "XDG_CONFIG_HOME": "Where the user's file of settings is; default: `~/.config`.",
    "XDG_STATE_HOME": "Where platforms are kept; default: `~/.local/state`; root: `/var/lib`.",
    "XDG_CACHE_HOME": "What may be lost: names for completion; default: `~/.cache`.",
}


def pages() -> dict[str, str]:
    """Each file's name and text."""
    found = {f"{name}.md": _page(name, entry) for name, entry in main.COMMANDS.items()}
    found["README.md"] = _text(_index())
    found["common-options.md"] = _text(_common())
    found["exit-codes.md"] = _text(_exit_codes())
    found["environment.md"] = _text(_environment())
    return found


def write(folder: Path) -> None:
    """Makes `folder` hold these pages and no other Markdown."""
    wanted = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


def _page(name: str, entry: lazy.Lazy) -> str:
    command = lazy.load(name, entry)
    lines = [f"# regionctl {name}", "", entry.help, ""]
    for words, each in _leaves(f"regionctl {name}", command):
        lines += _leaf(words, each, heading=words != f"regionctl {name}")
    lines.append("See also [common options](common-options.md), [exit codes](exit-codes.md).")
    return _text(lines)


def _leaves(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name, child in children.items():
        yield from _leaves(f"{words} {name}", child)


def _leaf(words: str, command: Any, *, heading: bool) -> Iterator[str]:
    context = typer.Context(command, info_name=words)
    usage = " ".join(command.collect_usage_pieces(context)).translate({ord(c): None for c in "{}"})
    shared = [each for each in command.params if each.name in leaf.shared_options()]
    own = [each for each in command.params if each not in shared]
    if heading:
        yield from (f"## {words}", "")
    yield from (f"    {words} {usage}", "", *_paragraphs(command.help), "")
    if own:
        records = (each.get_help_record(context) for each in own if not each.hidden)
        yield from (*_table(("argument or option", ""), _rows(filter(None, records))), "")
    options = ", ".join(f"`{each.opts[0]}`" for each in shared)
    yield from (f"Common options: {options}.", "")
    yield from ("```console", *(f"$ {example}" for example in _examples(command)), "```", "")


def _examples(command: Any) -> list[str]:
    return [line.strip() for line in command.epilog.splitlines() if "regionctl" in line]


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _rows(records: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"`{' '.join(left.split())}`", right) for left, right in records]


def _index() -> Iterator[str]:
    yield from ("# Reference of the command line", "")
    rows = [(f"[{name}]({name}.md)", entry.help) for name, entry in main.COMMANDS.items()]
    yield from _table(("command", "what it does"), rows)
    yield from ("", "[Common options](common-options.md), [exit codes](exit-codes.md),")
    yield "[environment and settings](environment.md)."


def _common() -> Iterator[str]:
    yield from ("# Common options", "", "Each command lists those that it takes.", "")
    app = leaf.group()

    async def every(run: leaf.Run) -> None:
        """Takes them all."""

    leaf.leaf(app, "every", examples=(), shared=tuple(leaf.shared_options()))(every)
    command: Any = get_command(app)
    command = command.commands["every"]
    context = typer.Context(command, info_name="every")
    records = [each.get_help_record(context) for each in command.params]
    yield from _table(("option", ""), _rows(filter(None, records)))
    yield from ("", "stdout has the answer and nothing else; messages and errors go to stderr.")
    yield "With `-o json` there is one document on stdout, or an error as JSON on stderr; with"
    yield "`-o jsonl` a line for each item. `--yes` is not enough for what may lose data: that"
    yield "takes `--confirm` with the name of what it is about."


def _exit_codes() -> Iterator[str]:
    yield from ("# Exit codes", "")
    rows = [(str(int(code)), *EXITS[code]) for code in Exit]
    yield from _table(("code", "means", "what to do"), rows)


def _environment() -> Iterator[str]:
    yield from ("# Environment and settings", "")
    yield "Of each setting the first of these that says something counts: an option, the variable,"
    yield "`./regionctl.toml` (the project's file), `$XDG_CONFIG_HOME/regionctl/config.toml`,"
    yield "`/etc/regionctl/config.toml`. `regionctl config show --origin` says which did."
    yield "Files are TOML; a path in one is meant beside it. No secret is a setting: a token is"
    yield "named by its file."
    yield ""
    rows = [
        (
            f"`{name}`",
            f"`{PREFIX}{name.upper()}`",
            _kind(key.kind),
            key.default or "",
            key.says if key.harmless else f"{key.says} Not in a project's file.",
        )
        for name, key in KEYS.items()
    ]
    yield from _table(("setting", "variable", "is", "default", ""), rows)
    yield from ("", "Other variables:", "")
    yield from _table(("variable", ""), [(f"`{name}`", says) for name, says in VARIABLES.items()])


def _kind(kind: type[Any]) -> str:
    if issubclass(kind, StrEnum):
        return ", ".join(kind)
    return {Path: "path", int: "number"}.get(kind, "text")


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (columns, ("---",) * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _text(lines: Iterable[str]) -> str:
    return "\n".join([MADE, "", *lines]).rstrip() + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
