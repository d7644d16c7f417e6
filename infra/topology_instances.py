"""Which servers a topology has, in the order in which they are started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from infra.topology import Topology

_Server = Literal["postgres", "valkey", "envoy", "objects", "service"]
Kind = _Server | Literal["supervisor", "link", "archiver", "peer"]
Role = Literal["primary", "dr"]
Service = Literal["auth", "users", "orders", "payments", "inventory", "notifications"]

EDGE = "edge"
PAYMENT_GATEWAY, MAILBOX = "payment-gateway", "mailbox"
STORING: frozenset[Service] = frozenset({"payments", "notifications"})


@dataclass(frozen=True)
class InstanceSpec:
    """One server that should exist.

    `component` is what it is an instance of: a database ("s1", "catalog"), a service ("orders"),
    or "cache", "queue", "objects", "gateway", "edge", "link", "archiver", "supervisor". The edge
    and the peers stand in no region: their `region` and `zone` are empty. A peer
    ("payment-gateway", "mailbox") stands in for a system of somebody else. `number` counts the
    instances of one service in one zone, from 1.
    """

    id: str
    kind: Kind
    component: str
    region: str
    zone: str
    number: int = 1


@dataclass(frozen=True)
class RegionSpec:
    name: str
    role: Role
    zones: tuple[str, ...]


def on_this_machine(topology: Topology) -> list[InstanceSpec]:
    specs = [
        InstanceSpec(f"supervisor.{region.name}", "supervisor", "supervisor", region.name, "")
        for region in topology.regions
    ]
    if len(topology.regions) > 1:
        specs += [
            InstanceSpec(f"link.{region.name}", "link", "link", region.name, region.zones[0])
            for region in topology.regions
        ]
    for database in topology.databases:
        for region in topology.regions:
            zones = region.zones[:2] if region.role == "primary" else region.zones[:1]
            specs += [_spec("postgres", database, region, zone) for zone in zones]
    for region in topology.regions:
        specs.append(_spec("valkey", "cache", region, region.zones[0]))
        specs += [_spec("valkey", "queue", region, zone) for zone in region.zones[:2]]
        if STORING.intersection(topology.services):
            specs.append(_spec("objects", "objects", region, region.zones[0]))
            specs.append(_spec("archiver", "archiver", region, ""))
        for zone in region.zones:
            for service in topology.services:
                count = topology.count(service, region.name + zone)
                specs += [
                    _spec("service", service, region, zone, number)
                    for number in range(1, count + 1)
                ]
        specs += [_spec("envoy", "gateway", region, zone) for zone in region.zones]
    specs += [InstanceSpec(peer, "peer", peer, "", "") for peer in _peers(topology)]
    specs.append(InstanceSpec(EDGE, "envoy", EDGE, "", ""))
    return specs


def on_aws(topology: Topology) -> list[InstanceSpec]:
    """What AWS itself runs is not listed: it supervises, archives and stores.

    A database has a server in two zones of every region, cache and queue have two nodes in
    each; an Aurora reader is behind its writer by milliseconds, but loses nothing.
    """
    specs = [
        _spec("postgres", database, region, zone)
        for database in topology.databases
        for region in topology.regions
        for zone in region.zones[:2]
    ]
    for region in topology.regions:
        for store in ("cache", "queue"):
            specs += [_spec("valkey", store, region, zone) for zone in region.zones[:2]]
        for zone in region.zones:
            specs += [_spec("service", service, region, zone) for service in topology.services]
            specs.append(_spec("envoy", "gateway", region, zone))
    return [*specs, InstanceSpec(EDGE, "envoy", EDGE, "", "")]


def _peers(topology: Topology) -> list[str]:
    """The stand-ins that some service needs."""
    gateway = "payments" in topology.services and not topology.external.payment_gateway
    mailbox = "notifications" in topology.services and not topology.external.smtp
    return [*([PAYMENT_GATEWAY] if gateway else []), *([MAILBOX] if mailbox else [])]


def _spec(
    kind: Kind, component: str, region: RegionSpec, zone: str, number: int = 1
) -> InstanceSpec:
    which = component if number == 1 else f"{component}-{number}"
    id = f"{which}.{region.name}{zone}"
    return InstanceSpec(id, kind, component, region.name, zone, number)
