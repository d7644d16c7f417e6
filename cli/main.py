"""The entry point `regionctl`: the table of commands, and what happens to errors.

Imports nothing but Typer until a command is chosen.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import typer
from typer.exceptions import Abort, TyperException
from typer.exceptions import Exit as TyperExit
from typer.main import get_command

from cli import shells
from cli.lazy import Lazy, LazyGroup
from runtime.errors import Exit, Invalid, Problem

COMMANDS = {
    "up": Lazy("cli.platform", "Make the platform exist, or mend what is missing of it."),
    "down": Lazy("cli.platform", "Stop the platform; with --delete-data leave nothing behind."),
    "status": Lazy("cli.status", "Regions, instances and databases as they are now."),
    "dash": Lazy("cli.dash.command", "The dashboard: all regions live; drills and failovers."),
    "drill": Lazy("cli.drill", "Break it on purpose and judge the recovery.", group=True),
    "dr": Lazy("cli.dr", "The verdict sheet: objectives beside what was measured."),
    "failover": Lazy("cli.failover", "Recover from a lost database or region.", group=True),
    "switchover": Lazy("cli.switchover", "Move a healthy database or region.", group=True),
    "failback": Lazy("cli.failback", "Bring the home region back after a failover.", group=True),
    "runbook": Lazy("cli.runbook", "What to do about a symptom, step by step.", group=True),
    "op": Lazy("cli.op", "Operations: everything that was or is being done.", group=True),
    "region": Lazy("cli.region", "Regions.", group=True),
    "scale": Lazy("cli.scale", "How many instances a service has.", group=True),
    "slo": Lazy("cli.slo", "Objectives, error budgets, burn; rules for Prometheus.", group=True),
    "load": Lazy("cli.load", "Load tests against the promised levels; capacity.", group=True),
    "monitoring": Lazy("cli.monitoring", "Prometheus, Alertmanager, Grafana files.", group=True),
    "shard": Lazy("cli.shard", "The shard map.", group=True),
    "backup": Lazy("cli.backup", "Backups, restores and restore points.", group=True),
    "infra": Lazy("cli.infra", "The same on AWS: plan, policies, cost, stacks.", group=True),
    "logs": Lazy("cli.logs", "The last lines of each instance's log."),
    "events": Lazy("cli.events", "What the platform did; lag and dead letters.", group=True),
    "audit": Lazy("cli.audit", "Every change that was asked for, by whom and why."),
    "token": Lazy("cli.token", "Tokens: who may ask the control plane for what.", group=True),
    "info": Lazy("cli.info", "Which platform is meant, and where everything of it is."),
    "config": Lazy("cli.config", "What is set, and where it comes from.", group=True),
    "doctor": Lazy("cli.doctor", "Check this machine, and say how to mend it."),
    "version": Lazy("cli.about", "Versions of regionctl and of its parts."),
    "completion": Lazy("cli.about", "Print the completion script of a shell."),
}


class Root(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    name="regionctl",
    cls=Root,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
\b
Start here:
  regionctl doctor
  regionctl up
  regionctl drill run database-failure
  regionctl dr
""",
)


@app.callback()
def _root() -> None:
    """Run a sharded multi-region platform, break it on purpose, and prove its recovery table."""


def main() -> None:
    """Runs the command line and exits with a code of `runtime.errors.Exit`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit code of `regionctl ARGUMENTS`."""
    shells.register()
    try:
        _check_text(arguments)
        result = get_command(app)(
            args=list(arguments), prog_name="regionctl", standalone_mode=False
        )
    except TyperException as error:
        return _usage(error, arguments)
    except TyperExit as error:
        return error.exit_code
    except Problem as problem:
        from cli import render

        render.problem(problem, as_json=_asks_json(arguments))
        return int(problem.exit)
    except (KeyboardInterrupt, Abort):
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        return int(Exit.OK)
    except Exception:
        return _bug()
    return result if isinstance(result, int) else int(Exit.OK)


def _check_text(arguments: Sequence[str]) -> None:
    """Raises `Invalid` for bytes that are no UTF-8, which neither JSON nor a database can hold."""
    for number, word in enumerate(arguments, start=1):
        if not word.isascii() and word.encode("utf-8", "replace").decode("utf-8") != word:
            raise Invalid(f"Argument {number} is not UTF-8: {word!r}.", hint="locale; LANG=C.UTF-8")


def _usage(error: TyperException, arguments: Sequence[str]) -> int:
    """Wrong words on the command line: say which, and how to find the right ones."""
    show = getattr(error, "show", None)
    if _asks_json(arguments) or show is None:
        from cli import render

        hint = "regionctl --help lists the commands."
        render.problem(Invalid(error.format_message(), hint=hint), as_json=_asks_json(arguments))
    else:
        show()
    return int(Exit.USAGE)


def _asks_json(arguments: Sequence[str]) -> bool:
    """What a command line that cannot be parsed would have wanted, or what is configured."""
    words = [*arguments, ""]
    for word, following in pairwise(words):
        for option in ("--output", "-o"):
            if word.startswith(option):
                wanted = following if word == option else word.removeprefix(option).lstrip("=")
                return wanted in ("json", "jsonl")
    from cli.settings import Settings

    try:
        return Settings.read().output in ("json", "jsonl")
    except Problem:
        return False


def _bug() -> int:
    """An exception that nobody foresaw: a short message, and the traceback in a file."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="regionctl-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(" ".join(sys.argv) + "\n\n" + traceback.format_exc())
    kind, error, _ = sys.exc_info()
    name = kind.__name__ if kind else "error"
    sys.stderr.write(
        f"error: this is a bug in regionctl: {name}: {error}\n"
        f"The traceback is in {Path(file.name)}; please report it.\n"
    )
    return int(Exit.BUG)


def _forget_stdout() -> None:
    """The reader of stdout went away; keep Python from complaining about it at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
