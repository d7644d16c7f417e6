"""Ports for the servers of tests. Each process of tests has its own, below those that the system
gives to clients: what is free when it is asked for is still free when the server binds it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TextIO

from infra.local.ports import BASE, holder

SINGLE = range(10_000, BASE, 100)
PLATFORMS = range(2_000, 14_000, 1_000)

_claims: dict[int, TextIO] = {}
_handed_out = 0


def free_port() -> int:
    """A port of the loopback on which nothing listens and that nobody else was given."""
    global _handed_out
    for _ in range(SINGLE.step):
        port = _block() + _handed_out % SINGLE.step
        _handed_out += 1
        if holder(port) is None:
            return port
    raise AssertionError("no free ports")


def free_ports(count: int) -> list[int]:
    """So many, all different."""
    return [free_port() for _ in range(count)]


def neighbours(below: int) -> int:
    """A free port before which so many more are free."""
    for _ in range(SINGLE.step):
        ports = free_ports(1 + below)
        if ports[-1] - ports[0] == below:
            return ports[-1]
    raise AssertionError("no free ports beside each other")


def free_offset() -> int:
    """A port offset for a platform: nothing listens on any of its ports."""
    for offset in (*_claims, *PLATFORMS):
        if offset in PLATFORMS and _claimed(offset):
            first = BASE + offset
            if not any(holder(port) for port in range(first, first + PLATFORMS.step)):
                return offset
    raise AssertionError("no free range of ports")


def _block() -> int:
    """The first one of `SINGLE` that is this process's, or can be."""
    for start in (*_claims, *SINGLE):
        if start in SINGLE and _claimed(start):
            return start
    raise AssertionError("other processes of tests have all ports")


def _claimed(start: int) -> bool:
    """Whether what starts there is this process's, from now to its end."""
    if start in _claims:
        return True
    folder = Path(tempfile.gettempdir()) / f"regionctl-test-ports-{os.geteuid()}"
    folder.mkdir(exist_ok=True)
    lock = (folder / str(start)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _claims[start] = lock
    return True
