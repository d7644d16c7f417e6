"""What the routes work with, and how each finds it."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from control_plane.audit import Audit
from control_plane.autoscaler import Autoscaler
from control_plane.pages import Pages
from control_plane.sampler import Sampler
from control_plane.settings import Settings
from control_plane.store import Store
from control_plane.tokens import Tokens
from infra.provider import Provider
from infra.topology import Topology
from runtime.clock import Clock

SETTLING_SECONDS = 60.0


@dataclass(frozen=True)
class ControlPlane:
    """`began`: when, on CLOCK_MONOTONIC (seconds)."""

    settings: Settings
    provider: Provider
    store: Store
    clock: Clock
    token: str
    began: float
    sampler: Sampler
    pages: Pages
    autoscaler: Autoscaler

    @property
    def settling(self) -> bool:
        """Whether it began so recently that not everything needs to run yet."""
        return self.clock.monotonic() < self.began + SETTLING_SECONDS

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.store.database, self.clock)

    @property
    def audit(self) -> Audit:
        return Audit(self.store.database)

    @property
    def topology(self) -> Topology:
        return self.provider.topology


def plane_of(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.plane
    return plane
