"""What each component may do on AWS: the least that it needs. Pure; statements of IAM policies.

Two roles a task: ECS itself starts it by the first (image, log, secrets), its program acts by the
second. What has a name of ours is named; where AWS makes up the identifier, a tag or an alias of
ours is demanded.
"""

from __future__ import annotations

from typing import Any

from infra.aws import images
from infra.aws.naming import CONTROL_PLANE, GATEWAY, OBJECTS
from infra.aws.spec import Platform, RegionSpec, TaskSpec

Statement = dict[str, Any]
# What a service keeps in S3, by the folders of the region's bucket.
FOLDERS = {"payments": ("invoices/",), "notifications": ("analytics/",)}


def starting(
    platform: Platform, region: RegionSpec, task: TaskSpec, account: str, log_arn: str
) -> list[Statement]:
    """What ECS needs to start a task of this component, and no other."""
    names = platform.names
    repository = f"arn:aws:ecr:{region.name}:{account}:repository/{names.repository()}"
    found = [
        _allow(["ecr:GetAuthorizationToken"], "*"),
        _allow(
            [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetDownloadUrlForLayer",
            ],
            repository,
        ),
        _allow(["logs:CreateLogStream", "logs:PutLogEvents"], log_arn),
    ]
    kept = sorted(images.secrets(platform, task).values())
    if kept:
        arns = [f"{images.secret_arn(platform, region, account, name)}-??????" for name in kept]
        found.append(_allow(["secretsmanager:GetSecretValue"], arns))
        found.append(_decrypt(platform, region, account, "secretsmanager"))
    told = sorted(images.parameters(task).values())
    if told:
        arns = [images.parameter_arn(platform, region, account, name) for name in told]
        found.append(_allow(["ssm:GetParameters"], arns))
    return found


def acting(platform: Platform, region: RegionSpec, task: TaskSpec, account: str) -> list[Statement]:
    """What the program of this component does by itself."""
    if task.component == GATEWAY:
        return [_allow(["servicediscovery:DiscoverInstances"], "*")]
    if task.component == CONTROL_PLANE:
        return controlling(platform, account)
    bucket = f"arn:aws:s3:::{platform.names.bucket(OBJECTS, region.name)}"
    found = [_allow(["s3:GetObject"], f"{bucket}/{images.map_key(region.name)}")]
    for folder in FOLDERS.get(task.component, ()):
        found.append(_allow(["s3:GetObject", "s3:PutObject"], f"{bucket}/{folder}*"))
        listed = _allow(["s3:ListBucket"], bucket)
        found.append(listed | {"Condition": {"StringLike": {"s3:prefix": f"{folder}*"}}})
    return [*found, _decrypt(platform, region, account, "s3")]


def recording(
    platform: Platform, region: RegionSpec, account: str, log_arn: str
) -> list[Statement]:
    """What a task needs so that an operator's session in it is encrypted and kept."""
    use = _allow(
        ["kms:Decrypt", "kms:GenerateDataKey"], f"arn:aws:kms:{region.name}:{account}:key/*"
    )
    alias = {"kms:ResourceAliases": platform.names.key_alias("logs")}
    return [
        _allow(["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"], log_arn),
        use | {"Condition": {"ForAnyValue:StringEquals": alias}},
    ]


