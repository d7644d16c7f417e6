"""A real control plane over the memory provider, in a thread of its own, on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from control_plane.client import Client
from tests.cli.console import Ended, regionctl
from tests.control_plane.served import served, state_dir

BASE_PORT = 18000


@dataclass
class Plane:
    """Its state directory is `home`/state."""

    home: Path
    port: int
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def state(self) -> Path:
        return self.home / "state"

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        return regionctl(*arguments, home=self.home, env=env)

    def start(self) -> None:
        portal = self.running.enter_context(start_blocking_portal())
        self.running.enter_context(portal.wrap_async_context_manager(served(self.state, self.port)))

    def end(self) -> None:
        self.running.close()

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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A platform that nobody has brought up yet."""
    plane = Plane(tmp_path, free_port())
    state_dir(plane.state, automatic=True)
    document = {
        "format": 1,
        "topology": "two-regions",
        "ownerUid": os.geteuid(),
        "portOffset": plane.port - BASE_PORT,
        "createdAt": "2026-01-01T00:00:00+00:00",
    }
    (plane.state / "state.json").write_text(json.dumps(document))
    with plane.running:
        plane.start()
        yield plane


@pytest.fixture
def platform(plane: Plane) -> Plane:
    """A platform that is up."""
    plane.provision()
    return plane
