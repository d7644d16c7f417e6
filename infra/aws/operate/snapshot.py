"""A snapshot of a database, and a copy of it in another region."""

from __future__ import annotations

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import NotFound, OperationFailed

SECONDS = 4 * 3600.0
KEY = "data"


async def snapshot(
    site: Site, database: str, region: str, *, id: str, seconds: float = SECONDS
) -> JSON:
    """The snapshot `id` of the cluster of `region`: {"id", "arn", "region", "changed"}."""
    known = await find(site, region, id)
    if known is None:
        await site.cloud.call(
            "rds",
            region,
            "create_db_cluster_snapshot",
            DBClusterSnapshotIdentifier=id,
            DBClusterIdentifier=site.names.cluster(database, region),
            Tags=[{"Key": "regionctl", "Value": database}],
        )
    made = await _await(site, region, id, seconds)
    return {
        "id": id,
        "arn": made["DBClusterSnapshotArn"],
        "region": region,
        "changed": known is None,
    }


async def copy(site: Site, arn: str, to: str, *, id: str, seconds: float = SECONDS) -> JSON:
    """The snapshot `arn` of another region, encrypted by a key of `to`, as `id` there."""
    known = await find(site, to, id)
    if known is None:
        await site.cloud.call(
            "rds",
            to,
            "copy_db_cluster_snapshot",
            SourceDBClusterSnapshotIdentifier=arn,
            TargetDBClusterSnapshotIdentifier=id,
            SourceRegion=site.cluster_region(arn),
            KmsKeyId=site.names.key_alias(KEY),
            CopyTags=True,
        )
    made = await _await(site, to, id, seconds)
    return {"id": id, "arn": made["DBClusterSnapshotArn"], "region": to, "changed": known is None}


async def find(site: Site, region: str, id: str) -> JSON | None:
    try:
        answer = await site.cloud.call(
            "rds", region, "describe_db_cluster_snapshots", DBClusterSnapshotIdentifier=id
        )
    except NotFound:
        return None
    found: list[JSON] = answer["DBClusterSnapshots"]
    return found[0] if found else None


async def _await(site: Site, region: str, id: str, seconds: float) -> JSON:
    async def whole() -> JSON | None:
        found = await find(site, region, id)
        if found and found["Status"] in ("failed", "incompatible-restore"):
            raise OperationFailed(
                f"The snapshot {id} of {region} is {found['Status']}.",
                hint=f"aws rds describe-db-cluster-snapshots --region {region}",
            )
        return found if found and found["Status"] == databases.AVAILABLE else None

    return await wait_until(
        site.cloud.clock,
        whole,
        what=f"the snapshot {id}",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"It goes on: aws rds describe-db-cluster-snapshots --region {region}",
    )
