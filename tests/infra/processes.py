"""Small real servers for the tests of this folder."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from infra.local.ports import holder


def free_ports(count: int) -> list[int]:
    """Ports that the system says are free, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def neighbours(below: int) -> int:
    """A free port before which so many more are free."""
    for port in free_ports(20):
        if not any(holder(each) for each in range(port - below, port)):
            return port
    raise AssertionError("no free ports")


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether `condition` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
