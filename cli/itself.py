"""Runs a command of the console as a child process of this very program."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A command of the console that has ended; `said` is its stdout, `noted` its stderr unless
    that was shown at once."""

    code: int
    said: str
    noted: str


Execute = Callable[[list[str], bool], Awaitable[Ended]]
"""Runs `regionctl WORDS`; when the second argument is true nothing of it is shown yet."""


async def execute(words: list[str], silent: bool) -> Ended:
    """As a child process of this very program."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if silent else None,
    )
    try:
        said, noted = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        raise
    return Ended(process.returncode or 0, said.decode(), (noted or b"").decode())
