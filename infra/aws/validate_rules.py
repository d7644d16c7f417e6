"""What this platform's design demands of a plan, beyond what AWS would take. Pure.

Two zones everywhere, a failover pair of records with a health check, backups in another region,
scaling at 70 % CPU, and the edges without which an update would happen in the wrong order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from infra.aws.findings import Finding

JSON = Mapping[str, Any]
SCALE_AT_PERCENT = 70
CPU_METRIC = "ECSServiceAverageCPUUtilization"

SUBNET = "aws:ec2/subnet:Subnet"
CLUSTER = "aws:rds/cluster:Cluster"
GLOBAL = "aws:rds/globalCluster:GlobalCluster"
INSTANCE = "aws:rds/clusterInstance:ClusterInstance"
GROUP = "aws:elasticache/replicationGroup:ReplicationGroup"
ECS = "aws:ecs/service:Service"
TASK = "aws:ecs/taskDefinition:TaskDefinition"
ECS_CLUSTER = "aws:ecs/cluster:Cluster"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
LISTENER = "aws:lb/listener:Listener"
TARGET_GROUP = "aws:lb/targetGroup:TargetGroup"
RECORD = "aws:route53/record:Record"
HEALTH = "aws:route53/healthCheck:HealthCheck"
BACKUP_PLAN = "aws:backup/plan:Plan"
VAULT = "aws:backup/vault:Vault"
TARGET = "aws:appautoscaling/target:Target"
SCALING = "aws:appautoscaling/policy:Policy"


class Graph:
    """The resources of a plan by URN and by type."""

    def __init__(self, resources: Sequence[JSON]) -> None:
        self.all = resources
        self.by_urn = {resource["urn"]: resource for resource in resources}
        self._by_type: dict[str, list[JSON]] = defaultdict(list)
        for resource in resources:
            self._by_type[resource["type"]].append(resource)

    def of(self, type: str) -> list[JSON]:
        return self._by_type.get(type, [])

    def needs(self, resource: JSON, type: str, key: str | None = None) -> list[JSON]:
        """The resources of `type` that `resource` depends on, by its input `key` if given."""
        urns = resource["dependencies"]
        if key is not None:
            urns = resource["propertyDependencies"].get(key, ())
        found = (self.by_urn.get(urn) for urn in urns)
        return [each for each in found if each is not None and each["type"] == type]


def rules(resources: Sequence[JSON]) -> list[Finding]:
    """What breaks a rule of the design."""
    graph = Graph(resources)
    return [finding for rule in RULES for finding in rule(graph)]


def two_zones(graph: Graph) -> Iterator[Finding]:
    zones: dict[str, set[str]] = defaultdict(set)
    for subnet in graph.of(SUBNET):
        inputs = subnet["inputs"]
        zones[subnet["region"]].add(
            str(inputs.get("availabilityZone") or inputs.get("availabilityZoneId"))
        )
    for region, found in sorted(zones.items()):
        if len(found) < 2:
            names = ", ".join(sorted(found))
            yield _single("", "", f"the subnets of {region} are all in one zone, {names}")
    for balancer in graph.of(BALANCER):
        yield from _two(balancer, "subnets", balancer["inputs"].get("subnets"))
    for service in graph.of(ECS):
        network = service["inputs"].get("networkConfiguration") or {}
        yield from _two(service, "networkConfiguration.subnets", network.get("subnets"))
    for group in graph.of(GROUP):
        for key in ("multiAzEnabled", "automaticFailoverEnabled"):
            if group["inputs"].get(key) is not True:
                yield _single(group["urn"], key, f"{key} is not on: one zone lost is the data lost")


def databases_in_two_zones(graph: Graph) -> Iterator[Finding]:
    for cluster in graph.of(CLUSTER):
        members = [
            each
            for each in graph.of(INSTANCE)
            if cluster["urn"] in each["propertyDependencies"].get("clusterIdentifier", ())
        ]
        zones = {str(each["inputs"].get("availabilityZone")) for each in members}
        if len(members) < 2 or len(zones) < 2:
            message = f"{len(members)} instances in {len(zones)} zones; two in two are needed"
            yield _single(cluster["urn"], "", message)


def failover_pairs(graph: Graph) -> Iterator[Finding]:
    pairs: dict[tuple[str, str], list[tuple[str, JSON]]] = defaultdict(list)
    for record in graph.of(RECORD):
        for policy in record["inputs"].get("failoverRoutingPolicies") or ():
            key = (str(record["inputs"].get("name")), str(record["inputs"].get("type")))
            pairs[key].append((str(policy.get("type")), record))
    if graph.of(HEALTH) and not pairs:
        message = "no record fails over: DNS would go on naming a lost region"
        yield Finding("", "", "failover-pair", message)
    for (name, _), halves in sorted(pairs.items(), key=lambda each: each[0]):
        kinds = sorted(kind for kind, _ in halves)
        if kinds != ["PRIMARY", "SECONDARY"]:
            message = f"{name} has {', '.join(kinds)}; it needs one PRIMARY and one SECONDARY"
            yield Finding(halves[0][1]["urn"], "failoverRoutingPolicies", "failover-pair", message)
        for kind, record in halves:
            if kind == "PRIMARY" and not graph.needs(record, HEALTH, "healthCheckId"):
                message = f"the PRIMARY of {name} has no health check: it would never fail over"
                yield Finding(record["urn"], "healthCheckId", "health-check", message)


def health_checks_are_used(graph: Graph) -> Iterator[Finding]:
    used = {
        urn
        for record in graph.of(RECORD)
        for urn in record["propertyDependencies"].get("healthCheckId", ())
    }
    for check in graph.of(HEALTH):
        if check["urn"] not in used:
            yield Finding(check["urn"], "", "health-check", "no record asks this health check")


def backups_elsewhere(graph: Graph) -> Iterator[Finding]:
    plans = graph.of(BACKUP_PLAN)
    if graph.of(CLUSTER) and not plans:
        yield Finding("", "", "backup", "there are databases, and no backup plan")
    for plan in plans:
        vaults = {vault["region"] for vault in graph.needs(plan, VAULT, "rules")}
        for index, rule in enumerate(plan["inputs"].get("rules") or ()):
            path = f"rules[{index}].copyActions"
            if not rule.get("copyActions"):
                message = "a backup of this rule stays in its region and is lost with it"
                yield Finding(plan["urn"], path, "backup", message)
            elif not vaults - {plan["region"]}:
                message = "its copies go to no vault of another region"
                yield Finding(plan["urn"], path, "backup", message)


def services_scale(graph: Graph) -> Iterator[Finding]:
    policies: dict[str, list[JSON]] = defaultdict(list)
    for policy in graph.of(SCALING):
        for scaled in [*graph.needs(policy, TARGET, "resourceId"), policy]:
            policies[_scaled(scaled)].append(policy)
    targets = {_scaled(target) for target in graph.of(TARGET)}
    for service in graph.of(ECS):
        inputs = service["inputs"]
        if inputs.get("desiredCount") == 1:
            continue  # one is meant, such as the control plane with its one store
        name = _service_key(graph, service)
        if name not in targets:
            yield Finding(service["urn"], "", "autoscaling", "nothing scales this service")
        elif not any(_at_seventy(policy) for policy in policies[name]):
            message = f"no policy scales it at {SCALE_AT_PERCENT} % CPU"
            yield Finding(service["urn"], "", "autoscaling", message)


def rollouts_roll_back(graph: Graph) -> Iterator[Finding]:
    for service in graph.of(ECS):
        breaker = service["inputs"].get("deploymentCircuitBreaker") or {}
        if breaker.get("enable") is not True or breaker.get("rollback") is not True:
            message = "a bad rollout would not be rolled back: enable and rollback are not both on"
            yield Finding(service["urn"], "deploymentCircuitBreaker", "rollout", message)


def rebalancing_has_room(graph: Graph) -> Iterator[Finding]:
    """ECS takes no service that it should move between zones but may start no task more of."""
    for service in graph.of(ECS):
        inputs = service["inputs"]
        most = inputs.get("deploymentMaximumPercent", 200)
        if inputs.get("availabilityZoneRebalancing") == "ENABLED" and most <= 100:
            message = f"rebalancing needs a maximum above 100 %, not {most}"
            yield Finding(service["urn"], "availabilityZoneRebalancing", "rollout", message)


def edges(graph: Graph) -> Iterator[Finding]:
    """The dependencies that order an update, and none on what is not there."""
    for source, key, target in EDGES:
        for resource in graph.of(source):
            if key in resource["inputs"] and not graph.needs(resource, target, key):
                what = target.rpartition(":")[2]
                message = f"{key} depends on no {what} of this plan"
                yield Finding(resource["urn"], key, "edge", message)
    for resource in graph.all:
        missing = sorted(urn for urn in resource["dependencies"] if urn not in graph.by_urn)
        for urn in missing:
            yield Finding(resource["urn"], "", "edge", f"depends on {urn}, which is not there")
    yield from secondaries_after_primaries(graph)
    yield from _circles(graph)


def secondaries_after_primaries(graph: Graph) -> Iterator[Finding]:
    """A secondary of a global database can only join when the primary has an instance."""
    for cluster in graph.of(CLUSTER):
        families = graph.needs(cluster, GLOBAL, "globalClusterIdentifier")
        if not families or "masterUsername" in cluster["inputs"]:
            continue
        if not graph.needs(cluster, INSTANCE) and not graph.needs(cluster, CLUSTER):
            message = "a secondary of a global database that does not wait for its primary"
            yield Finding(cluster["urn"], "", "edge", message)


def _circles(graph: Graph) -> Iterator[Finding]:
    needs = {
        resource["urn"]: [urn for urn in resource["dependencies"] if urn in graph.by_urn]
        for resource in graph.all
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        yield Finding(error.args[1][0], "", "edge", f"a circle of dependencies: {circle}")


def _two(resource: JSON, path: str, listed: Any) -> Iterator[Finding]:
    if isinstance(listed, list) and len(listed) < 2:
        yield _single(resource["urn"], path, f"{len(listed)} subnet; it needs two, in two zones")


def _single(urn: str, path: str, message: str) -> Finding:
    return Finding(urn, path, "two-zones", message)


def _scaled(resource: JSON) -> str:
    """The "service/CLUSTER/NAME" of a scaling target or policy."""
    return str(resource["inputs"].get("resourceId"))


def _service_key(graph: Graph, service: JSON) -> str:
    clusters = graph.needs(service, ECS_CLUSTER, "cluster")
    cluster = clusters[0]["inputs"].get("name") if clusters else None
    return f"service/{cluster}/{service['inputs'].get('name')}"


def _at_seventy(policy: JSON) -> bool:
    tracking = policy["inputs"].get("targetTrackingScalingPolicyConfiguration") or {}
    metric = (tracking.get("predefinedMetricSpecification") or {}).get("predefinedMetricType")
    return metric == CPU_METRIC and tracking.get("targetValue") == SCALE_AT_PERCENT


EDGES = (
    (INSTANCE, "clusterIdentifier", CLUSTER),
    (ECS, "cluster", ECS_CLUSTER),
    (ECS, "taskDefinition", TASK),
    (LISTENER, "loadBalancerArn", BALANCER),
    (RECORD, "healthCheckId", HEALTH),
)

RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    two_zones,
    databases_in_two_zones,
    failover_pairs,
    health_checks_are_used,
    backups_elsewhere,
    services_scale,
    rollouts_roll_back,
    rebalancing_has_room,
    edges,
)
