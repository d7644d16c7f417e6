"""What a process of a service uses of the machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """One process by now. `cpu_seconds` is the time of a processor core that it has used since it
    began, in the kernel too; `memory_bytes` its resident set.

    After a restart `pid` is another one, and `cpu_seconds` begins anew.
    """

    pid: int
    cpu_seconds: float
    memory_bytes: int
    threads: int
