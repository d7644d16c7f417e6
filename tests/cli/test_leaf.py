from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from cli.leaf import Run, _carry_out
from cli.render import Output
from runtime.errors import Declined, Exit, Refused, TimedOut


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


async def test_without_a_terminal_a_lossless_change_goes_ahead() -> None:
    await Run(no_input=True).agree("Move everything?")


async def test_without_a_terminal_a_severe_change_needs_the_name() -> None:
    with pytest.raises(Refused, match="--yes is not enough"):
        await Run(no_input=True, yes=True).insist("s1", "This may lose data.")
    await Run(no_input=True, confirm="s1").insist("s1", "This may lose data.")


async def test_another_name_does_not_confirm() -> None:
    with pytest.raises(Refused, match="s2"):
        await Run(no_input=True, confirm="s2").insist("s1", "This may lose data.")


def test_declining_is_its_own_exit_code() -> None:
    assert Declined.exit == 8
