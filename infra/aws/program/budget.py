"""What all of it may cost in a month, and who is told before it does."""

from __future__ import annotations

import pulumi_aws as aws

from infra.aws.program.here import Here, Part

# Percent of the budget: spent, and expected by the end of the month.
SPENT, EXPECTED = 80, 100


class Budget(Part):
    def __init__(self, here: Here) -> None:
        super().__init__(here, "Budget")
        alerts = here.platform.aws.alerts
        notification = aws.budgets.BudgetNotificationArgs
        aws.budgets.Budget(
            self.called("budget"),
            name=here.names.budget("monthly"),
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(here.platform.aws.budget_usd),
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(
                    name="TagKeyValue",
                    values=[f"user:topology${here.platform.topology.name}"],
                )
            ],
            notifications=[
                notification(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=threshold,
                    threshold_type="PERCENTAGE",
                    subscriber_email_addresses=list(told),
                )
                for kind, threshold, told in (
                    ("ACTUAL", SPENT, alerts.warning),
                    ("ACTUAL", EXPECTED, alerts.critical),
                    ("FORECASTED", EXPECTED, alerts.warning),
                )
            ],
            opts=self.inside(),
        )
        self.register_outputs({})
