"""Cache and queue: replication groups of ElastiCache, a node a zone."""

from __future__ import annotations

from collections.abc import Sequence

from infra.aws.clients import JSON
from infra.aws.site import Site
from infra.provider import InstanceView, ValkeyView
from infra.topology import InstanceSpec
from runtime.errors import NotFound


async def group(site: Site, region: str, kind: str) -> JSON:
    """The replication group of `kind` ("cache", "queue"). Raises `NotFound`, `Unavailable`."""
    answer = await site.cloud.call(
        "elasticache",
        region,
        "describe_replication_groups",
        ReplicationGroupId=site.names.replication_group(kind, region),
    )
    found: JSON = answer["ReplicationGroups"][0]
    return found


def node(document: JSON, zone: str) -> JSON | None:
    """The node of a replication group that stands in `zone` ("us-east-1a")."""
    for each in document["NodeGroups"][0]["NodeGroupMembers"]:
        if each.get("PreferredAvailabilityZone") == zone:
            found: JSON = each
            return found
    return None


async def views(site: Site, region: str, specs: Sequence[InstanceSpec]) -> list[InstanceView]:
    """Raises `Unavailable`."""
    groups: dict[str, JSON | None] = {}
    for kind in sorted({spec.component for spec in specs}):
        try:
            groups[kind] = await group(site, region, kind)
        except NotFound:
            groups[kind] = None
    return [_view(spec, specs, groups[spec.component]) for spec in specs]


def _view(spec: InstanceSpec, specs: Sequence[InstanceSpec], document: JSON | None) -> InstanceView:
    here = node(document, f"{spec.region}{spec.zone}") if document else None
    if document is None or here is None:
        return InstanceView(spec.id, "absent")
    state = (
        "running" if document["Status"] in ("available", "modifying", "snapshotting") else "failed"
    )
    endpoint = here.get("ReadEndpoint") or {}
    address = f"{endpoint['Address']}:{endpoint['Port']}" if endpoint else None
    if here.get("CurrentRole") == "primary":
        valkey = ValkeyView("primary")
    else:
        upstream = [
            each.id
            for each in specs
            if each.component == spec.component
            and (node(document, f"{each.region}{each.zone}") or {}).get("CurrentRole") == "primary"
        ]
        valkey = ValkeyView("replica", upstream[0] if upstream else None)
    return InstanceView(spec.id, state, address=address, valkey=valkey)  # type: ignore[arg-type]
