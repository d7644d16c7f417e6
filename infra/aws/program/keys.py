"""Keys of a region: one for data, one for logs and alerts.

The data key is a multi-region key: the same key material under the same id in every region, so a
snapshot, a secret or an object that was copied is readable where it arrives, also when the region
that it came from is away. It is rotated every year, by AWS, everywhere at once.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part, policy

DELETION_DAYS = 30
ROTATION_DAYS = 365


class Keys(Part):
    """`primary` is the data key of the region that serves, for the others to replicate."""

    def __init__(self, here: Here, primary: aws.kms.Key | None) -> None:
        super().__init__(here, "Keys")
        self.multi_region: aws.kms.Key | None = None
        self.data: pulumi.Output[str]
        self.data_id: pulumi.Output[str]
        if primary is None:
            self.multi_region = self._key("data", multi_region=True, statements=[])
            self.data, self.data_id = self.multi_region.arn, self.multi_region.key_id
        else:
            replica = aws.kms.ReplicaKey(
                self.called("key-data"),
                primary_key_arn=primary.arn,
                description=f"{here.names.stem}: data",
                policy=policy(account_decides(here)),
                deletion_window_in_days=DELETION_DAYS,
                opts=self.inside(protect=True),
            )
            self.data, self.data_id = replica.arn, replica.key_id
        self.alias = self._alias("data", self.data_id)
        logs = self._key(
            "logs", multi_region=False, statements=[for_logs(here, here.region.name), _for_alarms()]
        )
        self.logs = logs.arn
        self._alias("logs", logs.key_id)
        self.register_outputs({})

    def _key(
        self, purpose: str, *, multi_region: bool, statements: list[dict[str, Any]]
    ) -> aws.kms.Key:
        return aws.kms.Key(
            self.called(f"key-{purpose}"),
            description=f"{self.here.names.stem}: {purpose}",
            multi_region=multi_region,
            enable_key_rotation=True,
            rotation_period_in_days=ROTATION_DAYS,
            deletion_window_in_days=DELETION_DAYS,
            policy=policy(account_decides(self.here), *statements),
            opts=self.inside(protect=True),
        )

    def _alias(self, purpose: str, key: pulumi.Output[str]) -> aws.kms.Alias:
        return aws.kms.Alias(
            self.called(f"alias-{purpose}"),
            name=self.here.names.key_alias(purpose),
            target_key_id=key,
            opts=self.inside(),
        )


def account_decides(here: Here) -> dict[str, Any]:
    """Who may use a key is said by the account's own policies (IAM)."""
    return {
        "Sid": "Account",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{here.account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }


def for_logs(here: Here, region: str) -> dict[str, Any]:
    """CloudWatch encrypts the log groups of this account with it, in `region`."""
    groups = f"arn:aws:logs:{region}:{here.account}:log-group:*"
    return {
        "Sid": "Logs",
        "Effect": "Allow",
        "Principal": {"Service": f"logs.{region}.amazonaws.com"},
        "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*"],
        "Resource": "*",
        "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
    }


def _for_alarms() -> dict[str, Any]:
    return {
        "Sid": "Alarms",
        "Effect": "Allow",
        "Principal": {"Service": ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
        "Resource": "*",
    }
