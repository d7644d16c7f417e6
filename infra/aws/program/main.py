"""The whole program: each region's parts, and what spans regions. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.program.databases import Databases, GlobalDatabases
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here
from infra.aws.program.keys import Keys
from infra.aws.program.network import Network
from infra.aws.program.tasks import Tasks
from infra.aws.spec import Platform, RegionSpec


class Region(pulumi.ComponentResource):
    """Groups the parts of one region."""

    def __init__(self, name: str) -> None:
        super().__init__("regionctl:aws:Region", name)


def declare(platform: Platform) -> Mapping[str, Any]:
    """Every resource of `platform`; the exported outputs."""
    regions = sorted(platform.regions, key=lambda region: not region.serves)
    first = _here(platform, regions[0])
    joined = GlobalDatabases(first).by_name
    primary_key: aws.kms.Key | None = None
    servers: dict[str, list[aws.rds.ClusterInstance]] = {}
    for region in regions:
        here = first if region.serves else _here(platform, region)
        keys = Keys(here, primary_key)
        primary_key = primary_key or keys.multi_region
        network = Network(here)
        groups = Groups(here, network)
        network.add_endpoints(groups.by["endpoint"])
        databases = Databases(
            here,
            network,
            groups.by["database"],
            keys.data,
            joined,
            {name: pulumi.Output.secret("x") for name in joined},
            after=servers,
        )
        servers = servers or databases.servers
        Tasks(here, network, groups, keys)
    return {"entryUrl": f"https://{platform.names.entry()}"}


def _here(platform: Platform, region: RegionSpec) -> Here:
    provider = aws.Provider(
        f"aws-{region.name}",
        region=region.name,
        default_tags=aws.ProviderDefaultTagsArgs(tags=platform.tags(region.name)),
    )
    caller = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=provider))
    return Here(platform, region, provider, Region(region.name), caller.account_id)
