"""A real control plane over the memory provider, as a program of its own on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.client import Client
from infra.topology import BUILT_IN
from tests.cli.console import Ended, regionctl

BASE_PORT = 18000
START_SECONDS = 30.0


@dataclass
class Plane:
    """Its state directory is `home`/state."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.home / "state"

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        return regionctl(*arguments, home=self.home, env=env)

    def start(self) -> None:
        env = {
            **os.environ,
            "REGIONCTL_STATE": str(self.state),
            "REGIONCTL_PORT": str(self.port),
        }
        log = (self.home / "control-plane.log").open("ab")
        program = ["-m", "uvicorn", "--factory", "control_plane.app:create"]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        with log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *address],
                env=env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._await_answer()

    def _await_answer(self) -> None:
        """The port listens before the application answers; urllib waits for the connection."""
        import time

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                url = f"http://127.0.0.1:{self.port}/health/live"
                with urllib.request.urlopen(url, timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.home / "control-plane.log").read_text())

    def provision(self) -> None:
        async def whole() -> str:
            address = f"http://127.0.0.1:{self.port}"
            async with Client(address, state_dir=self.state) as client:
                operation = await client.start("provision", {})
                async for _ in client.follow(operation["id"]):
                    pass
                ended = await client.operation(operation["id"])
                return f"{ended['state']} {ended['problem']}"

        assert asyncio.run(whole()) == "succeeded None"

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A platform that nobody has brought up yet."""
    plane = Plane(tmp_path, free_port())
    (plane.state / "control").mkdir(parents=True)
    text = (
        (BUILT_IN / "two-regions.yaml").read_text().replace("provider: local", "provider: memory")
    )
    (plane.state / "topology.yaml").write_text(text)
    (plane.state / "control" / "token").write_text("secret")
    document = {
        "format": 1,
        "topology": "two-regions",
        "ownerUid": os.geteuid(),
        "portOffset": plane.port - BASE_PORT,
        "createdAt": "2026-01-01T00:00:00+00:00",
    }
    (plane.state / "state.json").write_text(json.dumps(document))
    plane.start()
    yield plane
    plane.end()


@pytest.fixture
def platform(plane: Plane) -> Plane:
    """A platform that is up."""
    plane.provision()
    return plane
