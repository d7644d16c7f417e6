"""One platform for all tests of this folder, brought up once; the last test takes it down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import leftovers
from tests.ports import free_offset
from tests.system.session import Platform
from tests.system.tour import Plane


class Operator:
    """`regionctl` on one state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *words: str, seconds: float = 240.0) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words, "--state-dir", str(self.root)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, *words: str) -> Any:
        code, stdout, stderr = self.run(*words, "-o", "json")
        assert stdout, (code, stderr)
        return json.loads(stdout)

    def up(self) -> None:
        code, _, stderr = self.run("up")
        assert code == 0, stderr

    def status(self) -> Any:
        return self.ask("status")

    def instance(self, id: str) -> Any:
        regions = self.status()["regions"]
        return next(each for region in regions for each in region["instances"] if each["id"] == id)

    def shard(self, name: str) -> Any:
        return next(shard for shard in self.status()["shards"] if shard["name"] == name)

    def platform(self) -> Platform:
        return Platform.of(self.status(), self.root)

    def plane(self) -> Plane:
        return Plane(self.status()["controlPlane"]["address"], self.root)


@pytest.fixture(scope="session")
def operator() -> Iterator[Operator]:
    folder = Path(tempfile.mkdtemp(prefix="regionctl-system-"))
    folder.chmod(0o711)
    root = folder / "state"
    try:
        code, _, stderr = Operator(root).run("up", "--port-offset", str(free_offset()))
        assert code == 0, stderr
        yield Operator(root)
    finally:
        leftovers.end(root)
        shutil.rmtree(folder, ignore_errors=True)
