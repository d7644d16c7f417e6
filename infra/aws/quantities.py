"""How much of what a plan buys in a month. Pure: the graph in, quantities out, no prices.

Each quantity names the resource that causes it, what is bought (a sku of the price file) and why
the number is what it is: declared in the plan, or following from assumed use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.aws.usage import HOURS, Usage
from infra.aws.validate_rules import (
    BALANCER,
    CLUSTER,
    ECS,
    GLOBAL,
    GROUP,
    INSTANCE,
    TASK,
    Graph,
)

JSON = Mapping[str, Any]
Group = Literal["compute", "database", "transfer", "storage", "other"]
Basis = Literal["declared", "usage"]
GROUPS: tuple[Group, ...] = ("compute", "database", "transfer", "storage", "other")
"""In the order of the design document's breakdown."""

MIB = 1024.0
LCU_GIGABYTES_PER_HOUR = 1.0


@dataclass(frozen=True)
class Quantity:
    """`amount` of `unit`s of `sku` a month, caused by the resource `urn`."""

    urn: str
    region: str
    group: Group
    sku: str
    unit: str
    amount: float
    basis: Basis


Line = tuple[Group, str, str, float, Basis]
Counter = Callable[[JSON, Graph, Usage], Iterator[Line]]


def quantities(resources: list[JSON], usage: Usage) -> tuple[Quantity, ...]:
    """Everything that the plan buys, in the order of its resources."""
    graph = Graph(resources)
    found = []
    for resource in resources:
        counter = COUNTERS.get(resource["type"])
        for group, sku, unit, amount, basis in counter(resource, graph, usage) if counter else ():
            if amount > 0:
                urn, region = resource["urn"], resource["region"]
                found.append(Quantity(urn, region, group, sku, unit, amount, basis))
    return tuple(found)


def uncounted(resources: list[JSON]) -> list[str]:
    """Types of AWS resources that nothing here counts, and that are not known to be free."""
    return sorted(
        {
            resource["type"]
            for resource in resources
            if resource["type"].startswith("aws:")
            and resource["type"] not in COUNTERS
            and resource["type"] not in FREE
            and resource["type"].split(":")[1].split("/")[0] not in FREE_SERVICES
        }
    )


def _service(resource: JSON, graph: Graph, _: Usage) -> Iterator[Line]:
    tasks = graph.needs(resource, TASK, "taskDefinition")
    count = _number(resource["inputs"].get("desiredCount"), 1)
    for task in tasks[:1]:
        yield from _fargate(task["inputs"], count)


def _fargate(inputs: JSON, count: float) -> Iterator[Line]:
    platform = inputs.get("runtimePlatform") or {}
    kind = "arm" if platform.get("cpuArchitecture") == "ARM64" else "x86"
    vcpu = _number(inputs.get("cpu"), 0) / MIB * count * HOURS
    memory = _number(inputs.get("memory"), 0) / MIB * count * HOURS
    yield "compute", f"fargate-{kind}-vcpu", "vCPU-hour", vcpu, "declared"
    yield "compute", f"fargate-{kind}-memory", "GB-hour", memory, "declared"


def _balancer(resource: JSON, graph: Graph, usage: Usage) -> Iterator[Line]:
    yield "compute", "alb", "hour", HOURS, "declared"
    if resource["inputs"].get("internal") is not True:
        zones = len(resource["inputs"].get("subnets") or ())
        yield "transfer", "public-ipv4", "hour", zones * HOURS, "declared"
    if _serves(resource, graph):
        gigabytes = _gigabytes(usage.requests * usage.uncached_share, usage.response_kilobytes)
        yield "compute", "alb-lcu", "LCU-hour", gigabytes / LCU_GIGABYTES_PER_HOUR, "usage"


def _instance(resource: JSON, graph: Graph, _: Usage) -> Iterator[Line]:
    name = resource["inputs"].get("instanceClass")
    clusters = graph.needs(resource, CLUSTER, "clusterIdentifier")
    optimised = any(each["inputs"].get("storageType") == "aurora-iopt1" for each in clusters)
    sku = f"aurora-iopt1-instance/{name}" if optimised else f"aurora-instance/{name}"
    yield "database", sku, "hour", HOURS, "declared"


def _cluster(resource: JSON, graph: Graph, usage: Usage) -> Iterator[Line]:
    """A cluster of a global database stores the whole database again in its own region."""
    families = len(graph.of(GLOBAL)) or 1
    optimised = resource["inputs"].get("storageType") == "aurora-iopt1"
    sku = "aurora-iopt1-storage" if optimised else "aurora-storage"
    if "globalClusterIdentifier" not in resource["inputs"]:
        yield "storage", sku, "GB-month", usage.control_gigabytes, "usage"
        return
    yield "storage", sku, "GB-month", usage.database_gigabytes, "usage"
    yield "storage", "aurora-backup", "GB-month", usage.backup_gigabytes, "usage"
    if "masterUsername" in resource["inputs"]:
        if not optimised:
            ios = usage.requests * usage.database_ios_per_request / families
            yield "database", "aurora-io", "million", ios, "usage"
    else:
        yield "database", "aurora-replicated-write", "million", usage.writes / families, "usage"
        moved = _gigabytes(usage.writes, usage.written_kilobytes) / families
        yield "transfer", "transfer-between-regions", "GB", moved, "usage"


