"""What a step may touch: `async def step(world: World, **args) -> JSON`.

A step decides nothing that the plan has not decided. It may be run again after it took effect
(the worker died before it could record that), so its effects are repeatable. What it returns is
stored, shown, and handed to later steps by `result`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.plan import Plan
from control_plane.settings import Settings
from control_plane.store import Store
from infra.provider import Provider
from infra.topology import Topology
from runtime.clock import Clock

JSON = dict[str, Any]


def end_process() -> None:
    """Ends the control plane as its supervisor would; that starts it again, with a new topology."""
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class World:
    """`results` has what each earlier step of this operation returned, by its number from 0."""

    provider: Provider
    clock: Clock
    store: Store
    settings: Settings
    operation_id: str
    plan: Plan
    results: Mapping[int, Any]
    restart: Callable[[], None] = end_process

    @property
    def topology(self) -> Topology:
        """What should exist now: resharding changes it while operations run."""
        return self.provider.topology

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir

    @property
    def entry_url(self) -> str:
        """The address of the edge, for clients."""
        return self.provider.entry_url()

    @property
    def ca_file(self) -> Path:
        """The certificate authority that the edge's certificate is signed by."""
        return self.state_dir / "ca" / "ca.pem"

    @property
    def probe_client_file(self) -> Path:
        """The OAuth client that load programs are, for their eyes only."""
        return self.state_dir / "control" / "clients" / "probe.json"

    def as_client(self) -> list[str]:
        """The arguments by which a load program finds the edge, trusts it and is known to it."""
        words = ["--url", self.entry_url]
        for option, path in (("--ca", self.ca_file), ("--client", self.probe_client_file)):
            if path.exists():
                words += [option, str(path)]
        return words

    def result(self, step: str) -> Any:
        """What the last earlier step of that name returned; None when none has run."""
        for number in sorted(self.results, reverse=True):
            if self.plan.steps[number].name == step:
                return self.results[number]
        return None

    async def emit(self, event: JSON) -> None:
        """Tells followers something between two steps: {"kind": str, ...}. Durable."""
        data = {key: value for key, value in event.items() if key != "kind"}
        await self.store.append_event(str(event["kind"]), data, self.operation_id)
