"""The edge and a gateway with every check switched on, before echoing servers."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from infra.local import certificates, envoy
from infra.local.envoy_edge import Guard
from infra.local.envoy_listener import Tracing
from tests.infra.echo import Echo, Signer
from tests.ports import free_ports

SITE = "https://shop.example"
SERVICES = ("users", "orders", "payments", "inventory", "notifications", "objects")


class FrontDoor:
    """`echo` is every service but auth; `signer` makes tokens whose key `auth` publishes.
    `objects` is the port of a real object store; else `echo` is that too."""

    def __init__(
        self,
        folder: Path,
        *,
        per_second: int = 2000,
        burst: int = 4000,
        spans: Echo | None = None,
        objects: int | None = None,
    ) -> None:
        self.folder = folder
        self.gateway, self.gateway_admin, self.edge, self.edge_admin = free_ports(4)
        self.url = f"https://127.0.0.1:{self.edge}"
        self.echo, self.auth = Echo(), Echo()
        self.signer = Signer(self.url)
        self.auth.keys = [self.signer.public]
        self.guard = Guard(self.url, (SITE,), per_second, burst)
        self.tracing = Tracing(*spans.address) if spans else None
        self.objects = objects
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *, with_edge: bool = True) -> None:
        certificates.ensure(self.folder / "ca")
        servers = {name: [self.echo.address] for name in SERVICES}
        if self.objects:
            servers["objects"] = [("127.0.0.1", self.objects)]
        envoy.write_gateway(
            self.folder / "gateway",
            node="gateway",
            listen_port=self.gateway,
            admin_port=self.gateway_admin,
            endpoints=servers | {"auth": [self.auth.address]},
            issuer=self.url,
            tracing=self.tracing,
        )
        envoy.write_edge(
            self.folder / "edge",
            node="edge",
            listen_port=self.edge,
            admin_port=self.edge_admin,
            certificate=self.folder / "ca" / "edge.pem",
            key=self.folder / "ca" / "edge.key",
            gateways=[("127.0.0.1", self.gateway)],
            guard=self.guard,
            tracing=self.tracing,
        )
        for name in ("gateway", "edge") if with_edge else ("gateway",):
            with (self.folder / "log").open("ab") as log:
                command = envoy.command(self.folder / name)
                self._running.append(subprocess.Popen(command, stderr=log))
        asyncio.run(self._ready(with_edge))

    async def _ready(self, with_edge: bool) -> None:
        await envoy.ready(self.gateway_admin, 10)
        await envoy.await_endpoints(self.gateway_admin, "orders", [self.echo.address], 10)
        if with_edge:
            await envoy.ready(self.edge_admin, 10)
            await envoy.await_route(self.edge_admin, [("127.0.0.1", self.gateway)], 10)

    def client(self) -> httpx.Client:
        """A client of the edge."""
        trust = ssl.create_default_context(cafile=str(self.folder / "ca" / "ca.pem"))
        return httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=15)

    def inside(self) -> httpx.Client:
        """A client of the gateway itself."""
        base = f"http://127.0.0.1:{self.gateway}"
        return httpx.Client(base_url=base, trust_env=False, timeout=15)

    def bearer(self, token: str | None = None, **claims: object) -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.signer.token(**claims)}"}

    def freeze_edge(self) -> None:
        self._running[-1].send_signal(signal.SIGSTOP)

    def kill_edge(self) -> None:
        self._running[-1].kill()
        self._running[-1].wait()

    def end(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()
        self.echo.end()
        self.auth.end()


@contextmanager
def front_door(folder: Path, *, with_edge: bool = True) -> Iterator[FrontDoor]:
    door = FrontDoor(folder)
    try:
        door.start(with_edge=with_edge)
        yield door
    finally:
        door.end()
