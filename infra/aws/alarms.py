"""The alarms of a region: the platform's table of what is too much, for CloudWatch. Pure.

The table: error rate above 1 %, p99 above 500 ms, CPU above 80 % (critical), memory above 85 %,
database connections above 80 % of what a server takes. To it come what only AWS has: how far
another region is behind, and whether a region answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from infra.aws.aurora import max_connections
from infra.aws.naming import CACHE, QUEUE
from infra.aws.spec import Platform, RegionSpec

Severity = Literal["critical", "warning"]
ERROR_PERCENT, P99_SECONDS = 1.0, 0.5
CPU_PERCENT, MEMORY_PERCENT, CONNECTIONS_PERCENT = 80.0, 85.0, 80.0
# Of the objective of region-failure, an hour: this is when a person should begin to look.
LAG_MILLISECONDS = 60_000.0
MINUTE = 60
# Of requests that reach no gateway, in a minute.
LOST_REQUESTS = 10.0
# As ElastiCache numbers the two nodes of a group.
NODES = ("001", "002")


@dataclass(frozen=True)
class Alarm:
    """True for `periods` minutes in a row when `statistic` of `metric` is above `threshold`.

    `dimensions` that AWS makes up are named by what they are of: "@balancer", "@targets". `total`
    is a metric of the same place, of which `metric` then is taken in percent. `below`: true when it
    is below, and also when nothing is measured at all. `anywhere`: `dimensions` are only some of
    those that the metric has; the worst of all that match counts.
    """

    name: str
    severity: Severity
    says: str
    namespace: str
    metric: str
    statistic: str
    threshold: float
    dimensions: Mapping[str, str] = field(default_factory=dict)
    periods: int = 3
    total: str = ""
    below: bool = False
    anywhere: bool = False


def alarms(platform: Platform, region: RegionSpec) -> tuple[Alarm, ...]:
    return (
        *_entry(),
        *_tasks(platform, region),
        *_databases(platform, region),
        *_stores(platform, region),
    )


def _entry() -> tuple[Alarm, ...]:
    place = {"LoadBalancer": "@balancer", "TargetGroup": "@targets"}
    return (
        Alarm(
            "error-rate",
            "critical",
            f"More than {ERROR_PERCENT:g} % of the requests fail.",
            "AWS/ApplicationELB",
            "HTTPCode_Target_5XX_Count",
            "Sum",
            ERROR_PERCENT,
            place,
            total="RequestCount",
        ),
        Alarm(
            "p99",
            "warning",
            f"One of a hundred requests takes longer than {P99_SECONDS * 1000:g} ms.",
            "AWS/ApplicationELB",
            "TargetResponseTime",
            "p99",
            P99_SECONDS,
            place,
        ),
        Alarm(
            "unhealthy-gateways",
            "critical",
            "A gateway does not answer the load balancer.",
            "AWS/ApplicationELB",
            "UnHealthyHostCount",
            "Maximum",
            0.0,
            place,
        ),
        Alarm(
            "no-gateway",
            "critical",
            "No gateway answers the load balancer: the region serves nobody.",
            "AWS/ApplicationELB",
            "HealthyHostCount",
            "Minimum",
            1.0,
            place,
            periods=1,
            below=True,
        ),
        Alarm(
            "lost-requests",
            "critical",
            f"The load balancer answers more than {LOST_REQUESTS:g} requests a minute with an "
            "error of its own: no gateway takes them.",
            "AWS/ApplicationELB",
            "HTTPCode_ELB_5XX_Count",
            "Sum",
            LOST_REQUESTS,
            {"LoadBalancer": "@balancer"},
        ),
    )


def _tasks(platform: Platform, region: RegionSpec) -> list[Alarm]:
    found = []
    for task in region.tasks:
        place = {
            "ClusterName": platform.names.ecs_cluster(region.name),
            "ServiceName": platform.names.ecs_service(task.component),
        }
        for metric, severity, limit in (
            ("CPUUtilization", "critical", CPU_PERCENT),
            ("MemoryUtilization", "warning", MEMORY_PERCENT),
        ):
            what = metric.removesuffix("Utilization").lower()
            found.append(
                Alarm(
                    f"{task.component}-{what}",
                    "critical" if severity == "critical" else "warning",
                    f"The tasks of {task.component} use more than {limit:g} % of their {what}.",
                    "AWS/ECS",
                    metric,
                    "Average",
                    limit,
                    place,
                )
            )
    return found


def _databases(platform: Platform, region: RegionSpec) -> list[Alarm]:
    most = max_connections(platform.aws.database.instance_class)
    found = []
    for database in platform.databases_in(region.name):
        place = {"DBClusterIdentifier": platform.names.cluster(database, region.name)}
        found += [
            Alarm(
                f"{database}-connections",
                "critical",
                f"{database} has more than {CONNECTIONS_PERCENT:g} % of its {most} connections.",
                "AWS/RDS",
                "DatabaseConnections",
                "Maximum",
                most * CONNECTIONS_PERCENT / 100,
                place,
            ),
            Alarm(
                f"{database}-cpu",
                "critical",
                f"The servers of {database} use more than {CPU_PERCENT:g} % of their CPU.",
                "AWS/RDS",
                "CPUUtilization",
                "Maximum",
                CPU_PERCENT,
                place,
            ),
        ]
        if database in platform.databases and len(platform.regions) > 1:
            found.append(_lag(database, place))
    return found


def _lag(database: str, place: Mapping[str, str]) -> Alarm:
    """In every region, since any may become one that follows: measured is it only where it does.

    Its dimensions are the cluster and the region that it follows (SourceRegion; "Use Amazon
    CloudWatch to monitor for latency", AWS's Aurora labs), and that changes with each switchover.
    """
    return Alarm(
        f"{database}-lag",
        "critical",
        f"{database} is more than {LAG_MILLISECONDS / 1000:g} s behind its writer.",
        "AWS/RDS",
        "AuroraGlobalDBReplicationLag",
        "Maximum",
        LAG_MILLISECONDS,
        place,
        anywhere=True,
    )


def _stores(platform: Platform, region: RegionSpec) -> list[Alarm]:
    """Of each node by its own name: ElastiCache measures none of these of a whole group."""
    found = []
    for kind in (CACHE, QUEUE):
        group = platform.names.replication_group(kind, region.name)
        for node in NODES:
            place = {"CacheClusterId": f"{group}-{node}"}
            found.append(
                Alarm(
                    f"{kind}-{node}-cpu",
                    "critical",
                    f"Node {node} of the {kind} uses over {CPU_PERCENT:g} % of its one thread.",
                    "AWS/ElastiCache",
                    "EngineCPUUtilization",
                    "Maximum",
                    CPU_PERCENT,
                    place,
                )
            )
            if kind == QUEUE:
                found.append(
                    Alarm(
                        f"{kind}-{node}-memory",
                        "critical",
                        f"The queue is {MEMORY_PERCENT:g} % full; when it is full it takes no "
                        "events.",
                        "AWS/ElastiCache",
                        "DatabaseMemoryUsagePercentage",
                        "Maximum",
                        MEMORY_PERCENT,
                        place,
                    )
                )
    return found
