"""Runbooks from the console: read without anybody's help, and taken step by step at a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Plane
from tests.cli.console import environment, regionctl

WAIT_SECONDS = 30.0


@dataclass
class Person:
    """Somebody at a terminal, who sees stderr and types; stdout goes to a file."""

    process: subprocess.Popen[bytes]
    terminal: int
    out: Path
    unread: str = ""
    seen: str = field(default="")

    def awaits(self, text: str) -> None:
        """Reads until `text` has come."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.unread:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self.seen}"
            if select.select([self.terminal], [], [], left)[0]:
                part = os.read(self.terminal, 4096).decode()
                self.unread += part
                self.seen += part
        self.unread = self.unread.partition(text)[2]

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode() + b"\n")

    def ends(self) -> tuple[int, Any]:
        """The exit code, and the document on stdout."""
        with suppress(OSError):  # a terminal whose last process has ended
            while part := os.read(self.terminal, 4096):
                self.seen += part.decode()
        code = self.process.wait(WAIT_SECONDS)
        return code, json.loads(self.out.read_text())


@contextmanager
def at_a_terminal(home: Path, *arguments: str) -> Iterator[Person]:
    ours, theirs = pty.openpty()
    out = home / "stdout"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments, "-o", "json"],
            stdin=theirs,
            stdout=file,
            stderr=theirs,
            env=environment(home, {"TERM": "dumb"}),
        )
    os.close(theirs)
    try:
        yield Person(process, ours, out)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def states(document: Any) -> list[tuple[int, str]]:
    return [(step["number"], step["state"]) for step in document["steps"]]


def test_a_runbook_can_be_read_while_there_is_no_platform_at_all(tmp_path: Path) -> None:
    listed = regionctl("runbook", "list", "-o", "name", home=tmp_path)
    assert listed.code == 0
    assert "control-plane-lost" in listed.stdout.split()
    shown = regionctl("runbook", "show", "control-plane-lost", home=tmp_path)
    assert (shown.code, shown.stderr) == (0, "")
    assert "runs    regionctl up" in shown.stdout
    assert "The control plane decides and changes; it serves nobody." in shown.stdout
    document = json.loads(
        regionctl("runbook", "show", "reshard", "-o", "json", home=tmp_path).stdout
    )
    assert (document["kind"], document["asks"][0]["name"]) == ("Runbook", "to")
    assert [step["verb"] for step in document["steps"] if step["verb"]] == ["reshard"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("show database-failur", 2, "did you mean database-failure"),
        ("run service-outage", 5, "--unattended"),
        ("run database-failure --unattended", 2, "--set target=s1"),
        ("run database-failure --unattended --set taget=s1", 2, "did you mean target"),
        ("run reshard --unattended --set to=many", 2, "to is a number"),
        ("run service-outage --unattended --from 9", 2, "has 3 steps"),
        ("run cache-lost --drill", 5, "No drill brings cache-lost about"),
        ("run service-outage --unattended", 6, "--from 2"),
    ],
)
def test_what_cannot_come_to_its_end_is_said(
    arguments: str, code: int, said: str, tmp_path: Path
) -> None:
    ended = regionctl("runbook", *arguments.split(), "-o", "json", home=tmp_path)
    assert (ended.code, said in ended.stderr) == (code, True), ended


def test_a_rehearsal_shows_each_step_and_changes_nothing(platform: Plane) -> None:
    ended = platform.run("runbook", "run", "reshard", "--set", "to=3", "--dry-run", "-o", "json")
    assert ended.code == 0
    document = json.loads(ended.stdout)
    assert (document["kind"], document["state"]) == ("RunbookRun", "planned")
    assert states(document) == [(number, "planned") for number in range(1, 6)]
    assert "will: check-moves" in ended.stderr
    assert [
        op["kind"] for op in json.loads(platform.run("op", "list", "-o", "json").stdout)["items"]
    ] == ["provision"]


