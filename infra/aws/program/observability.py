"""What watches a region and whom it tells: two topics, the alarms of the table, a dashboard.

CloudWatch measures the load balancers, tasks (Container Insights), databases and caches by itself,
so the alarms need nothing of ours to run. Whether a region answers is an alarm in us-east-1, where
Route 53 keeps what its health checks see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.alarms import MINUTE, Alarm, alarms
from infra.aws.program.balancer import Balancer
from infra.aws.program.here import Here, Part, policy, text

ROUTE53_REGION = "us-east-1"
WIDTH, HEIGHT, COLUMNS = 8, 6, 3


class Topics(Part):
    """`by` has the topics by severity."""

    def __init__(self, here: Here, key: pulumi.Output[str]) -> None:
        super().__init__(here, "Topics")
        told = {
            "critical": here.platform.aws.alerts.critical,
            "warning": here.platform.aws.alerts.warning,
        }
        self.by = {severity: self._topic(severity, key) for severity in told}
        for severity, addresses in told.items():
            for index, address in enumerate(addresses):
                aws.sns.TopicSubscription(
                    self.called(f"alerts-{severity}-{index}"),
                    topic=self.by[severity].arn,
                    protocol="email",
                    endpoint=address,
                    opts=self.inside(),
                )
        self.register_outputs({})

    def _topic(self, severity: str, key: pulumi.Output[str]) -> aws.sns.Topic:
        name = self.here.names.topic(severity, self.here.region.name)
        return aws.sns.Topic(
            self.called(f"alerts-{severity}"),
            name=name,
            kms_master_key_id=key,
            policy=policy(
                {
                    "Sid": "Tell",
                    "Effect": "Allow",
                    "Principal": {"Service": ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]},
                    "Action": "sns:Publish",
                    "Resource": self.here.arn("sns", name),
                    "Condition": {"StringEquals": {"aws:SourceAccount": self.here.account}},
                }
            ),
            opts=self.inside(),
        )


class Alarms(Part):
    def __init__(self, here: Here, topics: Topics, balancer: Balancer) -> None:
        super().__init__(here, "Alarms")
        self._made_up = {
            "@balancer": balancer.balancer.arn_suffix,
            "@targets": balancer.targets.arn_suffix,
        }
        self._topics = topics
        found = alarms(here.platform, here.region)
        for alarm in found:
            self._alarm(alarm)
        aws.cloudwatch.Dashboard(
            self.called("dashboard"),
            dashboard_name=here.names.dashboard(here.region.name),
            dashboard_body=text({"widgets": self._widgets(found)}),
            opts=self.inside(),
        )
        self.register_outputs({})

    def _alarm(self, alarm: Alarm) -> None:
        topic = self._topics.by[alarm.severity].arn
        place = {name: self._made_up.get(value, value) for name, value in alarm.dimensions.items()}
        common: dict[str, Any] = {
            "name": self.here.names.alarm(alarm.name, self.here.region.name),
            "alarm_description": alarm.says,
            "comparison_operator": ("LessThanThreshold" if alarm.below else "GreaterThanThreshold"),
            "threshold": alarm.threshold,
            "evaluation_periods": alarm.periods,
            "datapoints_to_alarm": alarm.periods,
            "treat_missing_data": "breaching" if alarm.below else "notBreaching",
            "alarm_actions": [topic],
            "ok_actions": [topic],
            "opts": self.inside(),
        }
        if alarm.total:
            common["metric_queries"] = _share(alarm, place)
        elif alarm.anywhere:
            common["metric_queries"] = [_worst(alarm, place)]
        else:
            common |= {
                "namespace": alarm.namespace,
                "metric_name": alarm.metric,
                "dimensions": place,
                "period": MINUTE,
            }
            kind = "extended_statistic" if alarm.statistic.startswith("p") else "statistic"
            common[kind] = alarm.statistic
        aws.cloudwatch.MetricAlarm(self.called(f"alarm-{alarm.name}"), **common)

    def _widgets(self, found: tuple[Alarm, ...]) -> list[dict[str, Any]]:
        """A picture of each alarm: it shows the metric and the line that it must not cross."""
        region = self.here.region.name
        return [
            {
                "type": "alarm",
                "x": index % COLUMNS * WIDTH,
                "y": index // COLUMNS * HEIGHT,
                "width": WIDTH,
                "height": HEIGHT,
                "properties": {
                    "title": alarm.name,
                    "alarms": [
                        self.here.arn(
                            "cloudwatch", f"alarm:{self.here.names.alarm(alarm.name, region)}"
                        )
                    ],
                },
            }
            for index, alarm in enumerate(found)
        ]


def _share(alarm: Alarm, place: dict[str, Any]) -> list[aws.cloudwatch.MetricAlarmMetricQueryArgs]:
    """`metric` in percent of `total`; nothing of nothing is nothing."""
    query = aws.cloudwatch.MetricAlarmMetricQueryArgs
    metric = aws.cloudwatch.MetricAlarmMetricQueryMetricArgs
    parts = [
        query(
            id=id,
            metric=metric(
                namespace=alarm.namespace,
                metric_name=name,
                stat=alarm.statistic,
                period=MINUTE,
                dimensions=place,
            ),
        )
        for id, name in (("part", alarm.metric), ("whole", alarm.total))
    ]
    share = query(
        id="share", expression="100 * FILL(part, 0) / whole", label=alarm.name, return_data=True
    )
    return [share, *parts]


def _worst(alarm: Alarm, place: dict[str, Any]) -> aws.cloudwatch.MetricAlarmMetricQueryArgs:
    """By Metrics Insights, which without SCHEMA looks at metrics with further dimensions too."""
    where = " AND ".join(f"{name} = '{value}'" for name, value in place.items())
    return aws.cloudwatch.MetricAlarmMetricQueryArgs(
        id="worst",
        expression=f'SELECT MAX({alarm.metric}) FROM "{alarm.namespace}" WHERE {where}',  # noqa: S608  # nosec B608 (metrics)
        period=MINUTE,
        label=alarm.name,
        return_data=True,
    )


class Answering(Part):
    """An alarm for each region that does not answer. It stands where Route 53 measures, and can
    tell only a topic of that region: without one it is to be seen, and tells nobody."""

    def __init__(
        self,
        here: Here,
        checks: Mapping[str, pulumi.Output[str]],
        topic: pulumi.Output[str] | None,
    ) -> None:
        super().__init__(here, "Answering")
        told = [topic] if topic is not None else []
        for region, check in checks.items():
            aws.cloudwatch.MetricAlarm(
                self.called(f"alarm-answers-{region}"),
                name=here.names.alarm("answers", region),
                alarm_description=f"{region} does not answer Route 53's health checkers.",
                namespace="AWS/Route53",
                metric_name="HealthCheckStatus",
                dimensions={"HealthCheckId": check},
                statistic="Minimum",
                comparison_operator="LessThanThreshold",
                threshold=1,
                period=MINUTE,
                evaluation_periods=1,
                treat_missing_data="breaching",
                alarm_actions=told,
                ok_actions=told,
                region=ROUTE53_REGION,
                opts=self.inside(),
            )
        self.register_outputs({})