def controlling(platform: Platform, account: str) -> list[Statement]:
    """What a failover, a restore, a scaling and a change of route need, in every region."""
    stem = platform.names.stem
    databases = [
        f"arn:aws:rds:*:{account}:{kind}:{stem}-*"
        for kind in ("cluster", "db", "cluster-snapshot", "subgrp", "cluster-pg")
    ]
    databases.append(f"arn:aws:rds::{account}:global-cluster:{stem}-*")
    # What a restored cluster and its server are made with, as a restore names none of ours.
    databases += [f"arn:aws:rds:*:{account}:{kind}:default*" for kind in ("og", "pg", "cluster-pg")]
    buckets = [
        f"arn:aws:s3:::{platform.names.bucket(OBJECTS, region.name)}" for region in platform.regions
    ]
    return [
        _allow(
            [
                "rds:AddTagsToResource",
                "rds:CopyDBClusterSnapshot",
                "rds:CreateDBCluster",
                "rds:CreateDBClusterSnapshot",
                "rds:CreateDBInstance",
                "rds:FailoverDBCluster",
                "rds:FailoverGlobalCluster",
                "rds:ModifyDBCluster",
                "rds:ModifyDBInstance",
                "rds:RebootDBInstance",
                "rds:RemoveFromGlobalCluster",
                "rds:RestoreDBClusterFromSnapshot",
                "rds:RestoreDBClusterToPointInTime",
                "rds:SwitchoverGlobalCluster",
            ],
            databases,
        ),
        _allow(
            ["ecs:UpdateService", "ecs:StopTask"],
            [f"arn:aws:ecs:*:{account}:{kind}/{stem}-*/*" for kind in ("service", "task")],
        ),
        _allow(
            ["elasticache:ModifyReplicationGroup", "elasticache:TestFailover"],
            [
                f"arn:aws:elasticache:*:{account}:{kind}:{stem}-*"
                for kind in ("replicationgroup", "cluster", "parametergroup", "subnetgroup")
            ],
        ),
        _allow(
            [
                "elasticloadbalancing:CreateRule",
                "elasticloadbalancing:DeleteRule",
                "elasticloadbalancing:AddTags",
            ],
            [
                f"arn:aws:elasticloadbalancing:*:{account}:{kind}/app/{stem}-*"
                for kind in ("listener", "listener-rule")
            ],
        ),
        # Route 53 knows neither names nor tags here ("Condition keys for Amazon Route 53").
        _allow(["route53:UpdateHealthCheck"], "arn:aws:route53:::healthcheck/*"),
        _tagged(
            platform,
            ["application-autoscaling:RegisterScalableTarget"],
            [f"arn:aws:application-autoscaling:*:{account}:scalable-target/*"],
        ),
        _allow(["s3:GetObject", "s3:PutObject"], [f"{bucket}/control/*" for bucket in buckets]),
        # Without it S3 does not say that a map is not there yet, but that it may not be seen.
        _allow(["s3:ListBucket"], buckets)
        | {"Condition": {"StringLike": {"s3:prefix": "control/*"}}},
        _allow(["backup:StartBackupJob"], f"arn:aws:backup:*:{account}:backup-vault:{stem}-*"),
        _allow(
            ["backup:StartCopyJob", "backup:StartRestoreJob"],
            f"arn:aws:backup:*:{account}:recovery-point:*",
        ),
        _allow(["rds:DeleteDBCluster", "rds:DeleteDBInstance"], restored(platform, account)),
        _tagged(
            platform,
            [
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:RevokeSecurityGroupEgress",
                "ec2:RevokeSecurityGroupIngress",
            ],
            [f"arn:aws:ec2:*:{account}:security-group/*"],
        ),
        _allow(
            ["secretsmanager:GetSecretValue"],
            f"arn:aws:secretsmanager:*:{account}:secret:{platform.names.secret('*')}",
        ),
        _allow(
            ["logs:FilterLogEvents"],
            f"arn:aws:logs:*:{account}:log-group:/{platform.aws.project}"
            f"/{platform.aws.environment}/*",
        ),
        _allow(_LOOKING, "*"),
        _use_of_keys(platform, account),
        _allow(
            [
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            "*",
        ),
    ]


# Most of these know no resource to name.
_LOOKING = [
    "application-autoscaling:Describe*",
    "backup:Describe*",
    "backup:List*",
    "cloudwatch:GetMetricData",
    "cloudwatch:GetMetricStatistics",
    "ec2:DescribeSecurityGroupRules",
    "ec2:DescribeSecurityGroups",
    "ecs:Describe*",
    "ecs:List*",
    "elasticache:Describe*",
    "elasticloadbalancing:Describe*",
    "rds:Describe*",
    "rds:ListTagsForResource",
    "route53:Get*",
    "route53:List*",
]


def restored(platform: Platform, account: str) -> list[str]:
    """Clusters and servers that a restore made beside the platform (`infra/aws/snapshots.py`):
    the only databases that a task may delete."""
    return [
        f"arn:aws:rds:*:{account}:{kind}:{platform.names.stem}-restored-*"
        for kind in ("cluster", "db")
    ]


def boundary(platform: Platform, account: str) -> list[Statement]:
    """What no task may ever do, whatever its role says by mistake."""
    return [
        _allow(["*"], "*"),
        {
            "Sid": "Never",
            "Effect": "Deny",
            "Action": [
                "account:*",
                "backup:DeleteBackupVault",
                "backup:DeleteRecoveryPoint",
                "ec2:Create*",
                "ec2:Delete*",
                "ec2:ModifyVpc*",
                "ec2:RunInstances",
                "iam:*",
                "kms:DisableKey",
                "kms:PutKeyPolicy",
                "kms:ScheduleKeyDeletion",
                "organizations:*",
                "rds:DeleteGlobalCluster",
                "s3:DeleteBucket",
                "s3:DeleteBucketPolicy",
                "s3:PutBucketPolicy",
                "secretsmanager:DeleteSecret",
            ],
            "Resource": "*",
        },
        {
            "Sid": "NeverButWhatARestoreMade",
            "Effect": "Deny",
            "Action": ["rds:DeleteDBCluster", "rds:DeleteDBInstance"],
            "NotResource": restored(platform, account),
        },
    ]


def _allow(actions: list[str], resource: str | list[str]) -> Statement:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def _tagged(platform: Platform, actions: list[str], resources: list[str]) -> Statement:
    """What has no name of ours, but our tag."""
    mine = {"StringEquals": {"aws:ResourceTag/topology": platform.topology.name}}
    return _allow(actions, resources) | {"Condition": mine}


def _decrypt(platform: Platform, region: RegionSpec, account: str, service: str) -> Statement:
    """The data key, which goes by its alias, and only through that service."""
    return _allow(
        ["kms:Decrypt", "kms:GenerateDataKey"], f"arn:aws:kms:{region.name}:{account}:key/*"
    ) | {
        "Condition": {
            "ForAnyValue:StringEquals": {"kms:ResourceAliases": platform.names.key_alias("data")},
            "StringEquals": {"kms:ViaService": f"{service}.{region.name}.amazonaws.com"},
        }
    }


def _use_of_keys(platform: Platform, account: str) -> Statement:
    """To make, copy and restore what is encrypted by the data key."""
    return _allow(
        ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"],
        f"arn:aws:kms:*:{account}:key/*",
    ) | {
        "Condition": {
            "ForAnyValue:StringEquals": {"kms:ResourceAliases": platform.names.key_alias("data")}
        }
    }