def test_alone_it_stops_at_what_may_lose_something_and_goes_on_from_there(platform: Plane) -> None:
    here = ("--state-dir", str(platform.state), "--unattended", "-o", "json")
    ended = platform.run("runbook", "run", "disk-full", "--from", "4", *here, "--set", "keep=1")
    assert ended.code == 5
    assert states(json.loads(ended.stdout)) == [(4, "failed")]
    assert "runbook run disk-full --from 4 --set keep=1" in ended.stderr
    assert "add --confirm two-regions" in ended.stderr

    more = ("--confirm", "two-regions", "--reason", "INC-7")
    ended = platform.run("runbook", "run", "disk-full", "--from", "4", *here, *more)
    assert ended.code == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["state"] == "done"
    assert states(document) == [
        *((4, "done"), (5, "nothing-to-do"), (6, "done"), (7, "done"), (8, "done"))
    ]
    operation = json.loads(
        platform.run("op", "show", document["steps"][0]["operation"], "-o", "json").stdout
    )
    assert operation["reason"] == "runbook disk-full, step 4: Remove old backups (INC-7)"


def test_a_command_that_fails_stops_it_and_says_what_to_type_next(platform: Plane) -> None:
    ended = platform.run(
        *("runbook", "run", "stuck-operation", "--set", "operation=op-99", "--unattended"),
        *("--from", "4", "--state-dir", str(platform.state), "-o", "json"),
    )
    assert ended.code == 4
    assert json.loads(ended.stdout)["state"] == "failed"
    assert "regionctl op resume op-99 ended with exit code 2" in ended.stderr
    assert "to go on with it: regionctl runbook run stuck-operation --from 4" in ended.stderr


def test_a_person_types_the_name_goes_on_and_quits(platform: Plane) -> None:
    words = ("runbook", "run", "disk-full", "--from", "4", "--confirm", "s1")
    with at_a_terminal(platform.home, *words) as person:
        person.awaits("step 4 of 8: Remove old backups")
        person.awaits("will: prune-backups")
        person.awaits("type two-regions to go on, [s]kip or [q]uit? ")
        person.types("yes")
        person.awaits("'yes' is none of these; nothing was done")
        person.types("two-regions")
        person.awaits("prune-backups")
        person.awaits("step 5 of 8: Start what is missing")
        person.awaits("nothing to do")
        person.awaits("step 6 of 8: See that it is over")
        person.awaits("[g]o, [s]kip or [q]uit? ")
        person.types("g")
        person.awaits("healthy")
        person.awaits("step 8 of 8")
        person.awaits("[q]uit? ")
        person.types("q")
        code, document = person.ends()
        assert code == 8
        assert document["state"] == "quit"
        assert states(document)[-1] == (8, "quit")
        assert states(document)[0] == (4, "done")
        assert "--from 8" in person.seen


def test_a_person_is_asked_what_a_step_needs_skips_and_interrupts(platform: Plane) -> None:
    with at_a_terminal(platform.home, "runbook", "run", "reshard", "--from", "3") as person:
        person.awaits("to: how many shards there shall be (such as 4): ")
        person.types("many")
        person.awaits("to is a number")
        person.types("3")
        person.awaits("will: check-moves")
        person.awaits("[g]o, [s]kip or [q]uit? ")
        person.types("s")
        person.awaits("step 4 of 5")
        person.awaits("[q]uit? ")
        person.process.send_signal(signal.SIGINT)
        code, document = person.ends()
        assert code == 130
        assert states(document) == [(3, "skipped"), (4, "interrupted")]
        assert "regionctl runbook run reshard --from 4 --set to=3" in person.seen


def test_yes_alone_is_not_the_name(platform: Plane) -> None:
    words = ("runbook", "run", "disk-full", "--from", "4", "--yes")
    with at_a_terminal(platform.home, *words) as person:
        person.awaits("type two-regions to go on")
        person.types("q")
        assert person.ends()[0] == 8


def test_ctrl_c_at_a_question_ends_the_command_at_once(tmp_path: Path) -> None:
    with at_a_terminal(tmp_path, "op", "abort", "op-1") as person:
        person.awaits("[y/N] ")
        person.process.send_signal(signal.SIGINT)
        person.awaits("interrupted")
        assert person.process.wait(WAIT_SECONDS) == 130
