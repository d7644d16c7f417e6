"""Find and end processes that belong to a state directory.

Every server is started with REGIONCTL_STATE=<state directory>. PostgreSQL's children and Valkey
paint over their environment (it holds the process title), but work inside the state directory.
Whatever descends from such a process belongs to it too. The caller and its ancestors never do: a
person may have set the variable in a shell.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection
from pathlib import Path

import psutil

from infra.local import quota
from infra.local.faults import kill_tree

VARIABLE = "REGIONCTL_STATE"
QUIT_SECONDS = 3.0


def find(state_dir: Path) -> list[int]:
    """The pids of living processes of `state_dir`; processes that may not be read are left out."""
    where = state_dir.resolve()
    me = psutil.Process()
    spared = {me.pid, *(process.pid for process in me.parents())}
    found: dict[int, None] = {}
    for process in psutil.process_iter():
        if process.pid in spared or process.pid in found:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and _belongs(process, where):
                found[process.pid] = None
                found.update((child.pid, None) for child in process.children(recursive=True))
    return [pid for pid in found if pid not in spared]


def end(state_dir: Path) -> list[int]:
    """Kill the processes of `state_dir`, by pid, and return when none is left; their pids. Nor do
    the groups that held them to a share of a core stay.

    Looks again until it finds none: a supervisor may have started another in the meantime.
    Raises `TimedOut` when a process does not go.
    """
    ended: list[int] = []
    while pids := find(state_dir):
        ended += _quit_databases(pids)
        ended += kill_tree(pids)
    quota.sweep(state_dir)
    return ended


def _quit_databases(pids: Collection[int]) -> list[int]:
    """Those that went of themselves. PostgreSQL gives its shared memory back when it is told to go
    at once (SIGQUIT, "immediate shutdown"); of a killed one the kernel keeps it until a reboot."""
    servers = [process for process in map(_process, pids) if process and _heads_a_database(process)]
    for process in servers:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGQUIT)
    gone, _ = psutil.wait_procs(servers, timeout=QUIT_SECONDS)
    return [process.pid for process in gone]


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _heads_a_database(process: psutil.Process) -> bool:
    """Whether it is a postmaster that can hear."""
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        below = parent is not None and parent.name() == "postgres"
        heard = process.status() != psutil.STATUS_STOPPED
        return process.name() == "postgres" and heard and not below
    return False


def _belongs(process: psutil.Process, where: Path) -> bool:
    with contextlib.suppress(psutil.AccessDenied):
        value = process.environ().get(VARIABLE)
        if value and Path(value).resolve() == where:
            return True
    with contextlib.suppress(psutil.AccessDenied):
        if process.name().startswith(("postgres", "valkey")):
            return where in (Path(process.cwd()), *Path(process.cwd()).parents)
    return False
