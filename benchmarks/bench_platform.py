"""A platform made for a benchmark, as its operator sees it, and the peer of its order path."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import load
import psutil
from regionctl_peer import free_offset

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from infra.local import envoy  # noqa: E402
from infra.local.layout import Layout, read_secrets  # noqa: E402
from infra.local.ports import HOST  # noqa: E402

SETTLE_SECONDS = 300.0
TABLES = ("orders", "order_items", "outbox")


class Platform:
    """A platform that `regionctl up` made, as its operator sees it."""

    def __init__(self, root: Path, regionctl: Path) -> None:
        self.root = root
        self.regionctl = regionctl
        self.paths = Layout(root)
        self.status = self.run("status")
        self.entry = httpx.URL(self.status["entryUrl"])
        self.tls = ssl.create_default_context(cafile=str(self.paths.ca / "ca.pem"))
        self.target = load.Target(self.entry.host, self.entry.port or 443, self.tls)
        region = self.status["route"]
        self.region: dict[str, Any] = next(
            each for each in self.status["regions"] if each["name"] == region
        )

    def run(self, *words: str) -> Any:
        command = [str(self.regionctl), *words, "-o", "json", "--state-dir", str(self.root)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def ports(self, service: str) -> list[int]:
        instances = self.region["instances"]
        return [self.port(each["id"]) for each in instances if each["service"] == service]

    def port(self, instance: str) -> int:
        address = next(e["address"] for e in self.region["instances"] if e["id"] == instance)
        return int(address.rpartition(":")[2])

    @asynccontextmanager
    async def peer_in_place(self, peers: Sequence[int]) -> AsyncIterator[None]:
        """Meanwhile the gateways send orders to `peers`."""
        await self._point([(HOST, port) for port in peers])
        try:
            yield
        finally:
            await self._point([(HOST, port) for port in self.ports("orders")])

    async def _point(self, endpoints: Sequence[envoy.Address]) -> None:
        for instance in self.region["instances"]:
            if instance["service"] == "gateway":
                folder = self.paths.envoy(self.region["name"], instance["id"])
                envoy.write_endpoints(folder, "orders", endpoints)
                admin = json.loads((folder / "bootstrap.json").read_text())["admin"]
                port = admin["address"]["socket_address"]["port_value"]
                await envoy.await_endpoints(port, "orders", endpoints, 15.0)

    async def settled(self) -> float:
        """Seconds until every order was confirmed or refused and every event was handled."""
        began = time.monotonic()
        while await self._unsettled() or any(
            group["lag"] or group["pending"] for group in self.run("events", "lag")["items"]
        ):
            if time.monotonic() - began > SETTLE_SECONDS:
                raise SystemExit(f"events were still in flight after {SETTLE_SECONDS:g} s")
            await asyncio.sleep(1.0)
        return time.monotonic() - began

    async def _unsettled(self) -> int:
        counts = [
            await ask(shard, "SELECT count(*) FROM orders WHERE status = 'placed'")
            for shard in self.shards()
        ]
        return sum(counts)

    def shards(self) -> list[dict[str, Any]]:
        """How asyncpg reaches the primary of each shard, as superuser."""
        password = read_secrets(self.paths).superuser
        return [
            {
                "host": HOST,
                "port": self.port(shard["primary"]),
                "user": "regionctl",
                "password": password,
                "database": "app",
                "ssl": False,
            }
            for shard in self.status["shards"]
            if shard["name"] != "catalog"
        ]

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time by what used them, since each process began."""
        used: dict[str, float] = defaultdict(float)
        for process in psutil.process_iter():
            try:
                if part := self._part(process):
                    times = process.cpu_times()
                    used[part] += times.user + times.system
            except psutil.Error:
                continue
        return used

    def _part(self, process: psutil.Process) -> str | None:
        """What of the path the process belongs to; None: it is not of this platform.

        PostgreSQL's backends write their titles over their environment, so they are known by the
        folder in which they run.
        """
        if process.name().startswith("postgres"):
            home = Path(process.cwd()).is_relative_to(self.root.resolve())
            return "PostgreSQL" if home else None
        environment = process.environ()
        if environment.get("REGIONCTL_STATE") != str(self.root):
            return None
        if environment.get("BENCH_SHARDS"):
            return "orders"
        instance = environment.get("REGIONCTL_INSTANCE", "control plane").partition(".")[0]
        return "Valkey" if instance in ("cache", "queue") else instance

    def memory(self) -> float:
        """Megabytes that the platform's processes use (proportional set size)."""
        total = 0
        for process in psutil.process_iter():
            try:
                if self._part(process):
                    total += process.memory_full_info().pss
            except psutil.Error:
                continue
        return total / 1e6


@asynccontextmanager
async def minimal(platform: Platform) -> AsyncIterator[list[int]]:
    """Two processes of the peer, as the region has two of the orders service; their ports."""
    shards = platform.shards()
    for shard in shards:
        connection = await asyncpg.connect(**shard)
        await connection.execute("DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench")
        for table in TABLES:
            await connection.execute(
                f"CREATE TABLE bench.{table} (LIKE public.{table} INCLUDING ALL)"
            )
        await connection.close()
    environment = {
        **os.environ,
        "BENCH_SHARDS": json.dumps(shards),
        "REGIONCTL_STATE": str(platform.root),
    }
    ports = [free_port() for _ in range(2)]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "minimal:create", "--factory"),
            *("--host", HOST, "--port", str(port), "--no-access-log", "--log-level", "warning"),
            *("--loop", "uvloop", "--http", "httptools", "--timeout-keep-alive", "75"),
            cwd=HERE,
            env=environment,
        )
        for port in ports
    ]
    try:
        yield ports
    finally:
        for process in processes:
            process.terminate()
            await process.wait()


async def ask(shard: dict[str, Any], question: str) -> Any:
    connection = await asyncpg.connect(**shard)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(regionctl: Path) -> Iterator[Platform]:
    base = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "state"
    root = base / "regionctl" / f"bench-{os.getpid()}"
    where = ["--state-dir", str(root)]
    try:
        up = [str(regionctl), "up", "--port-offset", str(free_offset()), *where]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
        yield Platform(root, regionctl)
    finally:
        if root.exists():
            down = [str(regionctl), "down", "--delete-data", "--confirm", "two-regions", *where]
            subprocess.run(down, check=True, stdout=subprocess.DEVNULL)
