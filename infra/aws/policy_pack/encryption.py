"""Nothing at rest and nothing on its way without encryption. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from infra.aws.plan import COMPUTED
from infra.aws.policy_pack.world import Resource, Violation, World, listed, statements

KEYED = {
    "aws:rds/cluster:Cluster": "kmsKeyId",
    "aws:elasticache/replicationGroup:ReplicationGroup": "kmsKeyId",
    "aws:backup/vault:Vault": "kmsKeyArn",
    "aws:secretsmanager/secret:Secret": "kmsKeyId",
    "aws:sns/topic:Topic": "kmsMasterKeyId",
    "aws:cloudwatch/logGroup:LogGroup": "kmsKeyId",
    "aws:amp/workspace:Workspace": "kmsKeyArn",
}
"""What is encrypted with a key of one's own: the input that names the key."""

SWITCHES = {
    "aws:rds/cluster:Cluster": "storageEncrypted",
    "aws:elasticache/replicationGroup:ReplicationGroup": "atRestEncryptionEnabled",
    "aws:rds/globalCluster:GlobalCluster": "storageEncrypted",
}
OLD_TLS = ("ELBSecurityPolicy-2016", "ELBSecurityPolicy-TLS-1-0", "ELBSecurityPolicy-TLS-1-1")
BUCKET = "aws:s3/bucket:Bucket"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
LOG_WRITERS = (
    "delivery.logs.amazonaws.com",
    "logdelivery.elasticloadbalancing.amazonaws.com",
    "logging.s3.amazonaws.com",
)
ENCRYPTIONS = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2",
)


def at_rest(world: World) -> Iterator[Violation]:
    """Storage is encrypted, with keys of one's own."""
    for type, switch in SWITCHES.items():
        for resource in world.of(type):
            if not resource.on(switch):
                yield resource.urn, f"{switch} is not on: what it stores is not encrypted"
    for type, key in KEYED.items():
        for resource in world.of(type):
            if not resource.has(key):
                yield resource.urn, f"{key} is not set: no key of one's own encrypts it"
    for bucket in world.of(BUCKET):
        enough = {"aws:kms", "aws:kms:dsse", COMPUTED}
        if _takes_logs(world, bucket):
            enough.add("AES256")  # load balancers can write with no other
        found = [each for type in ENCRYPTIONS for each in world.about(bucket, type, "bucket")]
        if not any(_algorithm(each) in enough for each in found):
            yield bucket.urn, "no default encryption by a KMS key is configured for this bucket"


def _algorithm(configuration: Resource) -> str:
    for rule in configuration.props.get("rules") or ():
        default = rule.get("applyServerSideEncryptionByDefault") or {}
        return str(default.get("sseAlgorithm"))
    return ""


def _takes_logs(world: World, bucket: Resource) -> bool:
    """Whether its policy lets services of AWS write their logs into it."""
    for policy in world.about(bucket, BUCKET_POLICY, "bucket"):
        for statement in statements(policy.props.get("policy")):
            principal = statement.get("Principal")
            if isinstance(principal, Mapping) and any(
                service in LOG_WRITERS for service in listed(principal.get("Service"))
            ):
                return True
    return False


def in_transit(world: World) -> Iterator[Violation]:
    """Nobody is served, and no database asked, without TLS."""
    yield from _balancers(world)
    yield from _distributions(world)
    for group in world.of("aws:elasticache/replicationGroup:ReplicationGroup"):
        if not group.on("transitEncryptionEnabled"):
            yield group.urn, "transitEncryptionEnabled is not on: values cross the network in clear"
        elif not any(group.has(key) for key in ("authToken", "authTokenWo", "userGroupIds")):
            yield group.urn, "neither authToken nor userGroupIds: anybody who reaches it may read"
    for bucket in world.of(BUCKET):
        policies = world.about(bucket, BUCKET_POLICY, "bucket")
        if not any(_refuses_plain(each.props.get("policy")) for each in policies):
            yield bucket.urn, "no bucket policy refuses requests without TLS (aws:SecureTransport)"
    yield from _databases(world)


def _balancers(world: World) -> Iterator[Violation]:
    for listener in world.of("aws:lb/listener:Listener", "aws:alb/listener:Listener"):
        actions = listener.props.get("defaultActions") or ()
        redirects = all(
            (action.get("redirect") or {}).get("protocol") == "HTTPS" for action in actions
        )
        protocol = listener.props.get("protocol")
        if protocol not in ("HTTPS", "TLS", COMPUTED) and not (actions and redirects):
            yield listener.urn, f"a listener speaks {protocol} and does not redirect to HTTPS"
        policy = str(listener.props.get("sslPolicy", ""))
        if protocol in ("HTTPS", "TLS") and (not policy or policy.startswith(OLD_TLS)):
            yield listener.urn, "sslPolicy allows TLS 1.0 or 1.1; take ELBSecurityPolicy-TLS13-1-2"


def _distributions(world: World) -> Iterator[Violation]:
    for edge in world.of("aws:cloudfront/distribution:Distribution"):
        behaviours = [edge.props.get("defaultCacheBehavior") or {}]
        behaviours += edge.props.get("orderedCacheBehaviors") or ()
        if any(
            each.get("viewerProtocolPolicy") not in ("redirect-to-https", "https-only")
            for each in behaviours
        ):
            yield edge.urn, "viewers may come without TLS: viewerProtocolPolicy allows it"
        certificate = edge.props.get("viewerCertificate") or {}
        version = str(certificate.get("minimumProtocolVersion", ""))
        if not version.startswith(("TLSv1.2", "TLSv1.3")):
            yield edge.urn, "minimumProtocolVersion is below TLSv1.2"
        for origin in edge.props.get("origins") or ():
            custom = origin.get("customOriginConfig") or {}
            if custom and custom.get("originProtocolPolicy") != "https-only":
                yield edge.urn, f"origin {origin.get('originId')} may be asked without TLS"


def _databases(world: World) -> Iterator[Violation]:
    """Aurora PostgreSQL refuses connections without TLS when its parameter group says so."""
    forcing = {
        each.urn
        for each in world.of("aws:rds/clusterParameterGroup:ClusterParameterGroup")
        if any(
            parameter.get("name") == "rds.force_ssl" and str(parameter.get("value")) == "1"
            for parameter in each.props.get("parameters") or ()
        )
    }
    names = {each.props.get("name") for each in world.resources if each.urn in forcing}
    for cluster in world.of("aws:rds/cluster:Cluster"):
        key = "dbClusterParameterGroupName"
        if not forcing.intersection(cluster.needs.get(key, ())) and (
            cluster.props.get(key) not in names - {None, COMPUTED}
        ):
            yield cluster.urn, "no parameter group with rds.force_ssl=1: it takes plain connections"


def _refuses_plain(policy: object) -> bool:
    for statement in statements(policy):
        insecure = (statement.get("Condition") or {}).get("Bool") or {}
        if statement.get("Effect") == "Deny" and "false" in [
            word.lower() for word in listed(insecure.get("aws:SecureTransport"))
        ]:
            return True
    return policy == COMPUTED
