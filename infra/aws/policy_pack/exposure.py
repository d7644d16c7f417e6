"""Nothing is open to everybody that is not meant to be, and nobody may do everything. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.aws.plan import COMPUTED
from infra.aws.policy_pack.world import Resource, Violation, World, listed, statements

EVERYWHERE = ("0.0.0.0/0", "::/0")
BUCKET = "aws:s3/bucket:Bucket"
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
DOCUMENTS = {
    "aws:iam/policy:Policy": "policy",
    "aws:iam/rolePolicy:RolePolicy": "policy",
    "aws:iam/groupPolicy:GroupPolicy": "policy",
    "aws:iam/userPolicy:UserPolicy": "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:kms/key:Key": "policy",
    "aws:kms/replicaKey:ReplicaKey": "policy",
    "aws:sns/topicPolicy:TopicPolicy": "policy",
    "aws:sqs/queuePolicy:QueuePolicy": "policy",
    "aws:secretsmanager/secretPolicy:SecretPolicy": "policy",
    "aws:backup/vaultPolicy:VaultPolicy": "policy",
    "aws:ecr/repositoryPolicy:RepositoryPolicy": "policy",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "policy",
    "aws:iam/role:Role": "assumeRolePolicy",
}
"""Where policy documents are."""

IDENTITY = frozenset(
    f"aws:iam/{kind}" for kind in ("policy:Policy", "rolePolicy:RolePolicy", "role:Role")
)


def public(world: World) -> Iterator[Violation]:
    """Buckets, databases, caches and resource policies are closed to the public."""
    for bucket in world.of(BUCKET):
        blocks = list(world.about(bucket, BLOCK, "bucket"))
        if not blocks:
            yield bucket.urn, "no public access block: a policy or an ACL could open this bucket"
        for block in blocks:
            off = [key for key in BLOCKS if not block.on(key)]
            if off:
                yield block.urn, f"{', '.join(off)} not on: the bucket could be opened to everybody"
        if str(bucket.props.get("acl", "")).startswith("public"):
            yield bucket.urn, f"its ACL is {bucket.props['acl']}"
    for acl in world.of("aws:s3/bucketAcl:BucketAcl"):
        if str(acl.props.get("acl", "")).startswith("public"):
            yield acl.urn, f"the ACL {acl.props['acl']} opens a bucket to everybody"
    for type in ("aws:rds/clusterInstance:ClusterInstance", "aws:rds/instance:Instance"):
        for instance in world.of(type):
            if instance.props.get("publiclyAccessible") is True:
                yield (
                    instance.urn,
                    "publiclyAccessible: the database has an address on the internet",
                )
    for subnet in world.of("aws:ec2/subnet:Subnet"):
        if subnet.props.get("mapPublicIpOnLaunch") is True:
            yield subnet.urn, "mapPublicIpOnLaunch: whatever starts here is on the internet"
    for service in world.of("aws:ecs/service:Service"):
        if (service.props.get("networkConfiguration") or {}).get("assignPublicIp") is True:
            yield service.urn, "assignPublicIp: its tasks are on the internet"


def open_groups(world: World) -> Iterator[Violation]:
    """No security group lets everybody in."""
    for group in world.of("aws:ec2/securityGroup:SecurityGroup"):
        for rule in group.props.get("ingress") or ():
            if _everywhere([*listed(rule.get("cidrBlocks")), *listed(rule.get("ipv6CidrBlocks"))]):
                yield group.urn, _opened(rule)
    for rule in world.of("aws:ec2/securityGroupRule:SecurityGroupRule"):
        found = [*listed(rule.props.get("cidrBlocks")), *listed(rule.props.get("ipv6CidrBlocks"))]
        if rule.props.get("type") == "ingress" and _everywhere(found):
            yield rule.urn, _opened(rule.props)
    for rule in world.of("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"):
        if _everywhere([*listed(rule.props.get("cidrIpv4")), *listed(rule.props.get("cidrIpv6"))]):
            yield rule.urn, _opened(rule.props)


def _everywhere(blocks: list[str]) -> bool:
    return any(block in EVERYWHERE for block in blocks)


def _opened(rule: Mapping[str, Any]) -> str:
    first, last = (_port(rule.get(key)) for key in ("fromPort", "toPort"))
    return f"ports {first} to {last} are open to every address"


def _port(value: Any) -> str:
    """Numbers come as floats through the protocol."""
    return f"{value:g}" if isinstance(value, int | float) else str(value or "any")


def least_privilege(world: World) -> Iterator[Violation]:
    """No policy document allows every action on everything, or anything to everybody."""
    limits = _boundaries(world)
    for type, key in DOCUMENTS.items():
        for resource in world.of(type):
            value = resource.props.get(key)
            if value in (None, COMPUTED) or resource.urn in limits:
                continue
            for statement in statements(value):
                if statement.get("Effect") == "Allow":
                    yield from _too_much(resource, statement)
    for role in world.of("aws:iam/role:Role", "aws:iam/rolePolicyAttachment:RolePolicyAttachment"):
        arns = [*listed(role.props.get("managedPolicyArns")), *listed(role.props.get("policyArn"))]
        if any(arn.endswith("/AdministratorAccess") for arn in arns):
            yield role.urn, "AdministratorAccess is attached"


def _boundaries(world: World) -> set[str]:
    """Policies that only limit what others allow: boundaries of roles, attached to nothing."""
    roles = list(world.of("aws:iam/role:Role"))
    attached = list(world.of("aws:iam/rolePolicyAttachment:RolePolicyAttachment"))
    found = set()
    for policy in world.of("aws:iam/policy:Policy"):
        arn = f":policy/{policy.props.get('name')}"
        limits = any(_names(role, "permissionsBoundary", policy.urn, arn) for role in roles)
        grants = any(_names(each, "policyArn", policy.urn, arn) for each in attached)
        if limits and not grants:
            found.add(policy.urn)
    return found


def _names(resource: Resource, key: str, urn: str, arn: str) -> bool:
    value = str(resource.props.get(key, ""))
    return urn in resource.needs.get(key, ()) or value.endswith(arn)


def _too_much(resource: Resource, statement: Mapping[str, Any]) -> Iterator[Violation]:
    actions, targets = listed(statement.get("Action")), listed(statement.get("Resource"))
    name = statement.get("Sid") or f"a statement on {', '.join(targets[:2]) or 'itself'}"
    if "NotAction" in statement or "NotResource" in statement:
        yield resource.urn, f"{name}: allows all but what it lists (NotAction, NotResource)"
    if "*" in targets and resource.type in IDENTITY:
        wide = [action for action in actions if action == "*" or action.endswith(":*")]
        if wide:
            yield resource.urn, f"{name}: allows {', '.join(wide)} on every resource"
    elif "*" in actions and resource.type != "aws:ec2/vpcEndpoint:VpcEndpoint":
        yield resource.urn, f"{name}: allows every action"
    principal = statement.get("Principal")
    everybody = principal == "*" or (
        isinstance(principal, Mapping) and "*" in listed(principal.get("AWS"))
    )
    if everybody and not statement.get("Condition"):
        yield resource.urn, f"{name}: allows {', '.join(actions[:2])} to everybody, on no condition"
