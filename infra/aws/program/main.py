"""The whole program: each region's parts, and what spans regions. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.naming import CONTROL
from infra.aws.program import peering
from infra.aws.program.access import Access
from infra.aws.program.administrators import Administrators
from infra.aws.program.backup import Backup, Vault
from infra.aws.program.balancer import Balancer
from infra.aws.program.budget import Budget
from infra.aws.program.caches import Caches
from infra.aws.program.databases import Databases, GlobalDatabases
from infra.aws.program.dns import Routing, Zone
from infra.aws.program.edge import Edge
from infra.aws.program.firewall import Firewall
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here
from infra.aws.program.keys import Keys
from infra.aws.program.network import Network
from infra.aws.program.observability import ROUTE53_REGION, Alarms, Answering, Topics
from infra.aws.program.registry import Registry
from infra.aws.program.secrets import FIRST, ORIGIN, VALKEY, Secrets
from infra.aws.program.storage import Copying, Storage
from infra.aws.program.tasks import Tasks
from infra.aws.spec import Platform, RegionSpec


class Region(pulumi.ComponentResource):
    """Groups the parts of one region."""

    def __init__(self, name: str) -> None:
        super().__init__("regionctl:aws:Region", name)


def declare(platform: Platform) -> Mapping[str, Any]:
    """Every resource of `platform`; the exported outputs."""
    regions = sorted(platform.regions, key=lambda region: not region.serves)
    places = [_here(platform, region) for region in regions]
    first = places[0]

    boundary = Access(first).boundary.arn
    zone = Zone(first).zone
    firewall = Firewall(first)
    keys = [Keys(first, None)]
    keys += [Keys(here, keys[0].multi_region) for here in places[1:]]
    networks = [Network(here, key.logs) for here, key in zip(places, keys, strict=True)]
    groups = [Groups(here, network) for here, network in zip(places, networks, strict=True)]
    for network, group in zip(networks, groups, strict=True):
        network.add_endpoints(group.by["endpoint"])
    peering.join(list(zip(places, networks, strict=True)))

    storages = [Storage(here, key) for here, key in zip(places, keys, strict=True)]
    for here, storage in zip(places, storages, strict=True):
        Copying(here, storage, [other for other in storages if other is not storage])
    registries = [Registry(here, key.data) for here, key in zip(places, keys, strict=True)]
    registries[0].copy_to(
        [here.region.name for here in places[1:]], [one.repository for one in registries[1:]]
    )

    secrets = Secrets(first, keys[0].data, [key.alias for key in keys[1:]])
    proof = secrets.read(ORIGIN, "proof")
    joined = GlobalDatabases(first).by_name
    passwords = {name: secrets.read(FIRST, name) for name in platform.every_database}
    writers: dict[str, pulumi.Input[str]] = {name: one.endpoint for name, one in joined.items()}
    servers: dict[str, list[aws.rds.ClusterInstance]] = {}
    doors: list[Routing] = []
    topics = {here.region.name: Topics(here, keys[n].logs) for n, here in enumerate(places)}
    vaults = [Vault(here, key.data) for here, key in zip(places, keys, strict=True)]
    for index, here in enumerate(places):
        key, network, group = keys[index], networks[index], groups[index]
        databases = Databases(
            here, network, group.by["database"], key.data, joined, passwords, servers
        )
        servers = servers or databases.servers
        if CONTROL in databases.clusters:
            writers[CONTROL] = databases.clusters[CONTROL].endpoint
        caches = Caches(here, network, group, key.data, key.logs, secrets.read(VALKEY, "token"))
        balancer = Balancer(here, network, group, storages[index], zone, proof)
        half = ("PRIMARY", "SECONDARY")[index] if index < 2 else None
        doors.append(Routing(here, zone, balancer.balancer, half))
        Tasks(here, network, group, key, balancer, boundary, caches.addresses)
        Backup(here, vaults[index], [other for other in vaults if other is not vaults[index]])
        Alarms(here, topics[here.region.name], balancer)
    Administrators(first, networks[0], groups[0], secrets, writers)
    Budget(first)
    checks = {door.here.region.name: door.check.id for door in doors}
    told = topics.get(ROUTE53_REGION)
    Answering(first, checks, told.by["critical"].arn if told else None)
    edge = Edge(first, zone, storages[0], firewall.acl, proof, doors)
    return {
        "entryUrl": f"https://{platform.names.entry()}",
        "edge": edge.distribution.domain_name,
        "nameServers": zone.name_servers,
        "writers": writers,
    }


def _here(platform: Platform, region: RegionSpec) -> Here:
    provider = aws.Provider(
        f"aws-{region.name}",
        region=region.name,
        default_tags=aws.ProviderDefaultTagsArgs(tags=platform.tags(region.name)),
    )
    caller = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=provider))
    return Here(platform, region, provider, Region(region.name), caller.account_id)
