"""Failover of a global database: another region takes over at once, what it has not got is lost.

Asked of the region that takes over: the other one may be gone. When the lost region answers again,
Aurora makes its cluster a secondary by itself, after a snapshot of what only it had
("rds:unplanned-global-failover-CLUSTER-…").
"""

from __future__ import annotations

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.operate import handover
from infra.aws.site import Site
from runtime.errors import Refused


async def failover(
    site: Site,
    database: str,
    to: str,
    *,
    accept_data_loss: bool,
    seconds: float = handover.SECONDS,
) -> JSON:
    """Region `to` writes `database`: {"database", "region", "writer", "changed", "lossless",
    "lagSeconds"}.

    `lagSeconds` is how far behind it was when this began, None when CloudWatch did not know. Raises
    `Refused` without `accept_data_loss`, whatever the lag: nobody can know it for sure.
    """
    known = await databases.read(site, database, to)
    target = known.member(to)
    changed = not known.settled(target.arn)
    lag: float | None = None
    if changed and not handover.under_way(known, target, healthy=False):
        if not accept_data_loss:
            raise Refused(
                f"A failover of {database} to {to} loses what was not replicated, and nobody has "
                "agreed to that.",
                hint="add --accept-data-loss --reason …; without loss, when both regions are well: "
                "regionctl switchover run --to REGION",
                runbook="region-failure",
            )
        lag = (await databases.lags(site, [database], to)).get(database)
        await site.cloud.call(
            "rds",
            to,
            "failover_global_cluster",
            GlobalClusterIdentifier=known.id,
            TargetDbClusterIdentifier=target.arn,
            AllowDataLoss=True,
        )
    seen = await handover.settle(site, database, target, seconds=seconds)
    return {**seen, "changed": changed, "lossless": not changed, "lagSeconds": lag}
