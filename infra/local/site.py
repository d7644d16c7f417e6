"""One local platform's facts, gathered once: topology, paths, ports, secrets, system user.

Everything in this package takes a `Site`; it decides nothing and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from infra.local import layout as files
from infra.local.layout import Layout, Secrets, SystemUser
from infra.local.ports import HOST, Ports
from infra.local.supervisor import Supervisor, clean_environment, tail
from infra.topology import InstanceSpec, Topology
from runtime.errors import OperationFailed
from runtime.shardmap import Endpoint

# Copies, checks and rewinds give way to the requests that are being served meanwhile. They stay in
# our session for that: Linux shares processors out among sessions before it looks at `nice`.
LARGE_WORK = frozenset({"pg_basebackup", "pg_rewind", "pg_verifybackup"})
LARGE_WORK_NICE = 10


@dataclass(frozen=True)
class Site:
    """`postgres_bin` is the folder of the PostgreSQL programs, `user` whom they run as."""

    topology: Topology
    layout: Layout
    ports: Ports
    secrets: Secrets
    user: SystemUser | None
    postgres_bin: Path

    @cached_property
    def supervisors(self) -> dict[str, Supervisor]:
        """By region; the global one under the empty name."""
        ports = {"": self.ports.supervisor}
        for spec in self.topology.instances(kind="supervisor"):
            ports[spec.region] = self.ports.instances[spec.id]
        return {
            region: Supervisor(
                self.layout.folder(region), port, self.secrets.supervisor, self.layout.root
            )
            for region, port in ports.items()
        }

    def spec(self, instance: str) -> InstanceSpec:
        return self.topology.instance(instance)

    def supervisor(self, instance: str) -> Supervisor:
        return self.supervisors[self.spec(instance).region]

    @property
    def entry_url(self) -> str:
        """The address of the edge, for clients."""
        return f"https://{HOST}:{self.ports.edge}"

    def port(self, instance: str) -> int:
        return self.ports.instances[instance]

    def endpoint(self, instance: str) -> Endpoint:
        spec = self.spec(instance)
        return Endpoint(spec.id, spec.region, spec.zone, HOST, self.ports.instances.get(spec.id, 0))

    def dial_port(self, region: str, upstream: str) -> int:
        """Where a server of `region` reaches a database: by its own link when it is elsewhere."""
        return self.ports.relays.get((region, upstream), self.ports.instances[upstream])

    def pgdata(self, instance: str) -> Path:
        return self.layout.pgdata(self.spec(instance).region, instance)

    def complete(self, instance: str) -> bool:
        """Its data directory is whole."""
        marker = self.layout.marker(self.spec(instance).region, instance)
        return marker.exists() and (self.pgdata(instance) / "PG_VERSION").exists()

    def mark(self, instance: str, *, complete: bool) -> None:
        marker = self.layout.marker(self.spec(instance).region, instance)
        if complete:
            files.replace_file(marker, "")
        else:
            marker.unlink(missing_ok=True)

    def log(self, instance: str) -> Path:
        return self.layout.log(self.spec(instance).region, instance)

    def evidence(self, instance: str) -> dict[str, object]:
        """The `extra` of a Problem about `instance`: its log and the last lines of it."""
        return {"instance": instance, "log": str(self.log(instance)), "lines": self.tail(instance)}

    def tail(self, instance: str, lines: int = 8) -> list[str]:
        return tail(self.log(instance), lines)

    async def run(
        self, program: str, *arguments: str, instance: str, password: str = "", seconds: float = 300
    ) -> str:
        """Runs a PostgreSQL program as the database user and returns what it printed.

        `password` goes by the environment, which only that user can read. Raises
        `OperationFailed` with its last lines when it fails, does not exist or takes too long.
        """
        environment = clean_environment(self.layout.root)
        environment |= {"PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5", "PGAPPNAME": program}
        try:
            process = await asyncio.create_subprocess_exec(
                str(self.postgres_bin / program),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                cwd="/",
                process_group=0,
                umask=0o077,
                **self.as_user(),
            )
        except OSError as error:
            raise OperationFailed(
                f"Cannot run {self.postgres_bin / program}: {error.strerror}.",
                hint="regionctl doctor; or set REGIONCTL_POSTGRES_BIN to another PostgreSQL 18.",
                extra={"instance": instance},
            ) from error
        if program in LARGE_WORK:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, LARGE_WORK_NICE)
        try:
            async with asyncio.timeout(seconds):
                output, _ = await process.communicate()
        except (TimeoutError, asyncio.CancelledError) as error:
            # With what it has forked: that would go on, and keep our end of its output open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise OperationFailed(
                f"{program} for {instance} did not end within {seconds:g} s.",
                hint=f"regionctl logs {instance}; then run the operation again.",
                extra=self.evidence(instance),
            ) from error
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise OperationFailed(
                f"{program} for {instance} failed (exit {process.returncode}).",
                hint="The last lines say why; a full disk and a taken port are the usual causes.",
                extra={**self.evidence(instance), "lines": text.splitlines()[-8:]},
            )
        return text

    def as_user(self) -> dict[str, Any]:
        """The arguments that make a subprocess run as the database user."""
        if self.user is None:
            return {}
        return {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}

    def postmaster(self, instance: str) -> int | None:
        """The pid of the server that runs in this data directory, whoever started it."""
        folder = self.pgdata(instance)
        try:
            pid = int((folder / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return None
            if Path(psutil.Process(pid).cwd()) == folder.resolve():
                return pid
        except (OSError, ValueError, psutil.Error):
            pass
        return None
