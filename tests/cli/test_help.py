from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli import main
from tests.cli.console import program, regionctl
from tests.commands import leaves, options

HEAVY = {
    *("fastapi", "sqlalchemy", "textual", "pulumi", "locust", "httpx", "pydantic", "rich"),
    *("asyncpg", "redis", "yaml", "cryptography", "uvicorn"),
}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]], ids=["--help", "-h"])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from cli.main import run\n"
        f"code = run({arguments!r})\n"
        "sys.stderr.write('\\n' + json.dumps([code, sorted(sys.modules)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert not {module.partition(".")[0] for module in modules} & HEAVY


@pytest.mark.parametrize(
    "path",
    [
        *("up", "down", "drill run", "failover run", "switchover run", "failback run"),
        *(
            f"backup {verb}"
            for verb in ("create", "verify", "restore", "point", "prune", "discard")
        ),
    ],
)
def test_every_mutation_can_be_rehearsed_explained_and_left_alone(path: str) -> None:
    assert {"--dry-run", "--reason", "--detach", "--timeout"} <= options(leaves()[path])


@pytest.mark.parametrize("path", ["down", "failover run", "events dlq drop", "backup restore"])
def test_what_may_lose_data_takes_a_confirmation_by_name(path: str) -> None:
    assert "--confirm" in options(leaves()[path])


def test_the_table_of_commands_has_the_order_and_help_of_the_root() -> None:
    root: Any = get_command(main.app)
    assert list(root.commands) == list(main.COMMANDS)


def test_a_mistyped_command_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    ended = regionctl("drill", "hostory", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Did you mean 'history'?" in ended.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("drlil list", "Did you mean 'drill'?"),
        ("op lst", "Did you mean 'list'?"),
        ("status --exit-statsu", "Possible options: --exit-status"),
        ("token create a --role oprator", "operator"),
    ],
)
def test_a_mistyped_noun_option_or_word_is_answered_with_the_nearest_one(
    tmp_path: Path, words: str, meant: str
) -> None:
    for form in ([], ["-o", "json"]):
        ended = regionctl(*words.split(), *form, home=tmp_path)
        assert (ended.code, ended.stdout) == (2, "")
        assert meant in ended.stderr


def test_a_mistyped_command_of_a_group_with_a_default_is_a_mistake_too(tmp_path: Path) -> None:
    ended = regionctl("events", "lga", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Did you mean 'lag'?" in ended.stderr


def test_completion_of_a_shell_prints_a_script_and_nothing_else(tmp_path: Path) -> None:
    ended = program("completion", "bash", home=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    assert "complete -o default -F _regionctl_completion regionctl" in ended.stdout
