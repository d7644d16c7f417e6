"""`up` and `down` from outside, with real processes and a platform in memory."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from control_plane import audit_file
from control_plane.bootstrap import up
from control_plane.client import Client
from infra.local import leftovers
from infra.topology import BUILT_IN
from runtime.clock import SystemClock, wait_until
from runtime.errors import Refused
from tests.ports import free_offset

pytestmark = pytest.mark.process
CLOCK = SystemClock()


def call(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of `python -m control_plane.bootstrap`."""
    command = [sys.executable, "-m", "control_plane.bootstrap", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip(), done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


class Bootstrap:
    def __init__(self, folder: Path, offset: int) -> None:
        self.root = folder / "state"
        self.offset = offset
        self.topology = folder / "mine.yaml"
        text = (BUILT_IN / "two-regions.yaml").read_text()
        self.topology.write_text(text.replace("provider: local", "provider: memory"))

    def up(self, *more: str) -> tuple[int, dict[str, Any]]:
        where = ("--state-dir", str(self.root), "--port-offset", str(self.offset))
        return call("up", "--topology", str(self.topology), *where, *more)

    def down(self, *more: str) -> tuple[int, dict[str, Any]]:
        return call("down", "--state-dir", str(self.root), *more)

    def pid(self) -> int:
        return int((self.root / "control" / "lock").read_text())


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Bootstrap]:
    platform = Bootstrap(tmp_path, free_offset())
    yield platform
    leftovers.end(platform.root)


def test_up_makes_the_state_and_a_second_up_just_answers(platform: Bootstrap) -> None:
    code, first = platform.up()
    assert code == 0, first
    token = Path(first["tokenFile"])
    assert token.stat().st_mode & 0o777 == 0o600
    pid, secret = platform.pid(), token.read_text()
    assert platform.up() == (0, first)
    assert platform.pid() == pid
    assert token.read_text() == secret


def test_down_leaves_no_process_and_delete_data_no_file(platform: Bootstrap) -> None:
    platform.up()
    assert platform.down()[0] == 0
    assert leftovers.find(platform.root) == []
    assert (platform.root / "control" / "control.db").exists()
    assert platform.up()[0] == 0
    code, answer = platform.down("--delete-data")
    assert (code, answer["deleted"]) == (0, True)
    assert not platform.root.exists()
    assert leftovers.find(platform.root) == []


def test_what_up_and_down_do_themselves_is_in_the_audit_log(platform: Bootstrap) -> None:
    platform.up("--reason=a new platform")
    platform.down("--reason=enough")
    entries = audit_file.entries(platform.root / audit_file.NAME)
    told = [(each.kind, each.action, each.reason, each.outcome) for each in entries]
    assert told == [
        ("asked", "up", "a new platform", None),
        ("ended", "up", "a new platform", "succeeded"),
        ("asked", "down", "enough", None),
        ("ended", "down", "enough", "succeeded"),
    ]
    assert {each.target for each in entries} == {"two-regions"}


async def test_the_control_plane_comes_back_by_itself_and_remembers(platform: Bootstrap) -> None:
    _, answer = await asyncio.to_thread(platform.up)
    async with Client(answer["address"], state_dir=platform.root) as client:
        operation = await client.start("provision", {}, idempotency_key="k")
        async for _ in client.follow(operation["id"]):
            pass
        before = platform.pid()
        os.kill(before, signal.SIGKILL)
        again = await client.start("provision", {}, idempotency_key="k")
    assert again["id"] == operation["id"]
    assert again["state"] == "succeeded"
    assert platform.pid() != before


def test_down_works_with_control_plane_and_supervisor_dead(platform: Bootstrap) -> None:
    platform.up()
    for pid in leftovers.find(platform.root):
        if "supervisord" in " ".join(psutil.Process(pid).cmdline()):
            os.kill(pid, signal.SIGKILL)
    code, answer = platform.down()
    assert (code, answer["endedLeftovers"]) == (0, 1)
    assert leftovers.find(platform.root) == []


async def test_up_after_the_supervisor_died_has_one_control_plane(platform: Bootstrap) -> None:
    _, answer = await asyncio.to_thread(platform.up)
    for pid in leftovers.find(platform.root):
        os.kill(pid, signal.SIGKILL)

    async def gone() -> bool:
        return not leftovers.find(platform.root)

    await wait_until(CLOCK, gone, what="all processes to end", seconds=30)
    assert await asyncio.to_thread(platform.up) == (0, answer)
    assert len(leftovers.find(platform.root)) == 2


def test_two_at_once_are_refused_with_the_pid_of_the_other(platform: Bootstrap) -> None:
    platform.root.mkdir()
    with (platform.root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4242")
        file.flush()
        code, problem = platform.up()
    assert code == 5
    assert "4242" in problem["detail"]


def test_a_taken_port_is_refused_with_pid_and_the_way_out(platform: Bootstrap) -> None:
    with socket.create_server(("127.0.0.1", 18_000 + platform.offset)):
        code, problem = platform.up()
    assert code == 5
    assert str(os.getpid()) in problem["detail"]
    assert f"--port-offset {platform.offset + 1000}" in problem["hint"]
    assert not (platform.root / "state.json").exists()


def test_a_state_directory_of_another_format_is_refused(platform: Bootstrap) -> None:
    platform.root.mkdir()
    (platform.root / "state.json").write_text('{"format": 99}')
    for code, problem in (platform.up(), platform.down()):
        assert code == 5
        assert "99" in problem["detail"]
        assert problem["hint"]


def test_another_topology_of_the_same_name_is_refused(platform: Bootstrap) -> None:
    assert platform.up()[0] == 0
    made = platform.topology.read_text()
    platform.topology.write_text(made.replace("Milliseconds: 30", "Milliseconds: 40"))
    code, problem = platform.up()
    assert code == 5
    assert "another topology" in problem["detail"]
    assert "interRegionLatencyMilliseconds" in problem["detail"]
    assert f"up --state-dir {platform.root} " in problem["hint"]
    platform.topology.write_text(made.replace("shards: 2", "shards: 3"))
    code, problem = platform.up()
    assert code == 5
    assert "has 2 shards by now, not 3" in problem["detail"]
    assert "shard reshard --to 3" in problem["hint"]


def test_a_wrong_topology_and_no_platform_are_told(platform: Bootstrap) -> None:
    platform.topology.write_text("kind: nonsense\n")
    code, problem = platform.up()
    assert code == 2
    assert "mine.yaml:1" in problem["detail"]
    assert not platform.root.exists()
    assert platform.down()[0] == 2


async def test_a_topology_for_aws_is_not_brought_up_on_one_machine(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is for AWS") as caught:
        await up("aws-two-regions", tmp_path / "state", 0)
    assert caught.value.hint is not None
    assert "regionctl infra up --topology aws-two-regions" in caught.value.hint
    assert "REGIONCTL_SERVER=URL regionctl up" in caught.value.hint
    assert not (tmp_path / "state").exists()
