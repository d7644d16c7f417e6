"""A server becomes the writer: within its region, or its whole region takes over.

Within a region all servers share one volume, which takes writes of one of them only: the change is
Aurora's own failover and loses nothing that was acknowledged.
"""

from __future__ import annotations

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.operate.failover import failover
from infra.aws.operate.switchover import switchover
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import Refused, Unavailable

SECONDS = 600.0


async def promote(
    site: Site, instance: str, *, accept_data_loss: bool = False, seconds: float = SECONDS
) -> JSON:
    """`instance` writes: {"database", "region", "writer", "changed", "lossless"}.

    From another region: by a switchover, or, with `accept_data_loss`, by a failover.
    """
    spec = site.spec(instance, "postgres")
    known = await databases.read(site, spec.component, spec.region)
    moved: JSON = {"changed": False, "lossless": True}
    if not known.settled(known.member(spec.region).arn):
        if accept_data_loss:
            moved = await failover(site, spec.component, spec.region, accept_data_loss=True)
        else:
            moved = await switchover(site, spec.component, spec.region)
    within = await _within(site, instance, seconds)
    return {
        **moved,
        "database": spec.component,
        "region": spec.region,
        "writer": instance,
        "changed": moved["changed"] or within,
    }


async def _within(site: Site, instance: str, seconds: float) -> bool:
    """`instance` is the writer of its cluster; whether that had to be changed."""
    spec = site.spec(instance, "postgres")
    target = site.server(spec)
    document = await databases.cluster(site, spec.component, spec.region)
    if databases.writer_of(document) == target:
        return False
    await _check(site, instance, target, document)
    await site.cloud.call(
        "rds",
        spec.region,
        "failover_db_cluster",
        DBClusterIdentifier=document["DBClusterIdentifier"],
        TargetDBInstanceIdentifier=target,
    )

    async def writes() -> bool:
        try:
            now = await databases.cluster(site, spec.component, spec.region)
        except Unavailable:
            return False
        return now["Status"] == databases.AVAILABLE and databases.writer_of(now) == target

    await wait_until(
        site.cloud.clock,
        writes,
        what=f"{target} to be the writer",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"It goes on: aws rds describe-db-clusters --region {spec.region}",
    )
    return True


async def _check(site: Site, instance: str, target: str, document: JSON) -> None:
    """Raises `NotFound` or `Refused` for a server that cannot take over."""
    region = site.spec(instance, "postgres").region
    answer = await site.cloud.call(
        "rds", region, "describe_db_instances", DBInstanceIdentifier=target
    )
    state = answer["DBInstances"][0]["DBInstanceStatus"]
    members = {member["DBInstanceIdentifier"] for member in document["DBClusterMembers"]}
    if target not in members or state != databases.AVAILABLE:
        raise Refused(
            f"{target} cannot take over: it is {state}"
            f"{'' if target in members else ' and not a member of its cluster'}.",
            hint=f"aws rds describe-db-instances --db-instance-identifier {target}",
            runbook="database-failure",
        )
