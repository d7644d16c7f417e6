"""A database as it was at some moment, as a cluster of its own beside the platform.

Aurora restores into a new cluster only, never in place. The new one is no part of the global
database, and nothing of the platform knows its address.
"""

from __future__ import annotations

from datetime import datetime

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import NotFound, Refused

SECONDS = 4 * 3600.0
# What a cluster that a restore has made is known by; nothing else is ever discarded.
TAG = "regionctl-restored"


async def restore(
    site: Site,
    database: str,
    region: str,
    *,
    id: str,
    at: datetime | None = None,
    seconds: float = SECONDS,
) -> JSON:
    """`database` as it was `at` (None: as late as AWS has it) in the cluster `id` of `region`:
    {"cluster", "address", "port", "at", "changed"}.

    Raises `Refused` for a moment outside of what AWS kept; nothing was made then.
    """
    source = await databases.cluster(site, database, region)
    check(source, at)
    known = await find(site, region, id)
    if known is None:
        await _begin(site, source, database, region, id, at)

    async def whole() -> JSON | None:
        now = await find(site, region, id)
        return now if now and now["Status"] == databases.AVAILABLE else None

    made = await wait_until(
        site.cloud.clock,
        whole,
        what=f"the restored cluster {id}",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"It goes on: aws rds describe-db-clusters --db-cluster-identifier {id}",
    )
    await _server(site, region, made, seconds)
    return {
        "cluster": id,
        "address": made["Endpoint"],
        "port": made["Port"],
        "at": (at or source["LatestRestorableTime"]).isoformat(),
        "changed": known is None,
    }


def check(source: JSON, at: datetime | None) -> None:
    """Raises `Refused` unless Aurora has kept the moment `at` of this cluster."""
    earliest, latest = source.get("EarliestRestorableTime"), source.get("LatestRestorableTime")
    if earliest is None or latest is None:
        raise Refused(
            f"{source['DBClusterIdentifier']} keeps no continuous backup.",
            hint="aws.database.backupDays in the topology",
        )
    if at is not None and not earliest <= at <= latest:
        raise Refused(
            f"{source['DBClusterIdentifier']} can be restored to {earliest.isoformat()} up to "
            f"{latest.isoformat()}, not to {at.isoformat()}.",
            hint="give a time in between",
            runbook="data-corruption",
        )


async def find(site: Site, region: str, id: str) -> JSON | None:
    """The cluster of that name."""
    try:
        answer = await site.cloud.call(
            "rds", region, "describe_db_clusters", DBClusterIdentifier=id
        )
    except NotFound:
        return None
    found: JSON = answer["DBClusters"][0]
    return found


async def _begin(
    site: Site, source: JSON, database: str, region: str, id: str, at: datetime | None
) -> None:
    groups = [each["VpcSecurityGroupId"] for each in source.get("VpcSecurityGroups", [])]
    await site.cloud.call(
        "rds",
        region,
        "restore_db_cluster_to_point_in_time",
        DBClusterIdentifier=id,
        SourceDBClusterIdentifier=source["DBClusterIdentifier"],
        **({"RestoreToTime": at} if at else {"UseLatestRestorableTime": True}),
        **({"DBSubnetGroupName": source["DBSubnetGroup"]} if source.get("DBSubnetGroup") else {}),
        **({"VpcSecurityGroupIds": groups} if groups else {}),
        DeletionProtection=False,
        Tags=[{"Key": TAG, "Value": database}],
    )


async def _server(site: Site, region: str, made: JSON, seconds: float) -> None:
    """A restored cluster has no server until one is made, which it must be available for; and it
    serves when that one is."""
    id, aws = made["DBClusterIdentifier"], site.topology.aws
    if aws is None:
        return
    name = f"{id}-1"
    if not made.get("DBClusterMembers"):
        await site.cloud.call(
            "rds",
            region,
            "create_db_instance",
            DBInstanceIdentifier=name,
            DBClusterIdentifier=id,
            DBInstanceClass=aws.database.instance_class,
            Engine=made["Engine"],
            PubliclyAccessible=False,
        )

    async def serves() -> bool:
        try:
            answer = await site.cloud.call(
                "rds", region, "describe_db_instances", DBInstanceIdentifier=name
            )
        except NotFound:
            return False
        return bool(answer["DBInstances"][0]["DBInstanceStatus"] == databases.AVAILABLE)

    await wait_until(
        site.cloud.clock,
        serves,
        what=f"the server {name} of the restored cluster",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"It goes on: aws rds describe-db-instances --db-instance-identifier {name}",
    )


async def discard(site: Site, region: str, id: str) -> bool:
    """The restored cluster `id` and its servers are gone; whether there was one.

    Raises `Refused` for a cluster that no restore has made.
    """
    known = await find(site, region, id)
    if known is None:
        return False
    if TAG not in {each["Key"] for each in known.get("TagList", [])}:
        raise Refused(f"{id} was not made by a restore: it stays.", hint="regionctl backup list")
    for member in known.get("DBClusterMembers", []):
        await site.cloud.call(
            "rds",
            region,
            "delete_db_instance",
            DBInstanceIdentifier=member["DBInstanceIdentifier"],
            SkipFinalSnapshot=True,
        )
    await site.cloud.call(
        "rds",
        region,
        "delete_db_cluster",
        DBClusterIdentifier=id,
        SkipFinalSnapshot=True,
    )
    return True
