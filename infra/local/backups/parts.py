"""What every function of backups works with, and how programs are run beside a database."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil

from infra.backups import Work
from infra.local import faults
from infra.local import layout as files
from infra.local.backups.index import Shelves, shelves
from infra.local.cluster import Cluster
from infra.local.monitor import Monitor
from infra.local.site import LARGE_WORK_NICE, Site
from infra.local.supervisor import clean_environment
from infra.topology import RegionSpec
from runtime.errors import OperationFailed, Refused
from runtime.shardmap import ShardMap

AT_ONCE = 8
PROGRAMS = ("pg_basebackup", "pg_combinebackup", "pg_verifybackup", "pg_checksums")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Parts:
    site: Site
    monitor: Monitor
    cluster: Cluster
    given: Shelves | None = None
    # database, server or instance → how to learn how far its backup or restore is
    work: dict[str, Callable[[], Awaitable[Work]]] = field(default_factory=dict)

    @cached_property
    def shelves(self) -> Shelves:
        """The platform's own, unless others are given."""
        return self.given or shelves(self.site)

    @property
    def scratch(self) -> Path:
        """Where base backups are made; everything in it may go when nobody holds its lock."""
        return self.site.layout.root / "backups"

    @property
    def restored(self) -> Path:
        return self.site.layout.root / "restored"

    def folder(self, path: Path) -> Path:
        """An empty folder of the database user; whatever was there is gone."""
        with files.explain_disk(path):
            if path.exists():
                shutil.rmtree(path)
            files.make_folder(path, owner=self.site.user, mode=0o700)
        return path

    def archivers(self, shard_map: ShardMap, database: str) -> Sequence[RegionSpec]:
        """The regions that may keep the backups of `database`, the usual one first."""
        home = shard_map.shards[database].home
        regions = [r for r in self.site.topology.regions if r.name in self.shelves.vaults]
        return [r for r in regions if r.name != home] or regions

    @contextlib.contextmanager
    def working(self, on: str, asked: Callable[[], Awaitable[Work]]) -> Iterator[None]:
        """While it is held, `asked` says how far the work on `on` is."""
        self.work[on] = asked
        try:
            yield
        finally:
            self.work.pop(on, None)


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Held by one at a time, and let go by the death of its holder. Raises `Refused`."""
    files.make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{what} at this moment.", hint="Wait for it, then try again.") from None
        yield
    finally:
        os.close(descriptor)


def end_programs(folder: Path) -> None:
    """No program of a control plane that died still works in `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.name() in PROGRAMS and any(str(folder) in word for word in words):
                found.append(process.pid)
    if found:
        faults.kill_tree(found)


async def every(
    work: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, at_once: int = AT_ONCE
) -> list[R]:
    """The results of `work` in order. The first failure ends all others and is raised."""
    limit = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with limit:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(parts: Parts, program: str, *arguments: str, seconds: float, name: str = "") -> None:
    """A PostgreSQL program that must succeed. `name` is what the processes that it leaves are
    called. Raises `OperationFailed` with its last lines."""
    status, out, err = await output(
        parts.site, program, *arguments, seconds=seconds, environment={"REGIONCTL_INSTANCE": name}
    )
    if status != 0:
        lines = (out + err).decode(errors="replace").splitlines()[-8:]
        raise OperationFailed(
            f"{program} failed (exit {status}): {lines[-1] if lines else 'it said nothing'}.",
            hint="The last lines say why; a full disk is a usual cause.",
            extra={"lines": lines},
        )


async def output(
    site: Site,
    program: str,
    *arguments: str,
    seconds: float = 300,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, bytes, bytes]:
    """(exit status, stdout, stderr) of a PostgreSQL program whose failure tells us something."""
    process = await asyncio.create_subprocess_exec(
        str(site.postgres_bin / program),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**clean_environment(site.layout.root), **(environment or {})},
        cwd="/",
        process_group=0,
        umask=0o077,
        **site.as_user(),
    )
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, LARGE_WORK_NICE)
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise OperationFailed(f"{program} did not end within {seconds:g} s.") from error
    assert process.returncode is not None
    return process.returncode, out, err
