"""Shell completion by the protocol that the shells' scripts speak."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import names
from tests.cli.conftest import Plane
from tests.cli.console import environment, regionctl
from tests.cli.test_help import HEAVY

NOT_WANTED = HEAVY - {"pydantic"} | {"control_plane", "tomllib"}
"""Typer itself parses options with Pydantic."""

STATUS_NAMES = {"region": ["us-east-1", "us-west-2"], "database": ["s1", "s2", "catalog"]}


def completed(line: str, home: Path) -> list[str]:
    """What bash is offered for the last word of `line`."""
    words = line.split(" ")
    env = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_REGIONCTL_COMPLETE": "complete_bash",
    }
    ended = regionctl(home=home, env=env)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names of the platform in the state directory of `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind, words in STATUS_NAMES.items():
        names.keep(str(tmp_path / "state"), kind, words)
    names.keep(str(tmp_path / "other"), "region", ["eu-west-1"])
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("regionctl region show us-e", ["us-east-1"]),
        ("regionctl failover run ", ["s1", "s2", "catalog", "us-east-1", "us-west-2"]),
        ("regionctl switchover run --to us-w", ["us-west-2"]),
        ("regionctl region show --state-dir {home}/other ", ["eu-west-1"]),
        ("regionctl backup create c", ["catalog"]),
        ("regionctl op watch ", []),
        ("regionctl runbook show database", ["database-failure"]),
        ("regionctl token create ada --role op", ["operator"]),
        ("regionctl status -o js", ["json", "jsonl"]),
        ("regionctl status --exi", ["--exit-status"]),
        ("regionctl drill v", ["verify-report"]),
        ("regionctl comp", ["completion"]),
    ],
)
def test_commands_options_and_names_are_completed(
    kept: Path, line: str, offered: list[str]
) -> None:
    assert completed(line.format(home=kept), kept) == offered


def test_names_older_than_a_minute_are_not_offered(kept: Path) -> None:
    (file,) = (kept / "cache" / "regionctl" / "names").glob("*-database")
    old = time.time() - names.FRESH_SECONDS - 1
    os.utime(file, (old, old))
    assert completed("regionctl backup create ", kept) == []


def test_a_name_that_a_shell_could_take_for_a_command_is_not_kept(kept: Path) -> None:
    place = str(kept / "state")
    names.keep(place, "region", ["us-east-1", "$(reboot)", "a b", "`id`", "x\\$y", "é"])
    assert names.kept(place, "region") == ["us-east-1"]


def test_a_cache_that_cannot_be_written_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    names.keep("somewhere", "region", ["us-east-1"])
    assert names.kept("somewhere", "region") == []


def test_settings_that_are_wrong_complete_nothing_and_say_nothing(kept: Path) -> None:
    (kept / "config" / "regionctl").mkdir(parents=True)
    (kept / "config" / "regionctl" / "config.toml").write_text("colour = 7")
    assert completed("regionctl region show ", kept) == []


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("bash", ["us-east-1\nus-west-2"]),
        ("zsh", ["""_arguments '*: :(("us-east-1"\n"us-west-2"))'"""]),
        ("fish", ["us-east-1\nus-west-2"]),
    ],
)
def test_every_shell_is_answered_without_importing_anything_but_typer(
    kept: Path, shell: str, said: list[str]
) -> None:
    line = "regionctl region show "
    asked = {
        "_REGIONCTL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": "3",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = (
        "import json, sys\n"
        "from cli.main import run\n"
        "try:\n    run([])\n"
        "except SystemExit:\n    sys.stderr.write(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(kept, asked),
        check=True,
        timeout=60,
    )
    assert [done.stdout.strip()] == said
    modules = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert not modules & NOT_WANTED


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_commands_are_offered_with_what_they_do(tmp_path: Path, shell: str) -> None:
    asked = {
        "_REGIONCTL_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "regionctl dri",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    told = regionctl(home=tmp_path, env=asked).stdout
    assert "Break it on purpose" in told
    assert told.count("drill") == 1


def test_commands_that_asked_for_names_keep_them(platform: Plane) -> None:
    for command in ("status", "op list", "drill list", "backup list"):
        assert platform.run(*shlex.split(command)).code == 0
    assert platform.run("token", "create", "ada", "--role", "viewer").code == 0
    token = platform.run("token", "list", "-o", "name").stdout.strip()
    home = platform.home
    assert completed("regionctl region show ", home) == ["us-east-1", "us-west-2"]
    assert completed("regionctl op show ", home) == ["op-1"]
    assert completed("regionctl drill run database", home) == ["database-failure"]
    assert completed("regionctl token revoke ", home) == [token]
    assert completed("regionctl audit --actor a", home) == ["ada"]
    assert "control-plane" in completed("regionctl logs ", home)
    started = platform.run(
        "switchover", "run", "s1", "--yes", "--detach", "-o", "name"
    ).stdout.strip()
    assert completed("regionctl op watch ", home) == [started, "op-1"]
