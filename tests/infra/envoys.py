"""Envoys in front of tiny servers, and clients that never stop asking."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx

from infra.local import certificates, envoy
from infra.local.envoy_edge import Guard
from tests.ports import free_ports

CLIENTS = 32
Addresses = list[tuple[str, int]]


class World:
    """Two servers of orders, two gateways and the edge, each started on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.processes: list[subprocess.Popen[bytes]] = []

    def upstreams(self, count: int = 2) -> tuple[Addresses, list[subprocess.Popen[bytes]]]:
        ports = free_ports(count)
        script = Path(__file__).with_name("upstream.py")
        started = [
            self._run([sys.executable, str(script), str(p), str(self.journal)]) for p in ports
        ]
        return [("127.0.0.1", port) for port in ports], started

    async def gateway(self, orders: Sequence[tuple[str, int]]) -> Gateway:
        listen, admin = free_ports(2)
        folder = self.folder / f"gateway-{listen}"
        envoy.write_gateway(
            folder,
            node=f"gateway.{listen}",
            listen_port=listen,
            admin_port=admin,
            endpoints={"orders": orders, "inventory": orders},
        )
        gateway = Gateway(folder, listen, admin, self._run(envoy.command(folder)))
        await envoy.ready(admin, 5)
        await envoy.await_endpoints(admin, "orders", orders, 5)
        return gateway

    async def edge(self, gateways: Sequence[tuple[str, int]]) -> Gateway:
        listen, admin = free_ports(2)
        folder, ca = self.folder / "edge", self.folder / "ca"
        certificates.ensure(ca)
        envoy.write_edge(
            folder,
            node="edge",
            listen_port=listen,
            admin_port=admin,
            certificate=ca / "edge.pem",
            key=ca / "edge.key",
            gateways=gateways,
            guard=Guard(f"https://127.0.0.1:{listen}"),
        )
        edge = Gateway(folder, listen, admin, self._run(envoy.command(folder)))
        await envoy.ready(admin, 5)
        await envoy.await_route(admin, gateways, 5)
        return edge

    def client(self, port: int) -> httpx.AsyncClient:
        authority = self.folder / "ca" / "ca.pem"
        tls = authority.exists() and (self.folder / "edge").exists()
        return httpx.AsyncClient(
            base_url=f"{'https' if tls else 'http'}://127.0.0.1:{port}",
            verify=ssl.create_default_context(cafile=str(authority)) if tls else True,
            trust_env=False,
            timeout=15,
            limits=httpx.Limits(max_connections=2 * CLIENTS, max_keepalive_connections=CLIENTS),
        )

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self.folder / "log").open("ab")
        with log:
            started = subprocess.Popen(command, stderr=log)
        self.processes.append(started)
        return started

    def end(self) -> None:
        for each in self.processes:
            each.kill()
            each.wait()


class Gateway:
    def __init__(
        self, folder: Path, listen: int, admin: int, process: subprocess.Popen[bytes]
    ) -> None:
        self.folder, self.listen, self.admin, self.process = folder, listen, admin, process
        self.address = ("127.0.0.1", listen)


async def load(
    client: httpx.AsyncClient,
    method: str,
    *,
    keyed: bool,
    seconds: float,
    path: str = "/api/v1/orders",
) -> Counter[int]:
    """Requests by 32 clients for `seconds`; how many got each status (0: no answer)."""
    statuses: Counter[int] = Counter()
    until = time.monotonic() + seconds

    async def one(number: int) -> None:
        count = 0
        while time.monotonic() < until:
            count += 1
            attempt = f"{number}-{count}"
            headers = {"x-attempt": attempt} | ({"idempotency-key": attempt} if keyed else {})
            try:
                answer = await client.request(method, path, headers=headers)
                statuses[answer.status_code] += 1
            except httpx.HTTPError:
                statuses[0] += 1

    await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    return statuses


async def later(seconds: float, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    await asyncio.sleep(seconds)
    process.send_signal(number)
