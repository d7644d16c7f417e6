from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.leaf import Run, _carry_out
from cli.render import Output
from runtime.errors import Declined, Exit, Refused, TimedOut
from tests.cli.console import TIMEOUT_SECONDS, environment


def test_ctrl_c_while_waiting_leaves_the_operation_alone_and_says_how_to_watch_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(operation="op-7", state_dir=Path("/mine"))

    async def command() -> int | None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        return None

    assert _carry_out(command, run) == Exit.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().splitlines() == [
        "detached; operation op-7 continues: regionctl op watch op-7 --state-dir /mine",
        "to cancel: regionctl op abort op-7 --state-dir /mine",
    ]


@pytest.mark.parametrize("output", [Output.table, Output.json])
def test_a_problem_becomes_its_exit_code_and_a_message(
    output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    async def command() -> int | None:
        raise TimedOut("Waited 3 s.", hint="regionctl op watch op-7")

    assert _carry_out(command, Run(output=output)) == Exit.STILL_RUNNING
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "regionctl op watch op-7" in captured.err


async def test_where_nobody_can_be_asked_a_lossless_change_needs_yes() -> None:
    with pytest.raises(Refused, match="nothing was done") as refused:
        await Run(no_input=True).agree("Move everything?")
    assert refused.value.hint == "add --yes"
    await Run(no_input=True, yes=True).agree("Move everything?")


def test_with_stderr_in_a_file_the_question_would_not_be_seen_and_the_change_is_refused(
    tmp_path: Path,
) -> None:
    terminal, keyboard = os.openpty()
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "cli.main", "token", "revoke", "1f2e3d4c"],
            stdin=keyboard,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=environment(tmp_path),
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(keyboard)
    assert (ended.returncode, ended.stdout) == (Exit.REFUSED, "")
    assert "try: add --yes" in ended.stderr


async def test_without_a_terminal_a_severe_change_needs_the_name() -> None:
    with pytest.raises(Refused, match="--yes is not enough"):
        await Run(no_input=True, yes=True).insist("s1", "This may lose data.")
    await Run(no_input=True, confirm="s1").insist("s1", "This may lose data.")


async def test_another_name_does_not_confirm() -> None:
    with pytest.raises(Refused, match="s2"):
        await Run(no_input=True, confirm="s2").insist("s1", "This may lose data.")


def test_declining_is_its_own_exit_code() -> None:
    assert Declined.exit == 8
