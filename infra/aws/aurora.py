"""How the local platform's PostgreSQL settings become parameters of Aurora. Pure.

The settings are read from the text that every local server starts with (`infra/local/postgres.py`),
so the two cannot drift apart. Three kinds do not carry over: what AWS decides (addresses, memory,
paths), what Aurora's storage replaces (WAL files, full pages, streaming replication, summaries),
and what goes by another name.
"""

from __future__ import annotations

import re

from infra.local import postgres
from runtime.errors import Invalid

ENGINE = "aurora-postgresql"
ADMINISTRATOR, DATABASE = postgres.SUPERUSER, postgres.DATABASE
LOGS = ("postgresql",)
# The settings of the local platform that a cluster parameter group of Aurora PostgreSQL accepts,
# each with when it takes effect.
CARRIED = {
    "jit": "immediate",
    "max_logical_replication_workers": "pending-reboot",
    "max_parallel_workers": "immediate",
    "max_parallel_workers_per_gather": "immediate",
    "max_replication_slots": "pending-reboot",
    "max_sync_workers_per_subscription": "immediate",
    "max_wal_senders": "pending-reboot",
    "max_worker_processes": "pending-reboot",
    "password_encryption": "immediate",
    "synchronous_commit": "immediate",
    "tcp_keepalives_count": "immediate",
    "tcp_keepalives_idle": "immediate",
    "tcp_keepalives_interval": "immediate",
    "timezone": "immediate",
    "wal_sender_timeout": "immediate",
}
# The same by Aurora's own names, and TLS, which the local platform does not need on its loopback.
OWN = {
    "rds.force_ssl": ("1", "immediate"),
    "rds.logical_replication": ("1", "pending-reboot"),
    "ssl_min_protocol_version": ("TLSv1.2", "immediate"),
    "log_min_duration_statement": ("1000", "immediate"),
}
# Of the classes t and r of Aurora.
MEMORY_GIB = {
    "medium": 4,
    "large": 16,
    "xlarge": 32,
    "2xlarge": 64,
    "4xlarge": 128,
    "8xlarge": 256,
    "12xlarge": 384,
    "16xlarge": 512,
    "24xlarge": 768,
}
CONNECTIONS_PER_GIB, MOST_CONNECTIONS = 100, 5000
_MILLISECONDS = {"wal_sender_timeout"}


def family(version: str) -> str:
    """The parameter group family of an engine version: "18.6" → "aurora-postgresql18"."""
    return f"{ENGINE}{version.partition('.')[0]}"


def local_settings() -> dict[str, str]:
    """What every local server starts with, by name."""
    return dict(re.findall(r"^(\w+) = '?([^'\n]*)'?$", postgres.COMMON, re.MULTILINE))


def max_connections(instance_class: str) -> int:
    """How many connections a server takes: by its memory, as AWS's own default, but a number that
    is known before. Raises `Invalid` for a class whose memory is not."""
    size = instance_class.rpartition(".")[2]
    if size not in MEMORY_GIB:
        raise Invalid(
            f"aws.database.instanceClass: the memory of {instance_class} is not known.",
            hint=f"Sizes: {', '.join(MEMORY_GIB)}",
        )
    return min(MOST_CONNECTIONS, MEMORY_GIB[size] * CONNECTIONS_PER_GIB)


def cluster_parameters(instance_class: str) -> list[tuple[str, str, str]]:
    """(name, value, apply method) of each parameter, by name."""
    settings = local_settings()
    found = [(name, _value(name, settings[name]), method) for name, method in CARRIED.items()]
    found.append(("max_connections", str(max_connections(instance_class)), "pending-reboot"))
    return sorted(found + [(name, value, method) for name, (value, method) in OWN.items()])


def _value(name: str, text: str) -> str:
    """As Aurora writes it: switches as 1 and 0, times without a unit."""
    if text in ("on", "off") and name != "synchronous_commit":
        return "1" if text == "on" else "0"
    if name in _MILLISECONDS:
        return str(int(text.removesuffix("s")) * 1000)
    return text
