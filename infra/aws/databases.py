"""Global databases as AWS says that they are: which region writes, which server, how far behind.

A global database has one cluster a region and one writer; a cluster's servers share one volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from infra.aws.clients import JSON
from infra.aws.site import Site
from runtime.errors import NotFound, Unavailable

AVAILABLE = "available"
UNDER_WAY = ("pending", "failing-over")
LAG_WINDOW = timedelta(minutes=5)
LAG_PERIOD_SECONDS = 60


@dataclass(frozen=True)
class Member:
    """`connected`: it replicates from the writer; None: AWS does not say."""

    region: str
    arn: str
    writer: bool
    connected: bool | None


@dataclass(frozen=True)
class Global:
    """`heading` is the ARN of the cluster that is just being made the writer."""

    id: str
    status: str
    members: tuple[Member, ...]
    heading: str | None = None

    @property
    def writer(self) -> Member:
        """Raises `Unavailable` when AWS names none, as for moments of a failover."""
        for member in self.members:
            if member.writer:
                return member
        raise Unavailable(f"{self.id} has no writer at this moment.", hint="Try again.")

    def member(self, region: str) -> Member:
        """Raises `NotFound`."""
        for member in self.members:
            if member.region == region:
                return member
        known = ", ".join(member.region for member in self.members)
        raise NotFound(
            f"The global database {self.id} has no cluster in {region}.",
            hint=f"It is in {known}; regionctl infra plan shows what should exist.",
        )

    def settled(self, writer: str) -> bool:
        """Whether the cluster of that ARN is the writer and nothing is under way any more."""
        return (
            self.status == AVAILABLE
            and self.heading is None
            and any(member.writer and member.arn == writer for member in self.members)
        )


async def read(site: Site, database: str, ask: str) -> Global:
    """The global database of `database`, as the API of region `ask` says it.

    Another region says it when that one does not answer. Raises `NotFound`, `Unavailable`.
    """
    identifier = site.names.global_cluster(database)
    silent: Unavailable | None = None
    for region in (ask, *(name for name in site.regions if name != ask)):
        try:
            answer = await site.cloud.call(
                "rds", region, "describe_global_clusters", GlobalClusterIdentifier=identifier
            )
            return parse(site, answer["GlobalClusters"][0])
        except Unavailable as error:
            silent = error
    raise silent or Unavailable(f"No region can be asked about {identifier}.")


def parse(site: Site, document: JSON) -> Global:
    members = tuple(
        Member(
            site.cluster_region(each["DBClusterArn"]),
            each["DBClusterArn"],
            each["IsWriter"],
            _connected(each),
        )
        for each in document.get("GlobalClusterMembers", [])
    )
    state = document.get("FailoverState") or {}
    return Global(
        document["GlobalClusterIdentifier"],
        document["Status"],
        members,
        state.get("ToDbClusterArn") if state.get("Status") in UNDER_WAY else None,
    )


def _connected(member: JSON) -> bool | None:
    status = member.get("SynchronizationStatus")
    return None if status is None else status == "connected"


async def cluster(site: Site, database: str, region: str) -> JSON:
    """The DBCluster. Raises `NotFound`, `Unavailable`."""
    identifier = site.names.cluster(database, region)
    answer = await site.cloud.call(
        "rds", region, "describe_db_clusters", DBClusterIdentifier=identifier
    )
    found: JSON = answer["DBClusters"][0]
    return found


def writer_of(document: JSON) -> str | None:
    """The server that a DBCluster names as its writer. Of a secondary cluster it writes nothing."""
    for member in document.get("DBClusterMembers", []):
        if member["IsClusterWriter"]:
            return str(member["DBInstanceIdentifier"])
    return None


async def lags(site: Site, databases: Sequence[str], region: str) -> dict[str, float]:
    """database → by how many seconds its secondary cluster in `region` is behind.

    The worst of the newest minute in which CloudWatch has a value (AuroraGlobalDBReplicationLag,
    milliseconds); a database without one in the last five minutes is missing. The metric is asked
    for by the cluster alone and with the region that it comes from (SourceRegion), as AWS has
    published it both ways; the worse counts.
    """
    now = site.cloud.clock.now()
    sources = [None, *(name for name in site.regions if name != region)]
    asked: list[Any] = [
        {
            "Id": f"q{number}x{way}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/RDS",
                    "MetricName": "AuroraGlobalDBReplicationLag",
                    "Dimensions": [
                        {
                            "Name": "DBClusterIdentifier",
                            "Value": site.names.cluster(database, region),
                        },
                        *([{"Name": "SourceRegion", "Value": source}] if source else []),
                    ],
                },
                "Period": LAG_PERIOD_SECONDS,
                "Stat": "Maximum",
            },
        }
        for number, database in enumerate(databases)
        for way, source in enumerate(sources)
    ]
    answer = await site.cloud.call(
        "cloudwatch",
        region,
        "get_metric_data",
        MetricDataQueries=asked,
        StartTime=now - LAG_WINDOW,
        EndTime=now + timedelta(seconds=LAG_PERIOD_SECONDS),
        ScanBy="TimestampDescending",
    )
    found = {result["Id"]: result["Values"] for result in answer["MetricDataResults"]}
    lags: dict[str, float] = {}
    for number, database in enumerate(databases):
        seen = [found.get(f"q{number}x{way}") for way in range(len(sources))]
        if values := [each[0] / 1000 for each in seen if each]:
            lags[database] = max(values)
    return lags
