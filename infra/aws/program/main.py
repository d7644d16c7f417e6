"""The whole program: each region's parts, and what spans regions. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.naming import CONTROL
from infra.aws.program import peering
from infra.aws.program.administrators import Administrators
from infra.aws.program.caches import Caches
from infra.aws.program.databases import Databases, GlobalDatabases
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here
from infra.aws.program.keys import Keys
from infra.aws.program.network import Network
from infra.aws.program.secrets import FIRST, VALKEY, Secrets
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

    secrets = Secrets(first, keys[0].data, [key.alias for key in keys[1:]])
    joined = GlobalDatabases(first).by_name
    passwords = {name: secrets.read(FIRST, name) for name in platform.every_database}
    writers: dict[str, pulumi.Input[str]] = {name: one.endpoint for name, one in joined.items()}
    servers: dict[str, list[aws.rds.ClusterInstance]] = {}
    for here, key, network, group in zip(places, keys, networks, groups, strict=True):
        databases = Databases(
            here, network, group.by["database"], key.data, joined, passwords, servers
        )
        servers = servers or databases.servers
        if CONTROL in databases.clusters:
            writers[CONTROL] = databases.clusters[CONTROL].endpoint
        Caches(here, network, group, key.data, key.logs, secrets.read(VALKEY, "token"))
        Tasks(here, network, group, key)
    Administrators(first, networks[0], groups[0], secrets, writers)
    return {"entryUrl": f"https://{platform.names.entry()}"}


def _here(platform: Platform, region: RegionSpec) -> Here:
    provider = aws.Provider(
        f"aws-{region.name}",
        region=region.name,
        default_tags=aws.ProviderDefaultTagsArgs(tags=platform.tags(region.name)),
    )
    caller = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=provider))
    return Here(platform, region, provider, Region(region.name), caller.account_id)
