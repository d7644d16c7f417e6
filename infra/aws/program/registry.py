"""Where the image is kept: a repository in each region, filled by copying from the first one."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part, text

KEPT_IMAGES, UNTAGGED_DAYS = 50, 7


class Registry(Part):
    def __init__(self, here: Here, key: pulumi.Output[str]) -> None:
        super().__init__(here, "Registry")
        self.repository = aws.ecr.Repository(
            self.called("images"),
            name=here.names.repository(),
            image_tag_mutability="IMMUTABLE",
            force_delete=False,
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(
                scan_on_push=True
            ),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=key)
            ],
            opts=self.inside(protect=True),
        )
        aws.ecr.LifecyclePolicy(
            self.called("images"),
            repository=self.repository.name,
            policy=text(
                {
                    "rules": [
                        _rule(1, "untagged", "sinceImagePushed", UNTAGGED_DAYS),
                        _rule(2, "any", "imageCountMoreThan", KEPT_IMAGES),
                    ]
                }
            ),
            opts=self.inside(),
        )
        self.register_outputs({})

    def copy_to(self, regions: Sequence[str], after: Sequence[pulumi.Resource]) -> None:
        """What is pushed here is pushed there. A setting of the whole registry of this region."""
        replication = aws.ecr.ReplicationConfigurationReplicationConfigurationArgs
        rule = aws.ecr.ReplicationConfigurationReplicationConfigurationRuleArgs
        target = aws.ecr.ReplicationConfigurationReplicationConfigurationRuleDestinationArgs
        of = aws.ecr.ReplicationConfigurationReplicationConfigurationRuleRepositoryFilterArgs
        aws.ecr.ReplicationConfiguration(
            self.called("images-copying"),
            replication_configuration=replication(
                rules=[
                    rule(
                        destinations=[
                            target(region=region, registry_id=self.here.account)
                            for region in regions
                        ],
                        repository_filters=[
                            of(filter=self.here.names.repository(), filter_type="PREFIX_MATCH")
                        ],
                    )
                ]
            ),
            opts=self.inside(depends_on=list(after)),
        )


def _rule(priority: int, status: str, kind: str, number: int) -> dict[str, object]:
    selection: dict[str, object] = {
        "tagStatus": status,
        "countType": kind,
        "countNumber": number,
    }
    if kind == "sinceImagePushed":
        selection["countUnit"] = "days"
    return {"rulePriority": priority, "selection": selection, "action": {"type": "expire"}}
