"""The Locust processes of one load run: a master and workers, of which none stays behind.

Each is in a session of its own, so that Ctrl-C reaches only the program that started them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
LOOPBACK = "127.0.0.1"
JOIN_SECONDS = 60
GO_SECONDS = 2.0


@dataclass
class Locusts:
    """The processes of one run; `told` is where the master's progress comes from."""

    told: asyncio.StreamReader
    master: Process
    workers: list[Process] = field(default_factory=list)

    @property
    def all(self) -> list[Process]:
        return [self.master, *self.workers]


@asynccontextmanager
async def started(asked: argparse.Namespace) -> AsyncIterator[Locusts]:
    """Those of the run that `loadtests.run` was asked for."""
    host, port = asked.bind or (LOOPBACK, _free_port())
    common = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--loglevel", "WARNING"]
    read, write = os.pipe()
    master = [
        *common, "--headless", "--only-summary", "--master",
        "--master-bind-host", host, "--master-bind-port", str(port),
        "--expect-workers", str(asked.expect_workers),
        "--expect-workers-max-wait", str(JOIN_SECONDS),
        "--users", str(asked.expect_workers), "--spawn-rate", str(asked.expect_workers),
        "--host", asked.url, "--exit-code-on-error", "0",
        "--load-score", str(asked.out / "score.json"), "--load-out", str(asked.out),
        "--load-progress-fd", str(write),
    ]  # fmt: skip
    worker = [*common, "--worker", "--master-host", _near(host), "--master-port", str(port)]
    for option, path in (("--load-ca", asked.ca), ("--load-client", asked.client)):
        worker += [option, str(path)] if path else []
    with (asked.out / "locust.log").open("ab") as file:
        options: JSON = {
            "stdin": DEVNULL,
            "stdout": file,
            "stderr": file,
            "start_new_session": True,
            "env": environment(),
        }
        first = await asyncio.create_subprocess_exec(*master, pass_fds=[write], **options)
        os.close(write)
        locusts = Locusts(await _reader(read), first)
        try:
            for _ in range(asked.workers):
                locusts.workers.append(await asyncio.create_subprocess_exec(*worker, **options))
            yield locusts
        finally:
            await _end(locusts)


def _near(host: str) -> str:
    """Where a worker of this machine finds a master that listens on `host`."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = host == "*"
    return LOOPBACK if everywhere else host


async def _end(locusts: Locusts) -> None:
    """The workers go when the master has told them to, or are made to."""
    for process in locusts.all:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GO_SECONDS):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return reader


def environment() -> dict[str, str]:
    """Locust imports the locustfile by its path: our packages have to be found as here."""
    root = str(LOCUSTFILE.parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *([inherited] if inherited else [])]),
    }


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])
