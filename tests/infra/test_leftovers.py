"""Processes that belong to a state directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local import leftovers

pytestmark = pytest.mark.process

# Says its child's pid; the child has lost the variable.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], env={})
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, leftovers.VARIABLE: str(tmp_path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_a_process_and_its_children_are_found_and_ended(
    tmp_path: Path, parent: tuple[subprocess.Popen[str], int]
) -> None:
    process, child = parent
    assert sorted(leftovers.find(tmp_path)) == sorted([process.pid, child])
    assert sorted(leftovers.end(tmp_path)) == sorted([process.pid, child])
    assert leftovers.find(tmp_path) == []
    assert process.wait() == -9
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_another_directory_has_no_part_in_it(
    tmp_path: Path, parent: tuple[subprocess.Popen[str], int]
) -> None:
    assert leftovers.find(tmp_path / "other") == []
    assert leftovers.end(tmp_path.parent) == []
    assert parent[0].poll() is None


def test_the_caller_and_its_ancestors_are_spared(tmp_path: Path) -> None:
    command = "from infra.local import leftovers; import sys, pathlib;"
    command += "print(leftovers.end(pathlib.Path(sys.argv[1])))"
    shell = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" "$2"; echo alive', sys.executable, command, str(tmp_path)],
        env={**os.environ, leftovers.VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.split() == ["[]", "alive"]
