"""What can be broken on purpose, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

FaultKind = Literal[
    "kill",
    "freeze",
    "kill-zone",
    "kill-region",
    "cut-link",
    "slow-link",
    "drop-cache",
    "drop-queue",
    "corrupt",
]


@dataclass(frozen=True)
class Fault:
    """Something broken on purpose.

    `target` is an instance (kill, freeze), a zone "us-east-1a" (kill-zone), a region
    (kill-region), or two regions "us-east-1/us-west-2" (cut-link, slow-link with
    `delay_seconds`). Of a cache (drop-cache) or a queue with its replicas (drop-queue) the
    whole contents are lost; the servers go on. It heals by itself after `expires_seconds` where it
    can (freeze, links), also when the controller is dead.

    corrupt: one bad UPDATE and one bad DELETE hit a share of the settled orders of the shard
    `target`, in one transaction of the superuser. `seed` chooses which, and names the fault: it is
    done once, and who asks again gets the first answer. Nothing heals it but `infra/repair.py`.
    """

    kind: FaultKind
    target: str
    expires_seconds: float = 120.0
    delay_seconds: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Injected:
    """When a fault began and had taken effect, on CLOCK_MONOTONIC and on the wall clock.

    `detail` of "corrupt": {"lsn": everything up to it is good, "changed", "deleted": rows by
    table}.
    """

    began_monotonic: float
    effective_monotonic: float
    began_at: datetime
    pids: tuple[int, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
