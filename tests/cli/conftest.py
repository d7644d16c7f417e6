"""A real control plane over the memory provider, in a thread of its own, on a free port."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from control_plane.client import Client
from control_plane.plane import ControlPlane
from tests.cli.console import Ended, regionctl
from tests.control_plane.served import serving, state_dir
from tests.ports import free_port

BASE_PORT = 18000


@dataclass
class Plane:
    """Its state directory is `home`/state; `control` is the control plane itself while it runs."""

    home: Path
    port: int
    running: ExitStack = field(default_factory=ExitStack)
    control: ControlPlane | None = None

    @property
    def state(self) -> Path:
        return self.home / "state"

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        return regionctl(*arguments, home=self.home, env=env)

    def start(self) -> None:
        portal = self.running.enter_context(start_blocking_portal())
        manager = portal.wrap_async_context_manager(serving(self.state, self.port))
        _, self.control = self.running.enter_context(manager)

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


@contextmanager
def control_plane(home: Path, *, automatic: bool) -> Iterator[Plane]:
    """A platform that nobody has brought up yet; `automatic`: it fails over by itself."""
    plane = Plane(home, free_port())
    state_dir(plane.state, automatic=automatic)
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
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A platform that nobody has brought up yet."""
    with control_plane(tmp_path, automatic=True) as plane:
        yield plane


@pytest.fixture
def platform(plane: Plane) -> Plane:
    """A platform that is up."""
    plane.provision()
    return plane
