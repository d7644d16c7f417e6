"""Asks a person at a terminal."""

from __future__ import annotations

import asyncio
import sys

from runtime.errors import Declined


async def prompt(question: str) -> str:
    """The next line that a person types; Ctrl-C ends the wait. Raises `Declined` at its end."""
    sys.stderr.write(question)
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin, ready.set)
    try:
        await ready.wait()
        line = sys.stdin.readline()
    finally:
        loop.remove_reader(sys.stdin)
    if not line:
        raise Declined("Nobody answers any more: nothing was done.")
    return line.strip()
