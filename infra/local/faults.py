"""Kill and freeze process trees.

A process is known by its pid and its start time, so a pid that the system has given to another
process is left alone. A tree is stopped before it is killed: a stopped process can neither fork
nor put a dead child right.

A freeze ends by itself: before it begins, a dead-man process (of its own session, so that it
outlives the controller) is started, which wakes the same processes when the time is up.
`python -m infra.local.faults ROOT SECONDS FD` is that process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import psutil

from runtime.errors import NotFound, TimedOut

GONE_SECONDS = 10.0
STOP_SECONDS = 2.0
DEAD_MAN = "infra.local.faults"
CHECK_SECONDS = 1.0


def process_tree(pid: int) -> list[int]:
    """`pid` and every descendant; empty when there is no such process."""
    return [process.pid for process in _tree(pid)]


def kill_tree(pids: Iterable[int]) -> list[int]:
    """Kill -9 the trees of `pids` and return when they are gone; the pids that were killed.

    A zombie whose parent has yet to ask for it counts as gone. Raises `TimedOut`.
    """
    processes = _stop(pids)
    for process in processes:
        _signal(process, signal.SIGKILL)
    _wait(processes, _gone, GONE_SECONDS, "to be gone")
    return [process.pid for process in processes]


def freeze_tree(pid: int, expires_seconds: float) -> list[int]:
    """Stop the tree of `pid` (SIGSTOP) for `expires_seconds`; the pids that stand still.

    Called again, the time counts anew. Raises `NotFound` when there is no such process.
    """
    root = _process(pid)
    if root is None:
        raise NotFound(f"There is no process {pid} to freeze.", hint="regionctl status")
    former = list(_dead_men(root))
    listing = _start_dead_man(root, expires_seconds)
    with os.fdopen(listing, "w") as pipe:
        processes = _stop([pid])
        pipe.write(" ".join(_name(process) for process in processes))
    for process in former:
        _signal(process, signal.SIGKILL)
    _wait(processes, lambda each: _gone(each) or _stopped(each), STOP_SECONDS, "to stand still")
    return [process.pid for process in processes]


def thaw_tree(pid: int) -> None:
    """Wake the tree of `pid`, and send its dead-man home."""
    root = _process(pid)
    if root is None:
        return
    guards = list(_dead_men(root))
    for guard in guards:
        _signal(guard, signal.SIGTERM)
    _wait(guards, _gone, GONE_SECONDS, "to be gone")
    for process in _tree(pid):
        _signal(process, signal.SIGCONT)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _tree(pid: int) -> list[psutil.Process]:
    root = _process(pid)
    if root is None or _gone(root):
        return []
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [root]


def _stop(pids: Iterable[int]) -> list[psutil.Process]:
    """Stop the trees of `pids`, looking again for children until none is new."""
    roots, stopped = list(pids), dict[int, psutil.Process]()
    while True:
        fresh = [process for pid in roots for process in _tree(pid) if process.pid not in stopped]
        if not fresh:
            return list(stopped.values())
        for process in fresh:
            _signal(process, signal.SIGSTOP)
            stopped[process.pid] = process
        _wait(fresh, lambda each: _gone(each) or _stopped(each), STOP_SECONDS, None)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _stopped(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _wait(
    processes: Sequence[psutil.Process],
    condition: Callable[[psutil.Process], bool],
    seconds: float,
    what: str | None,
) -> None:
    """Return when `condition` holds for each. Late: `TimedOut`, or nothing without `what`."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while late := [process for process in processes if not condition(process)]:
        if time.monotonic() >= deadline:
            if what is None:
                return
            pids = ", ".join(str(process.pid) for process in late)
            raise TimedOut(f"Waited {seconds:g} s for processes {pids} {what}.")
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _name(process: psutil.Process) -> str:
    return f"{process.pid}:{process.create_time():.2f}"


def _named(name: str) -> psutil.Process | None:
    """The process of that name. Its start time may be told a clock tick differently."""
    pid, _, started = name.partition(":")
    process = _process(int(pid))
    if process is None or abs(process.create_time() - float(started)) > 1.0:
        return None
    return process


def _start_dead_man(root: psutil.Process, seconds: float) -> int:
    """Start a dead-man for `root`; the descriptor that takes the names of the frozen processes.

    A shell in between gives it to init at once, so it never becomes our zombie.
    """
    reading, writing = os.pipe()
    arguments = [_name(root), f"{seconds:.3f}", str(reading)]
    try:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-m", DEAD_MAN, *arguments],
            check=True,
            pass_fds=[reading],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return writing


def _dead_men(root: psutil.Process) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = process.cmdline()
            if DEAD_MAN in words and words[-3:-2] == [_name(root)]:
                yield process


def _keep_watch(root: str, seconds: float, descriptor: int) -> None:
    """Wake the frozen processes after `seconds`, or at SIGTERM; leave when all are gone."""
    deadline = time.monotonic() + seconds
    with os.fdopen(descriptor) as pipe:
        names = pipe.read().split()
    processes = [process for name in names if (process := _named(name))]
    if not names and (alone := _named(root)):
        processes = _tree(alone.pid)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGTERM, lambda *_: None)
    while (left := deadline - time.monotonic()) > 0:
        if all(_gone(process) for process in processes):
            return
        if select.select([reading], [], [], min(left, CHECK_SECONDS))[0]:
            break
    for process in processes:
        _signal(process, signal.SIGCONT)


if __name__ == "__main__":
    _keep_watch(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
