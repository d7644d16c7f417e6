"""Files of a region in S3: one bucket of objects (invoices, the analytics' lines, the shard map)
and one of logs.

Invoices and analytics are copied between the regions, both ways, so that whichever serves has
them. The shard map is not: the control plane publishes it to each region itself. All buckets are
private, encrypted and reached by TLS only, and keep old versions for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.naming import LOGS, OBJECTS
from infra.aws.program.here import Here, Part, policy, trust
from infra.aws.program.keys import Keys

PURPOSES = (LOGS, OBJECTS)
INVOICES, ANALYTICS, MAPS = "invoices/", "analytics/", "control/"
COPIED = (INVOICES, ANALYTICS)
OLD_VERSION_DAYS = 30
UNFINISHED_DAYS = 7
INFREQUENT_DAYS = 90
ARCHIVE_DAYS = 365
# Invoices are kept for ten years, as the tax laws of several countries demand; logs for one.
EXPIRE_DAYS = {LOGS: 365, INVOICES: 3653}


class Storage(Part):
    """`by` has the buckets by purpose, `ready` what must be there before AWS writes its logs to
    one: it tries at once, and refuses what it may not write to."""

    def __init__(self, here: Here, keys: Keys) -> None:
        super().__init__(here, "Storage")
        self.versioned: dict[str, aws.s3.BucketVersioning] = {}
        self.by: dict[str, aws.s3.Bucket] = {}
        self.ready: dict[str, list[pulumi.Resource]] = {}
        self.key = keys.data
        for purpose in PURPOSES:
            self.by[purpose] = self._bucket(purpose, keys)
        self.register_outputs({})

    def name(self, purpose: str) -> str:
        return self.here.names.bucket(purpose, self.here.region.name)

    def _bucket(self, purpose: str, keys: Keys) -> aws.s3.Bucket:
        called = self.called(f"bucket-{purpose}")
        bucket = aws.s3.Bucket(
            called, bucket=self.name(purpose), force_destroy=False, opts=self.inside(protect=True)
        )
        self.versioned[purpose] = aws.s3.BucketVersioning(
            called,
            bucket=bucket.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(
                status="Enabled"
            ),
            opts=self.inside(),
        )
        aws.s3.BucketPublicAccessBlock(
            called,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self.inside(),
        )
        owned = aws.s3.BucketOwnershipControls(
            called,
            bucket=bucket.bucket,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership=_ownership(purpose)),
            opts=self.inside(),
        )
        self._encrypt(called, purpose, bucket, keys)
        allowed = aws.s3.BucketPolicy(
            called,
            bucket=bucket.bucket,
            policy=policy(*self._statements(purpose)),
            opts=self.inside(),
        )
        self._age(called, purpose, bucket)
        self.ready[purpose] = [owned, allowed]
        if purpose != LOGS:
            aws.s3.BucketLogging(
                called,
                bucket=bucket.bucket,
                target_bucket=self.by[LOGS].bucket,
                target_prefix=f"s3/{purpose}/",
                opts=self.inside(),
            )
        return bucket

    def _encrypt(self, called: str, purpose: str, bucket: aws.s3.Bucket, keys: Keys) -> None:
        """AWS's load balancer and CloudFront write logs with S3's own key only."""
        own = purpose != LOGS
        default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(  # noqa: E501
            sse_algorithm="aws:kms" if own else "AES256",
            kms_master_key_id=keys.data if own else None,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            called,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=default, bucket_key_enabled=own
                )
            ],
            opts=self.inside(),
        )

    def _statements(self, purpose: str) -> list[dict[str, Any]]:
        arn = f"arn:aws:s3:::{self.name(purpose)}"
        found: list[dict[str, Any]] = [
            {
                "Sid": "OnlyByTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ]
        if purpose == LOGS:
            mine = {"StringEquals": {"aws:SourceAccount": self.here.account}}
            for sid, service in (
                ("Balancer", "logdelivery.elasticloadbalancing.amazonaws.com"),
                ("Buckets", "logging.s3.amazonaws.com"),
            ):
                found.append(
                    {
                        "Sid": sid,
                        "Effect": "Allow",
                        "Principal": {"Service": service},
                        "Action": "s3:PutObject",
                        "Resource": f"{arn}/*",
                        "Condition": mine,
                    }
                )
        return found

    def _age(self, called: str, purpose: str, bucket: aws.s3.Bucket) -> None:
        """Cheaper storage when nobody reads it any more; then away with it, where it may go."""
        older = aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
            noncurrent_days=OLD_VERSION_DAYS
        )
        abort = aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
            days_after_initiation=UNFINISHED_DAYS
        )
        tidy = aws.s3.BucketLifecycleConfigurationRuleArgs(
            id="tidy",
            status="Enabled",
            filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
            abort_incomplete_multipart_upload=abort,
            noncurrent_version_expiration=older,
        )
        aged = [_aged("", LOGS)] if purpose == LOGS else [_aged(each, each) for each in COPIED]
        aws.s3.BucketLifecycleConfiguration(
            called,
            bucket=bucket.bucket,
            rules=[tidy, *aged],
            opts=self.inside(depends_on=[self.versioned[purpose]]),
        )


def _aged(prefix: str, what: str) -> aws.s3.BucketLifecycleConfigurationRuleArgs:
    moved = aws.s3.BucketLifecycleConfigurationRuleTransitionArgs
    transitions = [moved(days=INFREQUENT_DAYS, storage_class="STANDARD_IA")]
    if what in COPIED:
        transitions.append(moved(days=ARCHIVE_DAYS, storage_class="GLACIER_IR"))
    days = EXPIRE_DAYS.get(what)
    return aws.s3.BucketLifecycleConfigurationRuleArgs(
        id=f"age-{what.rstrip('/')}",
        status="Enabled",
        filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=prefix),
        transitions=transitions,
        expiration=(
            aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=days) if days else None
        ),
    )


def _ownership(purpose: str) -> str:
    """CloudFront writes its logs by an access list; nobody else may use one."""
    return "BucketOwnerPreferred" if purpose == LOGS else "BucketOwnerEnforced"


class Copying(Part):
    """Copies what is new in the objects of `here` to the other regions, encrypted as it is."""

    def __init__(self, here: Here, storage: Storage, others: Sequence[Storage]) -> None:
        super().__init__(here, "Copying")
        role = aws.iam.Role(
            self.called("role-copying"),
            name=here.names.role("copying", here.region.name),
            assume_role_policy=trust(
                "s3.amazonaws.com", StringEquals={"aws:SourceAccount": here.account}
            ),
            opts=self.inside(),
        )
        aws.iam.RolePolicy(
            self.called("role-copying"),
            name="copy",
            role=role.name,
            policy=policy(*self._may(storage, others)),
            opts=self.inside(),
        )
        targets = [(other, prefix) for other in others for prefix in COPIED]
        aws.s3.BucketReplicationConfig(
            self.called("copying"),
            bucket=storage.by[OBJECTS].bucket,
            role=role.arn,
            rules=[
                _rule(priority, other, prefix) for priority, (other, prefix) in enumerate(targets)
            ],
            opts=self.inside(depends_on=[one.versioned[OBJECTS] for one in (storage, *others)]),
        )
        self.register_outputs({})

    def _may(self, storage: Storage, others: Sequence[Storage]) -> list[dict[str, Any]]:
        own = f"arn:aws:s3:::{storage.name(OBJECTS)}"
        far = [
            f"arn:aws:s3:::{other.name(OBJECTS)}/{prefix}*" for other in others for prefix in COPIED
        ]
        alias = {"kms:ResourceAliases": self.here.names.key_alias("data")}
        return [
            {
                "Effect": "Allow",
                "Action": ["s3:GetReplicationConfiguration", "s3:ListBucket"],
                "Resource": own,
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObjectVersionForReplication",
                    "s3:GetObjectVersionAcl",
                    "s3:GetObjectVersionTagging",
                ],
                "Resource": [f"{own}/{prefix}*" for prefix in COPIED],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"],
                "Resource": far,
            },
            {
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"],
                "Resource": f"arn:aws:kms:*:{self.here.account}:key/*",
                "Condition": {"ForAnyValue:StringEquals": alias},
            },
        ]


def _rule(priority: int, other: Storage, prefix: str) -> aws.s3.BucketReplicationConfigRuleArgs:
    """Within 15 minutes (Replication Time Control), as AWS then also measures."""
    args = aws.s3
    minutes = args.BucketReplicationConfigRuleDestinationReplicationTimeTimeArgs(minutes=15)
    threshold = args.BucketReplicationConfigRuleDestinationMetricsEventThresholdArgs(minutes=15)
    kms = args.BucketReplicationConfigRuleSourceSelectionCriteriaSseKmsEncryptedObjectsArgs(
        status="Enabled"
    )
    return args.BucketReplicationConfigRuleArgs(
        id=f"{prefix.rstrip('/')}-to-{other.here.region.name}",
        priority=priority,
        status="Enabled",
        filter=args.BucketReplicationConfigRuleFilterArgs(prefix=prefix),
        delete_marker_replication=args.BucketReplicationConfigRuleDeleteMarkerReplicationArgs(
            status="Enabled"
        ),
        source_selection_criteria=args.BucketReplicationConfigRuleSourceSelectionCriteriaArgs(
            sse_kms_encrypted_objects=kms
        ),
        destination=args.BucketReplicationConfigRuleDestinationArgs(
            bucket=other.by[OBJECTS].arn,
            storage_class="STANDARD_IA",
            encryption_configuration=(
                args.BucketReplicationConfigRuleDestinationEncryptionConfigurationArgs(
                    replica_kms_key_id=other.key
                )
            ),
            replication_time=args.BucketReplicationConfigRuleDestinationReplicationTimeArgs(
                status="Enabled", time=minutes
            ),
            metrics=args.BucketReplicationConfigRuleDestinationMetricsArgs(
                status="Enabled", event_threshold=threshold
            ),
        ),
    )
