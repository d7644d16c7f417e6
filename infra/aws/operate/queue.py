"""The other node of a queue takes its writes.

While its failover is automatic, ElastiCache names no new primary on request; `TestFailover` makes
it choose one, which of two nodes is the other. AWS allows that some times a day.
"""

from __future__ import annotations

from infra.aws import stores
from infra.aws.clients import JSON
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import NotFound, Refused

SECONDS = 900.0


async def promote_queue(site: Site, instance: str, *, seconds: float = SECONDS) -> JSON:
    """`instance` is the primary: {"instance", "changed"}. Raises `Refused` in mid-change."""
    spec = site.spec(instance, "valkey")
    zone = f"{spec.region}{spec.zone}"
    document = await stores.group(site, spec.region, spec.component)
    here = stores.node(document, zone)
    if here is None:
        raise NotFound(f"{instance} has no node in {zone}.", hint="regionctl infra plan")
    if here["CurrentRole"] == "primary":
        return {"instance": instance, "changed": False}
    if document["Status"] != "available":
        raise Refused(
            f"{document['ReplicationGroupId']} is {document['Status']}, not available.",
            hint="Wait, then try again: regionctl status",
        )
    await site.cloud.call(
        "elasticache",
        spec.region,
        "test_failover",
        ReplicationGroupId=document["ReplicationGroupId"],
        NodeGroupId=document["NodeGroups"][0]["NodeGroupId"],
    )

    async def leads() -> bool:
        now = await stores.group(site, spec.region, spec.component)
        node = stores.node(now, zone)
        return now["Status"] == "available" and bool(node and node["CurrentRole"] == "primary")

    await wait_until(
        site.cloud.clock,
        leads,
        what=f"{instance} to be the primary",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"aws elasticache describe-replication-groups --region {spec.region}",
    )
    return {"instance": instance, "changed": True}
