"""Every port of a platform, from one table.

    base + 0 control plane    + 1 edge (HTTPS)    + 2 edge admin    + 3 global supervisor
    base + 4 to base + 11     restored servers, which stand beside the platform
    base + 12 onwards         two ports for each instance but databases, in the topology's order:
                              what clients dial, then the admin port (Envoy), the HTTP port
                              (mailbox) or nothing; eight for an object store, whose parts speak to
                              each other by ports
    after these               the catalog, then each shard: two ports for each node (the second is
                              for looking at its data while it is stopped), and one relay port for
                              each region and each node outside it

`base` is 18000 + --port-offset. The same topology always gets the same ports, and one more shard
only appends some. Platforms stand `SPAN` ports apart, which is room for 16 shards and more.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil

from infra.topology import EDGE, MAILBOX, Topology
from runtime.errors import Refused

BASE = 18000
SPAN = 400
RESTORED = 8
PORTLESS = frozenset({"link", "archiver"})
HOST = "127.0.0.1"


# What an object store listens on beside its S3 port, in the order of its ports.
STORE_PARTS = (
    *("s3 grpc", "master", "master grpc", "volume", "volume grpc"),
    *("filer", "filer grpc"),
)


class PortTaken(Refused):
    """Another program listens on a port that this platform needs."""


@dataclass(frozen=True)
class Ports:
    """`relays[region, instance]` is where that region dials a database node of another region.

    `parts[instance][part]` are the further ports of an object store (`STORE_PARTS`) or the mailbox
    ("http"). `restored` are for servers outside the topology.
    """

    control: int
    edge: int
    edge_admin: int
    supervisor: int
    instances: dict[str, int]
    admin: dict[str, int]
    relays: dict[tuple[str, str], int]
    parts: dict[str, dict[str, int]]
    restored: tuple[int, ...]

    def all(self) -> dict[int, str]:
        """Every port that something listens on, and what that is."""
        return {
            self.control: "control plane",
            self.edge: EDGE,
            self.edge_admin: "edge admin",
            self.supervisor: "global supervisor",
            **{port: id for id, port in self.instances.items()},
            **{port: f"{id} admin" for id, port in self.admin.items()},
            **{
                port: f"{id} {part}"
                for id, ports in self.parts.items()
                for part, port in ports.items()
            },
            **{port: f"link {region} to {id}" for (region, id), port in self.relays.items()},
            **{port: f"restored server {n}" for n, port in enumerate(self.restored, 1)},
        }

    def of_region(self, region: str) -> dict[int, str]:
        """Every port that something of `region` listens on."""
        return {
            port: use
            for port, use in self.all().items()
            if use.startswith(f"link {region} ") or f".{region}" in use.split(" ")[0]
        }


def table(topology: Topology, offset: int = 0) -> Ports:
    """The ports of `topology`. A link has none of its own: its ports are the relays."""
    base = BASE + offset
    instances: dict[str, int] = {EDGE: base + 1}
    admin: dict[str, int] = {EDGE: base + 2}
    parts: dict[str, dict[str, int]] = {}
    relays: dict[tuple[str, str], int] = {}
    restored = tuple(range(base + 4, base + 4 + RESTORED))
    following = restored[-1] + 1
    for spec in topology.in_growing_order():
        if spec.id == EDGE or spec.kind in PORTLESS:
            continue
        instances[spec.id] = following
        if spec.kind == "envoy":
            admin[spec.id] = following + 1
        names = STORE_PARTS if spec.kind == "objects" else ("http",) * (spec.id == MAILBOX)
        if names:
            parts[spec.id] = {name: following + 1 + n for n, name in enumerate(names)}
        following += max(2, 1 + len(names))
        if spec.kind == "postgres":
            for region in topology.regions:
                if region.name != spec.region:
                    relays[region.name, spec.id] = following
                    following += 1
    return Ports(base, base + 1, base + 2, base + 3, instances, admin, relays, parts, restored)


def holder(port: int) -> tuple[int | None, str] | None:
    """(pid, command) of the process that listens on `port`; None when the port is free.

    The pid is None for a process that we may not look into.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            pass
        else:
            return None
    try:
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if local and local.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    return None, "a process of another user"
                return connection.pid, psutil.Process(connection.pid).name()
    except psutil.Error:
        pass
    return None, "an unknown process"


def require_free(wanted: dict[int, str], *, hint: str = "") -> None:
    """Raises `PortTaken`, naming port, use, pid and program, when one of the ports is in use.

    A platform that exists keeps its ports, so moving it is no way out unless `hint` says so.
    """
    for port, use in wanted.items():
        found = holder(port)
        if found is not None:
            pid, program = found
            by = f"pid {pid} ({program})" if pid else program
            raise PortTaken(
                f"Port {port} ({use}) is taken by {by}.",
                hint=hint or "Stop that program, then run regionctl up again.",
                extra={"port": port, "pid": pid},
            )
