"""Switchover of a global database: a planned change of region, which loses nothing.

Aurora stops the writes, waits until every secondary has all of them, and only then changes roles.
So this works on a healthy global database only; a lost region needs a failover.
"""

from __future__ import annotations

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.operate import handover
from infra.aws.site import Site
from runtime.errors import Refused


async def switchover(
    site: Site, database: str, to: str, *, seconds: float = handover.SECONDS
) -> JSON:
    """Region `to` writes `database`: {"database", "region", "writer", "changed", "lossless"}.

    Asked of the region that writes, which must be well for this. Raises `Refused` when a secondary
    is not connected or something else is being done; nothing was changed then.
    """
    known = await databases.read(site, database, to)
    target = known.member(to)
    changed = not known.settled(target.arn)
    if changed and not handover.under_way(known, target, healthy=True):
        apart = [each.region for each in known.members if each.connected is False]
        if apart:
            raise Refused(
                f"{known.id} does not replicate to or from {', '.join(apart)}: a switchover would "
                "wait for it for ever.",
                hint="When its region is lost: regionctl failover plan REGION",
                runbook="region-failure",
            )
        await site.cloud.call(
            "rds",
            known.writer.region,
            "switchover_global_cluster",
            GlobalClusterIdentifier=known.id,
            TargetDbClusterIdentifier=target.arn,
        )
    seen = await handover.settle(site, database, target, seconds=seconds)
    return {**seen, "changed": changed, "lossless": True}
