"""Where money could be saved, seen in the graph of a plan and its estimate. Pure.

The ways are those of the design document: commitments, right-sizing, Graviton, lifecycles of what
is stored, endpoints instead of NAT, Aurora's I/O-optimised storage. A saving is only named in
dollars when the price file has both prices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infra.aws.cost import Estimate, spread
from infra.aws.prices import Prices
from infra.aws.validate_rules import BALANCER, CLUSTER, ECS, TARGET, TASK, Graph

JSON = Mapping[str, Any]
IO_SHARE = 0.25
"""From here on I/O-optimised storage is worth a look
(https://www.wring.co/blog/aws-aurora-pricing-guide, 2026-03-12)."""
LONG_LOGS_DAYS = 30
BUCKET = "aws:s3/bucket:Bucket"
LIFECYCLES = (
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
    "aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2",
)


@dataclass(frozen=True)
class Hint:
    """`monthly_usd` is what it would save; None when the prices do not tell."""

    name: str
    message: str
    monthly_usd: float | None = None

    def document(self) -> dict[str, Any]:
        given = asdict(self)
        return {
            "name": given["name"],
            "message": given["message"],
            "monthlyUsd": None if self.monthly_usd is None else round(self.monthly_usd, 2),
        }


@dataclass(frozen=True)
class Look:
    graph: Graph
    estimate: Estimate
    prices: Prices


def hints(resources: Sequence[JSON], estimate: Estimate, prices: Prices) -> tuple[Hint, ...]:
    """What is worth a look, in a fixed order."""
    look = Look(Graph(resources), estimate, prices)
    return tuple(hint for way in WAYS for hint in way(look))


def commitments(look: Look) -> Iterator[Hint]:
    """What runs all month anyway need not be paid by the hour."""
    fargate = sum(
        line.usd
        for line in look.estimate.lines
        if line.sku.startswith("fargate-") and line.basis == "declared"
    )
    if fargate:
        yield Hint(
            "compute-savings-plan",
            f"{fargate:,.2f} USD a month of Fargate run all the time at the least number of tasks: "
            "a Compute Savings Plan for that much never lies idle.",
        )
    steady = look.estimate.sku("aurora-instance/") + look.estimate.sku("aurora-iopt1-instance/")
    if steady:
        yield Hint(
            "reserved-databases",
            f"{steady:,.2f} USD a month of Aurora instances run all the time: reserve them, or "
            "commit to a Database Savings Plan; not both for the same instance.",
        )
    nodes = look.estimate.sku("valkey-node/")
    if nodes:
        yield Hint("reserved-nodes", f"{nodes:,.2f} USD a month of Valkey nodes can be reserved.")


def graviton(look: Look) -> Iterator[Hint]:
    """Fargate on ARM costs less for the same vCPU and memory."""
    saved, known = 0.0, True
    found = [line for line in look.estimate.lines if line.sku.startswith("fargate-x86-")]
    for line in found:
        tiers = look.prices.tiers(line.sku.replace("-x86-", "-arm-"), line.region)
        known = known and bool(tiers)
        saved += line.usd - sum(share.usd for share in spread(line.quantity, tiers))
    if found:
        message = "The tasks run on x86; the same image on ARM64 (Graviton) costs less."
        yield Hint("graviton", message, saved if known else None)
    instances = {
        str(each["inputs"].get("instanceClass"))
        for each in look.graph.of("aws:rds/clusterInstance:ClusterInstance")
    }
    old = sorted(name for name in instances if not _is_graviton(name))
    if old:
        yield Hint("graviton-databases", f"{', '.join(old)} is no Graviton class, such as db.r8g.")


def _is_graviton(name: str) -> bool:
    family = name.split(".")[1] if name.count(".") == 2 else name
    return "g" in family[1:] or family == "serverless"


def right_sizes(look: Look) -> Iterator[Hint]:
    """Where scaling has nowhere to go, or one size serves very different work."""
    stuck = sorted(
        str(each["inputs"].get("resourceId")).rpartition("/")[2]
        for each in look.graph.of(TARGET)
        if each["inputs"].get("minCapacity") == each["inputs"].get("maxCapacity")
    )
    if stuck:
        names = ", ".join(stuck)
        yield Hint("right-sizing", f"{names} cannot scale: least and most tasks are the same.")
    sizes = {
        (task["inputs"].get("cpu"), task["inputs"].get("memory"))
        for service in look.graph.of(ECS)
        for task in look.graph.needs(service, TASK, "taskDefinition")
    }
    services = len(look.graph.of(ECS))
    if services > 2 and len(sizes) < 4:
        yield Hint(
            "right-sizing",
            f"{services} services share {len(sizes)} sizes of tasks: after a month, size each by "
            "the CPU and memory that it used (Compute Optimizer).",
        )


def waiting_region(look: Look) -> Iterator[Hint]:
    """What the region that waits costs, which is the price of its recovery time."""
    writers = {
        each["region"]
        for each in look.graph.of(CLUSTER)
        if "masterUsername" in each["inputs"] and "globalClusterIdentifier" in each["inputs"]
    }
    waiting = {each["region"] for each in look.graph.of(BALANCER)} - writers
    usd = sum(line.usd for line in look.estimate.lines if line.region in waiting)
    if usd and writers:
        names = ", ".join(sorted(waiting))
        yield Hint(
            "waiting-region",
            f"{names} waits for {usd:,.2f} USD a month: fewer standby tasks or one reader a "
            "database there cost less, and make a failover slower.",
        )


def io_optimised(look: Look) -> Iterator[Hint]:
    """Aurora without a price for each I/O, when I/O is a large part of it."""
    ios = look.estimate.sku("aurora-io")
    instances = look.estimate.sku("aurora-instance/")
    if not instances:
        return
    share = ios / instances
    verdict = "is worth a look" if share >= IO_SHARE else "would cost more"
    yield Hint(
        "aurora-io-optimised",
        f"I/O is {share:.0%} of the instances' cost at the assumed use: I/O-optimised storage "
        f"{verdict} (the line is at {IO_SHARE:.0%}).",
    )


def endpoints(look: Look) -> Iterator[Hint]:
    """Traffic to AWS by NAT costs more than by an endpoint, and gateways to S3 cost nothing."""
    for vpc in look.graph.of("aws:ec2/vpc:Vpc"):
        here = [
            each
            for each in look.graph.of("aws:ec2/vpcEndpoint:VpcEndpoint")
            if vpc["urn"] in each["dependencies"]
        ]
        if not any(str(each["inputs"].get("serviceName", "")).endswith(".s3") for each in here):
            yield Hint(
                "s3-gateway", f"{vpc['region']}: what goes to S3 goes by NAT; a gateway is free."
            )
    nat = look.estimate.sku("nat-gateway")
    interfaces = look.estimate.sku("vpc-endpoint")
    if nat or interfaces:
        yield Hint(
            "nat-or-endpoints",
            f"NAT gateways cost {nat:,.2f} USD and interface endpoints {interfaces:,.2f} USD a "
            "month: an endpoint in a zone pays from what NAT would charge for its bytes.",
        )


def lifecycles(look: Look) -> Iterator[Hint]:
    """What is stored for ever is paid for ever."""
    kept = {
        urn
        for type in LIFECYCLES
        for each in look.graph.of(type)
        for urn in [
            *each["propertyDependencies"].get("bucket", ()),
            str(each["inputs"].get("bucket")),
        ]
    }
    bare = sorted(
        str(bucket["inputs"].get("bucket"))
        for bucket in look.graph.of(BUCKET)
        if not kept & {bucket["urn"], str(bucket["inputs"].get("bucket"))}
    )
    if bare:
        yield Hint("s3-lifecycle", f"No lifecycle moves or ends old objects of {', '.join(bare)}.")
    logs = look.estimate.sku("logs-ingestion")
    long = sum(
        1
        for group in look.graph.of("aws:cloudwatch/logGroup:LogGroup")
        if (group["inputs"].get("retentionInDays") or 3650) > LONG_LOGS_DAYS
    )
    if logs and long:
        yield Hint(
            "logs",
            f"{logs:,.2f} USD a month to take logs in, {long} groups kept beyond {LONG_LOGS_DAYS} "
            "days: log less of what succeeds, and keep the rest in S3.",
        )


WAYS: Sequence[Callable[[Look], Iterator[Hint]]] = (
    commitments,
    graviton,
    right_sizes,
    waiting_region,
    io_optimised,
    endpoints,
    lifecycles,
)