def _replication_group(resource: JSON, _: Graph, __: Usage) -> Iterator[Line]:
    inputs = resource["inputs"]
    shards = _number(inputs.get("numNodeGroups"), 1)
    nodes = inputs.get("numCacheClusters")
    count = (
        _number(nodes, 1)
        if nodes
        else shards * (1 + _number(inputs.get("replicasPerNodeGroup"), 0))
    )
    engine = inputs.get("engine") or "redis"
    sku = f"{engine}-node/{inputs.get('nodeType')}"
    yield "database", sku, "hour", count * HOURS, "declared"


def _nat(resource: JSON, graph: Graph, usage: Usage) -> Iterator[Line]:
    yield "transfer", "nat-gateway", "hour", HOURS, "declared"
    here = [each for each in graph.of(resource["type"]) if each["region"] == resource["region"]]
    if _serves(resource, graph):
        outside = _gigabytes(usage.writes, usage.outside_kilobytes_per_write)
        yield "transfer", "nat-gateway-data", "GB", outside / len(here), "usage"


def _address(_: JSON, __: Graph, ___: Usage) -> Iterator[Line]:
    yield "transfer", "public-ipv4", "hour", HOURS, "declared"


def _endpoint(resource: JSON, graph: Graph, usage: Usage) -> Iterator[Line]:
    inputs = resource["inputs"]
    if inputs.get("vpcEndpointType") != "Interface":
        return  # gateways to S3 and DynamoDB cost nothing
    zones = len(inputs.get("subnetIds") or ()) or 1
    yield "transfer", "vpc-endpoint", "hour", zones * HOURS, "declared"
    if str(inputs.get("serviceName", "")).endswith(".logs") and _serves(resource, graph):
        yield "transfer", "vpc-endpoint-data", "GB", _log_gigabytes(usage), "usage"


def _distribution(_: JSON, __: Graph, usage: Usage) -> Iterator[Line]:
    gigabytes = _gigabytes(usage.requests, usage.response_kilobytes)
    yield "transfer", "cloudfront-data", "GB", gigabytes, "usage"
    yield "transfer", "cloudfront-requests", "million", usage.requests, "usage"


def _web_acl(resource: JSON, _: Graph, usage: Usage) -> Iterator[Line]:
    rules = len(resource["inputs"].get("rules") or ())
    yield "other", "waf-acl", "month", 1, "declared"
    yield "other", "waf-rule", "month", rules, "declared"
    if resource["inputs"].get("scope") == "CLOUDFRONT":
        yield "other", "waf-requests", "million", usage.requests, "usage"


def _bucket(resource: JSON, graph: Graph, usage: Usage) -> Iterator[Line]:
    share = len(graph.of(resource["type"]))
    yield "storage", "s3-storage", "GB-month", usage.object_gigabytes / share, "usage"


def _log_group(resource: JSON, graph: Graph, usage: Usage) -> Iterator[Line]:
    here = [
        each
        for each in graph.of(resource["type"])
        if each["region"] == resource["region"] and _serves(each, graph)
    ]
    if resource not in here:
        return
    gigabytes = _log_gigabytes(usage) / len(here)
    months = _number(resource["inputs"].get("retentionInDays"), 3650) / 30
    yield "other", "logs-ingestion", "GB", gigabytes, "usage"
    yield "storage", "logs-storage", "GB-month", gigabytes * months, "usage"


def _repository(_: JSON, __: Graph, usage: Usage) -> Iterator[Line]:
    yield "storage", "ecr-storage", "GB-month", usage.image_gigabytes, "usage"


def _secret(resource: JSON, _: Graph, __: Usage) -> Iterator[Line]:
    copies = len(resource["inputs"].get("replicas") or ())
    yield "other", "secret", "month", 1 + copies, "declared"


def _health_check(resource: JSON, _: Graph, __: Usage) -> Iterator[Line]:
    fast = resource["inputs"].get("requestInterval") == 10
    kind = str(resource["inputs"].get("type", "")).lower() or "unknown"
    sku = f"route53-health-check/{kind}{'-fast' if fast else ''}"
    yield "other", sku, "month", 1, "declared"


def _metric_alarm(resource: JSON, _: Graph, __: Usage) -> Iterator[Line]:
    """Each metric that an alarm reads is paid for; one of metric maths reads several."""
    queries = resource["inputs"].get("metricQueries") or ()
    metrics = sum(1 for query in queries if query.get("metric")) or 1
    yield "other", "alarm", "month", metrics, "declared"


def _monthly(group: Group, sku: str) -> Counter:
    def count(_: JSON, __: Graph, ___: Usage) -> Iterator[Line]:
        yield group, sku, "month", 1, "declared"

    return count


