"""What is lost only once: protection from deletion, two zones, backups, keys, owners. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.aws.plan import COMPUTED
from infra.aws.policy_pack.world import Resource, Violation, World

TAGS = ("project", "environment", "topology", "region", "owner", "cost-centre")
UNTAGGED = frozenset(
    f"aws:{kind}"
    for kind in (
        "appautoscaling/policy:Policy",
        "backup/selection:Selection",
        "ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "iam/policyAttachment:PolicyAttachment",
    )
)
BUCKET = "aws:s3/bucket:Bucket"
VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
CLUSTER = "aws:rds/cluster:Cluster"
INSTANCE = "aws:rds/clusterInstance:ClusterInstance"
GROUP = "aws:elasticache/replicationGroup:ReplicationGroup"
LEAST_BACKUP_DAYS = 7
PROTECTED = (CLUSTER, "aws:rds/globalCluster:GlobalCluster", BUCKET, "aws:backup/vault:Vault")
"""What holds data: neither AWS nor Pulumi deletes it before somebody says so twice."""


def tags(world: World) -> Iterator[Violation]:
    """Everything says whose it is and what it is for, by its provider or by itself."""
    for resource in world.resources:
        if not resource.type.startswith("aws:") or resource.type in UNTAGGED:
            continue
        found = {**_default_tags(resource), **_mapping(resource.props.get("tags"))}
        missing = [tag for tag in TAGS if not found.get(tag)]
        if missing:
            yield resource.urn, f"tags are missing: {', '.join(missing)}"


def _default_tags(resource: Resource) -> Mapping[str, Any]:
    """Those of its provider, which keeps nested values as text."""
    value = resource.provider.get("defaultTags")
    if isinstance(value, str) and value != COMPUTED:
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return _mapping(_mapping(value).get("tags"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def deletion(world: World) -> Iterator[Violation]:
    """Data and entry cannot be deleted by one mistake."""
    for resource in world.of(CLUSTER, "aws:rds/globalCluster:GlobalCluster"):
        if not resource.on("deletionProtection"):
            yield resource.urn, "deletionProtection is not on"
        if resource.props.get("skipFinalSnapshot") is True:
            yield resource.urn, "skipFinalSnapshot: its deletion would leave nothing behind"
    for balancer in world.of("aws:lb/loadBalancer:LoadBalancer"):
        if not balancer.on("enableDeletionProtection"):
            yield balancer.urn, "enableDeletionProtection is not on"
    for resource in world.of(*PROTECTED):
        if not resource.protect:
            yield resource.urn, "the option protect is not set: `down` would delete it"
    for bucket in world.of(BUCKET, "aws:backup/vault:Vault"):
        if bucket.props.get("forceDestroy") is True:
            yield bucket.urn, "forceDestroy: it would be deleted with everything in it"
    for bucket in world.of(BUCKET):
        found = world.about(bucket, VERSIONING, "bucket")
        if not any(_versions(each) for each in found):
            yield bucket.urn, "no versioning: what is overwritten is gone"


def _versions(versioning: Resource) -> bool:
    configuration = _mapping(versioning.props.get("versioningConfiguration"))
    return configuration.get("status") in ("Enabled", COMPUTED)


def two_zones(world: World) -> Iterator[Violation]:
    """A zone may be lost without the data or the service."""
    for group in world.of(GROUP):
        for key in ("multiAzEnabled", "automaticFailoverEnabled"):
            if not group.on(key):
                yield group.urn, f"{key} is not on"
    for cluster in world.of(CLUSTER):
        members = [
            each
            for each in world.of(INSTANCE)
            if cluster.urn in each.needs.get("clusterIdentifier", ())
        ]
        zones = {each.props.get("availabilityZone") for each in members}
        if len(members) < 2 or (len(zones) < 2 and COMPUTED not in zones):
            yield cluster.urn, f"{len(members)} instances in {len(zones)} zones"
    zones_of: dict[str, set[str]] = {}
    for subnet in world.of("aws:ec2/subnet:Subnet"):
        zones_of.setdefault(subnet.region, set()).add(str(subnet.props.get("availabilityZone")))
    for subnet in world.of("aws:ec2/subnet:Subnet"):
        if len(zones_of[subnet.region]) < 2 and COMPUTED not in zones_of[subnet.region]:
            yield subnet.urn, f"all subnets of {subnet.region or 'its region'} are in one zone"


def keys(world: World) -> Iterator[Violation]:
    """Keys are changed by AWS every year."""
    for key in world.of("aws:kms/key:Key"):
        symmetric = key.props.get("customerMasterKeySpec") in (None, "SYMMETRIC_DEFAULT")
        if symmetric and not key.on("enableKeyRotation"):
            yield key.urn, "enableKeyRotation is not on"


def backups(world: World) -> Iterator[Violation]:
    """Databases can be taken back to any moment of the last week."""
    for cluster in world.of(CLUSTER):
        days = cluster.props.get("backupRetentionPeriod")
        if days != COMPUTED and (not isinstance(days, int | float) or days < LEAST_BACKUP_DAYS):
            message = (
                f"backupRetentionPeriod is {days or 'not set'}, not {LEAST_BACKUP_DAYS} or more"
            )
            yield cluster.urn, message


def watched(world: World) -> Iterator[Violation]:
    """Who did what is kept: access logs, flow logs, and logs that end some day."""
    for balancer in world.of("aws:lb/loadBalancer:LoadBalancer"):
        if _mapping(balancer.props.get("accessLogs")).get("enabled") is not True:
            yield balancer.urn, "accessLogs are not enabled"
    for vpc in world.of("aws:ec2/vpc:Vpc"):
        if not any(
            vpc.urn in each.needs.get("vpcId", ()) for each in world.of("aws:ec2/flowLog:FlowLog")
        ):
            yield vpc.urn, "no flow log: who spoke to whom is not kept"
    for group in world.of("aws:cloudwatch/logGroup:LogGroup"):
        if not group.has("retentionInDays"):
            yield group.urn, "retentionInDays is not set: it is kept, and paid for, for ever"


def images(world: World) -> Iterator[Violation]:
    """What runs is named by its content."""
    for task in world.of("aws:ecs/taskDefinition:TaskDefinition"):
        for container in _containers(task.props.get("containerDefinitions")):
            image = str(container.get("image", ""))
            if "@sha256:" not in image:
                yield task.urn, f"image {image} is named by a tag, which may move, not by a digest"


def _containers(text: Any) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(text) if isinstance(text, str) and text != COMPUTED else []
    except ValueError:
        return []
    return [_mapping(each) for each in found] if isinstance(found, list) else [_mapping(found)]
