"""The load balancer of a region: TLS from CloudFront, TLS to Envoy, nothing from anybody else.

CloudFront's addresses are everybody's who has a distribution. Ours shows a secret header; without
it the answer is 403.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.naming import LOGS
from infra.aws.program.dns import certified
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here, Part
from infra.aws.program.network import Network
from infra.aws.program.storage import Storage
from infra.aws.spec import GATEWAY_PORT, READY

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
PROOF = "X-Regionctl-Origin"
# Above the 14 s that a gateway takes for a request at most, below CloudFront's 60.
IDLE_SECONDS = 30
# A gateway that is taken away may finish what it has.
DRAIN_SECONDS = 20


class Balancer(Part):
    """`proof` is the secret that CloudFront shows."""

    def __init__(
        self,
        here: Here,
        network: Network,
        groups: Groups,
        storage: Storage,
        zone: aws.route53.Zone,
        proof: pulumi.Output[str],
    ) -> None:
        super().__init__(here, "Balancer")
        names, region = here.names, here.region.name
        self.balancer = aws.lb.LoadBalancer(
            self.called("balancer"),
            name=names.balancer(region),
            load_balancer_type="application",
            internal=False,
            security_groups=[groups.by["balancer"].id, groups.by["checked"].id],
            subnets=[subnet.id for subnet in network.public],
            access_logs=aws.lb.LoadBalancerAccessLogsArgs(
                bucket=storage.by[LOGS].bucket, prefix="balancer", enabled=True
            ),
            enable_deletion_protection=True,
            enable_cross_zone_load_balancing=True,
            enable_http2=True,
            enable_zonal_shift=True,
            drop_invalid_header_fields=True,
            desync_mitigation_mode="strictest",
            xff_header_processing_mode="append",
            idle_timeout=IDLE_SECONDS,
            opts=self.inside(protect=True, depends_on=storage.ready[LOGS]),
        )
        self.targets = aws.lb.TargetGroup(
            self.called("targets"),
            name=names.target_group(region),
            vpc_id=network.vpc.id,
            target_type="ip",
            protocol="HTTPS",
            port=GATEWAY_PORT,
            deregistration_delay=DRAIN_SECONDS,
            load_balancing_algorithm_type="least_outstanding_requests",
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                enabled=True,
                protocol="HTTPS",
                path=READY,
                matcher="200",
                interval=5,
                timeout=2,
                healthy_threshold=2,
                unhealthy_threshold=2,
            ),
            opts=self.inside(),
        )
        host = names.region_origin(region)
        certificate = certified(self, "origin", host, zone, alternatives=[names.origin()])
        listener = aws.lb.Listener(
            self.called("listener"),
            load_balancer_arn=self.balancer.arn,
            port=443,
            protocol="HTTPS",
            ssl_policy=TLS_POLICY,
            certificate_arn=certificate,
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(
                    type="fixed-response",
                    fixed_response=aws.lb.ListenerDefaultActionFixedResponseArgs(
                        content_type="text/plain", message_body="Forbidden", status_code="403"
                    ),
                )
            ],
            opts=self.inside(),
        )
        self.rule = self._let_in(listener, proof)
        self.register_outputs({})

    def _let_in(self, listener: aws.lb.Listener, proof: pulumi.Output[str]) -> aws.lb.ListenerRule:
        """What shows the secret, and health checks, which can show nothing."""
        forward = aws.lb.ListenerRuleActionArgs(type="forward", target_group_arn=self.targets.arn)
        aws.lb.ListenerRule(
            self.called("rule-health"),
            listener_arn=listener.arn,
            priority=10,
            actions=[forward],
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    path_pattern=aws.lb.ListenerRuleConditionPathPatternArgs(values=[READY])
                )
            ],
            opts=self.inside(),
        )
        return aws.lb.ListenerRule(
            self.called("rule-edge"),
            listener_arn=listener.arn,
            priority=20,
            actions=[forward],
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    http_header=aws.lb.ListenerRuleConditionHttpHeaderArgs(
                        http_header_name=PROOF, values=[proof]
                    )
                )
            ],
            opts=self.inside(),
        )