def _serves(resource: JSON, graph: Graph) -> bool:
    """Whether the resource stands where the writers of the global databases are."""
    regions = {
        each["region"]
        for each in graph.of(CLUSTER)
        if "masterUsername" in each["inputs"] and "globalClusterIdentifier" in each["inputs"]
    }
    return not regions or resource["region"] in regions


def _gigabytes(millions: float, kilobytes: float) -> float:
    return millions * kilobytes


def _log_gigabytes(usage: Usage) -> float:
    return usage.requests * usage.log_bytes_per_request / 1000


def _number(value: Any, default: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


COUNTERS: Mapping[str, Counter] = {
    ECS: _service,
    BALANCER: _balancer,
    INSTANCE: _instance,
    CLUSTER: _cluster,
    GROUP: _replication_group,
    "aws:ec2/natGateway:NatGateway": _nat,
    "aws:ec2/eip:Eip": _address,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:cloudfront/distribution:Distribution": _distribution,
    "aws:wafv2/webAcl:WebAcl": _web_acl,
    "aws:s3/bucket:Bucket": _bucket,
    "aws:cloudwatch/logGroup:LogGroup": _log_group,
    "aws:ecr/repository:Repository": _repository,
    "aws:secretsmanager/secret:Secret": _secret,
    "aws:route53/healthCheck:HealthCheck": _health_check,
    "aws:cloudwatch/metricAlarm:MetricAlarm": _metric_alarm,
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": _monthly("other", "composite-alarm"),
    "aws:cloudwatch/dashboard:Dashboard": _monthly("other", "dashboard"),
    "aws:kms/key:Key": _monthly("other", "kms-key"),
    "aws:kms/replicaKey:ReplicaKey": _monthly("other", "kms-key"),
    "aws:route53/zone:Zone": _monthly("other", "route53-zone"),
    "aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace": _monthly(
        "other", "route53-zone"
    ),
    "aws:amp/workspace:Workspace": _monthly("other", "managed-prometheus"),
    "aws:grafana/workspace:Workspace": _monthly("other", "managed-grafana"),
    "aws:backup/restoreTestingPlan:RestoreTestingPlan": _monthly("other", "restore-testing"),
    "aws:ec2/flowLog:FlowLog": _monthly("other", "flow-log"),
    "aws:globalaccelerator/accelerator:Accelerator": _monthly("transfer", "global-accelerator"),
}

FREE_SERVICES = frozenset({"iam", "appautoscaling", "backup"})
"""Backups are counted where their databases are."""
FREE = frozenset(
    f"aws:{kind}"
    for kind in (
        "acm/certificate:Certificate",
        "cloudfront/cachePolicy:CachePolicy",
        "cloudfront/responseHeadersPolicy:ResponseHeadersPolicy",
        "acm/certificateValidation:CertificateValidation",
        "ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "ec2/internetGateway:InternetGateway",
        "ec2/route:Route",
        "ec2/routeTable:RouteTable",
        "ec2/routeTableAssociation:RouteTableAssociation",
        "ec2/securityGroup:SecurityGroup",
        "ec2/subnet:Subnet",
        "ec2/vpc:Vpc",
        "ecr/lifecyclePolicy:LifecyclePolicy",
        "ecr/replicationConfiguration:ReplicationConfiguration",
        "ecs/cluster:Cluster",
        "ecs/clusterCapacityProviders:ClusterCapacityProviders",
        "ecs/taskDefinition:TaskDefinition",
        "elasticache/parameterGroup:ParameterGroup",
        "elasticache/subnetGroup:SubnetGroup",
        "kms/alias:Alias",
        "lb/listener:Listener",
        "lb/listenerRule:ListenerRule",
        "lb/targetGroup:TargetGroup",
        "rds/clusterParameterGroup:ClusterParameterGroup",
        "rds/globalCluster:GlobalCluster",
        "rds/subnetGroup:SubnetGroup",
        "route53/record:Record",
        "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "s3/bucketLogging:BucketLogging",
        "s3/bucketOwnershipControls:BucketOwnershipControls",
        "s3/bucketPolicy:BucketPolicy",
        "s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "s3/bucketReplicationConfig:BucketReplicationConfig",
        "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "s3/bucketVersioning:BucketVersioning",
        "secretsmanager/secretVersion:SecretVersion",
        "sns/topicPolicy:TopicPolicy",
        "sns/topicSubscription:TopicSubscription",
        "ssm/parameter:Parameter",
        "wafv2/webAclAssociation:WebAclAssociation",
        "wafv2/webAclLoggingConfiguration:WebAclLoggingConfiguration",
        "vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        "ec2/vpcPeeringConnection:VpcPeeringConnection",
        "ec2/vpcPeeringConnectionAccepter:VpcPeeringConnectionAccepter",
        "vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    )
)
"""What AWS does not charge for as such: it shapes what is charged for elsewhere."""
