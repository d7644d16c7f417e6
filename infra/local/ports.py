"""Every port of a platform, from one table.

    base - 2 Prometheus       base - 1 Alertmanager, where the platform is monitored
    base + 0 control plane    + 1 edge (HTTPS)    + 2 edge admin    + 3 global supervisor
    base + 4 to base + 11     restored servers, which stand beside the platform
    base + 12 onwards         two ports for each instance but databases, in the topology's order:
                              what clients dial, then the admin port (Envoy), the HTTP port
                              (mailbox) or nothing; eight for an object store, whose parts speak to
                              each other by ports
    after these               the catalog, then each shard: two ports for each node (the second is
                              for looking at its data while it is stopped), and one relay port for
                              each region and each node outside it
    base + 250 to base + 399  one port for each further instance of a service; who would come here
                              otherwise goes on at base + 400

`base` is 18000 + --port-offset. The same topology always gets the same ports, one more shard only
appends some, and a further instance changes no other's. Platforms stand `SPAN` ports apart, which
is room for 16 shards.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil

from infra.topology import EDGE, MAILBOX, Topology
from runtime.errors import Invalid, Refused

BASE = 18000
SPAN = 400
FURTHER = 150
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
    """The ports of `topology`. A link has none of its own: its ports are the relays.

    Raises `Invalid` when services may have more instances than there are ports.
    """
    _check_room(topology)
    base = BASE + offset
    reserved = base + SPAN - FURTHER
    instances: dict[str, int] = {EDGE: base + 1}
    admin: dict[str, int] = {EDGE: base + 2}
    parts: dict[str, dict[str, int]] = {}
    relays: dict[tuple[str, str], int] = {}
    restored = tuple(range(base + 4, base + 4 + RESTORED))
    following = restored[-1] + 1
    for spec in topology.in_growing_order():
        if spec.id == EDGE or spec.kind in PORTLESS:
            continue
        names = STORE_PARTS if spec.kind == "objects" else ("http",) * (spec.id == MAILBOX)
        dialled_by = [
            region.name
            for region in topology.regions
            if spec.kind == "postgres" and region.name != spec.region
        ]
        own = max(2, 1 + len(names))
        if following < base + SPAN and following + own + len(dialled_by) > reserved:
            following = base + SPAN
        instances[spec.id] = following
        if spec.kind == "envoy":
            admin[spec.id] = following + 1
        if names:
            parts[spec.id] = {name: following + 1 + n for n, name in enumerate(names)}
        following += own
        for region in dialled_by:
            relays[region, spec.id] = following
            following += 1
    instances |= {spec.id: reserved + place for place, spec in topology.further()}
    return Ports(base, base + 1, base + 2, base + 3, instances, admin, relays, parts, restored)


def _check_room(topology: Topology) -> None:
    if topology.most_further > FURTHER:
        each = topology.most_further // (topology.scaling.max_instances - 1)
        raise Invalid(
            f"scaling.maxInstances is {topology.scaling.max_instances}: a platform on one machine "
            f"has ports for {1 + FURTHER // each} instances of each service in each zone.",
            hint=f"Say maxInstances: {1 + FURTHER // each} or less, or name fewer zones.",
        )


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
