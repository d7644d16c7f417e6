"""Backups that AWS keeps apart from the databases: daily, weekly, each copied to another region.

Beside them every cluster can be restored to any second of the last days by itself. Both are
encrypted by the data key, which is there in every region. A vault lets nobody delete a backup
before its time; once a week AWS restores the newest one, says whether that went well, and takes it
away again.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part, trust

# What has this tag is backed up.
BACKED_UP = "backup"
DAILY, WEEKLY, TEST = "cron(0 5 * * ? *)", "cron(0 6 ? * SUN *)", "cron(0 9 ? * TUE *)"
DAILY_DAYS, LEAST_DAYS = 35, 7
START_MINUTES, COMPLETE_MINUTES = 60, 480
TEST_HOURS = 4
POLICIES = "arn:aws:iam::aws:policy/service-role/AWSBackupServiceRolePolicyFor"


class Vault(Part):
    def __init__(self, here: Here, key: pulumi.Output[str]) -> None:
        super().__init__(here, "Vault")
        self.vault = aws.backup.Vault(
            self.called("vault"),
            name=here.names.vault(here.region.name),
            kms_key_arn=key,
            force_destroy=False,
            opts=self.inside(protect=True),
        )
        aws.backup.VaultLockConfiguration(
            self.called("vault"),
            backup_vault_name=self.vault.name,
            min_retention_days=LEAST_DAYS,
            opts=self.inside(),
        )
        self.register_outputs({})


class Backup(Part):
    """`others` are the vaults of the other regions."""

    def __init__(self, here: Here, vault: Vault, others: Sequence[Vault]) -> None:
        super().__init__(here, "Backup")
        weekly_days = here.platform.aws.backup_vault_days
        self._vault, self._others = vault, others
        plan = aws.backup.Plan(
            self.called("backup"),
            name=here.names.backup_plan(here.region.name),
            rules=[
                self._rule("daily", DAILY, DAILY_DAYS),
                self._rule("weekly", WEEKLY, max(weekly_days, DAILY_DAYS)),
            ],
            opts=self.inside(),
        )
        self._role = self._backup_role()
        equals = aws.backup.SelectionConditionStringEqualArgs
        aws.backup.Selection(
            self.called("backup"),
            name="tagged",
            plan_id=plan.id,
            iam_role_arn=self._role.arn,
            resources=[here.arn("rds", f"cluster:{here.names.stem}-*")],
            conditions=[
                aws.backup.SelectionConditionArgs(
                    string_equals=[
                        equals(key=f"aws:ResourceTag/{BACKED_UP}", value="daily"),
                        equals(key="aws:ResourceTag/topology", value=here.platform.topology.name),
                    ]
                )
            ],
            opts=self.inside(),
        )
        self._test()
        self.register_outputs({})

    def _rule(self, name: str, schedule: str, days: int) -> aws.backup.PlanRuleArgs:
        return aws.backup.PlanRuleArgs(
            rule_name=name,
            target_vault_name=self._vault.vault.name,
            schedule=schedule,
            start_window=START_MINUTES,
            completion_window=COMPLETE_MINUTES,
            lifecycle=aws.backup.PlanRuleLifecycleArgs(delete_after=days),
            copy_actions=[
                aws.backup.PlanRuleCopyActionArgs(
                    destination_vault_arn=other.vault.arn,
                    lifecycle=aws.backup.PlanRuleCopyActionLifecycleArgs(delete_after=days),
                )
                for other in self._others
            ],
        )

    def _backup_role(self) -> aws.iam.Role:
        role = aws.iam.Role(
            self.called("role-backup"),
            name=self.here.names.role("backup", self.here.region.name),
            assume_role_policy=trust(
                "backup.amazonaws.com", StringEquals={"aws:SourceAccount": self.here.account}
            ),
            opts=self.inside(),
        )
        for purpose in ("Backup", "Restores"):
            aws.iam.RolePolicyAttachment(
                self.called(f"role-backup-{purpose.lower()}"),
                role=role.name,
                policy_arn=f"{POLICIES}{purpose}",
                opts=self.inside(),
            )
        return role

    def _test(self) -> None:
        name = self.here.names.restore_test(self.here.region.name)
        plan = aws.backup.RestoreTestingPlan(
            self.called("restore-test"),
            name=name,
            schedule_expression=TEST,
            start_window_hours=TEST_HOURS,
            recovery_point_selection=aws.backup.RestoreTestingPlanRecoveryPointSelectionArgs(
                algorithm="LATEST_WITHIN_WINDOW",
                include_vaults=[self._vault.vault.arn],
                recovery_point_types=["SNAPSHOT"],
                selection_window_days=DAILY_DAYS,
            ),
            opts=self.inside(),
        )
        aws.backup.RestoreTestingSelection(
            self.called("restore-test"),
            name=f"{name}_aurora",
            restore_testing_plan_name=plan.name,
            iam_role_arn=self._role.arn,
            protected_resource_type="Aurora",
            protected_resource_arns=["*"],
            validation_window_hours=TEST_HOURS,
            opts=self.inside(),
        )
