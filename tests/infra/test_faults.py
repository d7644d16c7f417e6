"""Killing and freezing trees of real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from infra.local import faults
from runtime.errors import NotFound
from tests.infra.processes import eventually

pytestmark = pytest.mark.process

# A process with a child and a grandchild, which says their pids.
FAMILY = """
import subprocess, sys, os
depth = int(sys.argv[1])
print(os.getpid(), flush=True)
child = depth and subprocess.Popen([sys.executable, sys.argv[0], str(depth - 1)])
sys.stdin.read()
"""


@dataclass
class Family:
    root: subprocess.Popen[str]
    pids: list[int]

    @property
    def states(self) -> set[str]:
        return {psutil.Process(pid).status() for pid in self.pids}


@pytest.fixture
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    script = tmp_path_factory.mktemp("family") / "family.py"
    script.write_text(FAMILY)
    root = subprocess.Popen(
        [sys.executable, str(script), "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert root.stdout is not None
    assert root.stdin is not None
    family = Family(root, [int(root.stdout.readline()) for _ in range(3)])
    yield family
    faults.kill_tree(family.pids)
    root.stdin.close()
    root.stdout.close()
    root.wait()


def test_a_tree_is_the_process_and_all_of_its_descendants(family: Family) -> None:
    assert sorted(faults.process_tree(family.root.pid)) == sorted(family.pids)


def test_a_killed_tree_is_gone_on_return(family: Family) -> None:
    assert sorted(faults.kill_tree([family.root.pid])) == sorted(family.pids)
    for pid in family.pids[1:]:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    assert family.root.wait() == -9


def test_killing_what_is_gone_does_nothing(family: Family) -> None:
    faults.kill_tree([family.root.pid])
    family.root.wait()
    assert faults.kill_tree(family.pids) == []


def test_a_frozen_tree_stands_still_until_it_is_thawed(family: Family) -> None:
    faults.freeze_tree(family.root.pid, 60)
    assert family.states == {"stopped"}
    faults.thaw_tree(family.root.pid)
    assert eventually(lambda: "stopped" not in family.states)
    assert dead_men(family) == []


def test_a_freeze_ends_by_itself_when_the_controller_is_dead(family: Family) -> None:
    freezer = f"from infra.local import faults; faults.freeze_tree({family.root.pid}, 1.0)"
    controller = f"{freezer}; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", controller], check=False).returncode == -9
    assert family.states == {"stopped"}
    assert eventually(lambda: "stopped" not in family.states)
    assert eventually(lambda: dead_men(family) == [])


def test_freezing_again_counts_the_time_anew(family: Family) -> None:
    faults.freeze_tree(family.root.pid, 30)
    assert eventually(lambda: len(dead_men(family)) == 1)
    first = dead_men(family)
    faults.freeze_tree(family.root.pid, 60)
    assert eventually(lambda: not set(first) & set(dead_men(family)))
    assert eventually(lambda: len(dead_men(family)) == 1)
    assert family.states == {"stopped"}


def test_children_of_a_killed_frozen_process_wake_up(family: Family) -> None:
    faults.freeze_tree(family.root.pid, 0.7)
    family.root.kill()
    family.root.wait()
    assert eventually(lambda: {psutil.Process(p).status() for p in family.pids[1:]} != {"stopped"})


def test_a_dead_man_leaves_when_there_is_nobody_to_wake(family: Family) -> None:
    faults.freeze_tree(family.root.pid, 60)
    assert eventually(lambda: len(dead_men(family)) == 1)
    guards = dead_men(family)
    faults.kill_tree([family.root.pid])
    assert eventually(lambda: not psutil.pid_exists(guards[0]))


def test_a_pid_that_was_given_to_another_process_is_left_alone(family: Family) -> None:
    started = psutil.Process(family.root.pid).create_time()
    assert faults._named(f"{family.root.pid}:{started:.2f}") is not None
    assert faults._named(f"{family.root.pid}:{started - 30:.2f}") is None


def test_freezing_nobody_is_refused(family: Family) -> None:
    faults.kill_tree([family.root.pid])
    family.root.wait()
    with pytest.raises(NotFound):
        faults.freeze_tree(family.root.pid, 1.0)


def dead_men(family: Family) -> list[int]:
    words = f"{family.root.pid}:"
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if faults.DEAD_MAN in line and "sh" not in line and line[-3].startswith(words):
            found.append(process.pid)
    return found
