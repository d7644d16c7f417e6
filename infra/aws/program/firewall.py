"""The web application firewall at the edge: AWS's managed rules, and how much one client may send.

The services count each client by who it is, with the same limits (`runtime/ratelimit.py`). Here a
client is its address with its token, and what it sends too much never gets to a region.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part, policy
from infra.aws.program.keys import DELETION_DAYS, ROTATION_DAYS, account_decides, for_logs
from infra.local.envoy_edge import Guard
from runtime import ratelimit

EDGE_REGION = "us-east-1"
WINDOW_SECONDS = 60
# Of `runtime/app.py`; also the most that the firewall reads of a body.
BODY_LIMIT = 64 * 1024
MANAGED = (
    "AWSManagedRulesAmazonIpReputationList",
    "AWSManagedRulesKnownBadInputsRuleSet",
    "AWSManagedRulesCommonRuleSet",
    "AWSManagedRulesSQLiRuleSet",
)
# Its limit of 8 KiB is below what the platform takes; the rule of our own below has ours.
COUNTED = {"AWSManagedRulesCommonRuleSet": ("SizeRestrictions_BODY",)}
# Name, requests a minute, method (any when empty), path, whether what is below it counts too.
LIMITS = (
    ("users-list", ratelimit.USERS_LIST.requests, "GET", ratelimit.USERS, False),
    ("users", ratelimit.USERS_ONE.requests, "", f"{ratelimit.USERS}/", True),
    ("place-order", ratelimit.PLACE.requests, "POST", ratelimit.ORDERS, False),
    ("orders", ratelimit.ORDERS_OTHER.requests, "", ratelimit.ORDERS, True),
    ("token", ratelimit.TOKEN.requests, "POST", "/oauth/token", False),
)
Visible = aws.wafv2.WebAclRuleVisibilityConfigArgs
Rule = aws.wafv2.WebAclRuleArgs
Statement = aws.wafv2.WebAclRuleStatementArgs
Rate = aws.wafv2.WebAclRuleStatementRateBasedStatementArgs
Key = aws.wafv2.WebAclRuleStatementRateBasedStatementCustomKeyArgs
KeyHeader = aws.wafv2.WebAclRuleStatementRateBasedStatementCustomKeyHeaderArgs
KeyText = aws.wafv2.WebAclRuleStatementRateBasedStatementCustomKeyHeaderTextTransformationArgs
Scope = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementArgs
Both = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementAndStatementArgs
Match = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementByteMatchStatementArgs
Field = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementByteMatchStatementFieldToMatchArgs  # noqa: E501
FieldMethod = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementByteMatchStatementFieldToMatchMethodArgs  # noqa: E501
FieldPath = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementByteMatchStatementFieldToMatchUriPathArgs  # noqa: E501
Text = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementByteMatchStatementTextTransformationArgs  # noqa: E501


class Firewall(Part):
    """Stands where AWS keeps what is for CloudFront, whichever region serves."""

    def __init__(self, here: Here) -> None:
        super().__init__(here, "Firewall")
        name = here.names.web_acl("edge")
        rules = [self._managed(index, group) for index, group in enumerate(MANAGED)]
        rules.append(self._body(len(rules)))
        rules.append(self._flood(len(rules)))
        rules += [self._limit(len(rules) + index, *limit) for index, limit in enumerate(LIMITS)]
        self.acl = aws.wafv2.WebAcl(
            self.called("firewall"),
            name=name,
            description="Managed rules, and limits for each client",
            scope="CLOUDFRONT",
            region=EDGE_REGION,
            default_action=aws.wafv2.WebAclDefaultActionArgs(
                allow=aws.wafv2.WebAclDefaultActionAllowArgs()
            ),
            rules=rules,
            association_config=aws.wafv2.WebAclAssociationConfigArgs(
                request_bodies=[
                    aws.wafv2.WebAclAssociationConfigRequestBodyArgs(
                        cloudfront=aws.wafv2.WebAclAssociationConfigRequestBodyCloudfrontArgs(
                            default_size_inspection_limit=f"KB_{BODY_LIMIT // 1024}"
                        )
                    )
                ]
            ),
            visibility_config=aws.wafv2.WebAclVisibilityConfigArgs(
                cloudwatch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=True
            ),
            opts=self.inside(),
        )
        logs = aws.cloudwatch.LogGroup(
            self.called("logs-firewall"),
            # AWS takes no other name than one that begins so.
            name=f"aws-waf-logs-{here.names.stem}",
            retention_in_days=here.platform.aws.log_days,
            kms_key_id=self._key().arn,
            region=EDGE_REGION,
            opts=self.inside(),
        )
        aws.wafv2.WebAclLoggingConfiguration(
            self.called("firewall"),
            resource_arn=self.acl.arn,
            log_destination_configs=[logs.arn],
            region=EDGE_REGION,
            redacted_fields=[
                aws.wafv2.WebAclLoggingConfigurationRedactedFieldArgs(
                    single_header=aws.wafv2.WebAclLoggingConfigurationRedactedFieldSingleHeaderArgs(
                        name="authorization"
                    )
                )
            ],
            opts=self.inside(),
        )
        self.register_outputs({})

    def _key(self) -> aws.kms.Key:
        """A key of its own, as no other may be where these logs are."""
        return aws.kms.Key(
            self.called("key-firewall"),
            description=f"{self.here.names.stem}: firewall",
            enable_key_rotation=True,
            rotation_period_in_days=ROTATION_DAYS,
            deletion_window_in_days=DELETION_DAYS,
            policy=policy(account_decides(self.here), for_logs(self.here, EDGE_REGION)),
            region=EDGE_REGION,
            opts=self.inside(protect=True),
        )

    def _visible(self, name: str) -> Visible:
        return Visible(
            cloudwatch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=True
        )

    def _managed(self, priority: int, group: str) -> Rule:
        override = aws.wafv2.WebAclRuleOverrideActionArgs
        counted = aws.wafv2.WebAclRuleStatementManagedRuleGroupStatementRuleActionOverrideArgs
        use = (
            aws.wafv2.WebAclRuleStatementManagedRuleGroupStatementRuleActionOverrideActionToUseArgs
        )
        count = aws.wafv2.WebAclRuleStatementManagedRuleGroupStatementRuleActionOverrideActionToUseCountArgs  # noqa: E501
        blocks = self.here.platform.aws.block_known_bad
        return Rule(
            name=group,
            priority=priority,
            override_action=(
                override(none=aws.wafv2.WebAclRuleOverrideActionNoneArgs())
                if blocks
                else override(count=aws.wafv2.WebAclRuleOverrideActionCountArgs())
            ),
            statement=Statement(
                managed_rule_group_statement=aws.wafv2.WebAclRuleStatementManagedRuleGroupStatementArgs(
                    vendor_name="AWS",
                    name=group,
                    rule_action_overrides=[
                        counted(name=rule, action_to_use=use(count=count()))
                        for rule in COUNTED.get(group, ())
                    ],
                )
            ),
            visibility_config=self._visible(group),
        )

    def _body(self, priority: int) -> Rule:
        """What is larger than the services take: what the firewall cannot see to its end."""
        size = aws.wafv2.WebAclRuleStatementSizeConstraintStatementArgs
        field = aws.wafv2.WebAclRuleStatementSizeConstraintStatementFieldToMatchArgs
        body = aws.wafv2.WebAclRuleStatementSizeConstraintStatementFieldToMatchBodyArgs
        text = aws.wafv2.WebAclRuleStatementSizeConstraintStatementTextTransformationArgs
        return Rule(
            name="body-too-large",
            priority=priority,
            action=_block(413),
            statement=Statement(
                size_constraint_statement=size(
                    comparison_operator="GT",
                    size=BODY_LIMIT,
                    field_to_match=field(body=body(oversize_handling="MATCH")),
                    text_transformations=[text(priority=0, type="NONE")],
                )
            ),
            visibility_config=self._visible("body-too-large"),
        )

    def _flood(self, priority: int) -> Rule:
        return Rule(
            name="flood",
            priority=priority,
            action=_block(429),
            statement=Statement(
                rate_based_statement=Rate(
                    aggregate_key_type="IP",
                    limit=Guard().per_second * WINDOW_SECONDS,
                    evaluation_window_sec=WINDOW_SECONDS,
                )
            ),
            visibility_config=self._visible("flood"),
        )

    def _limit(
        self, priority: int, name: str, requests: int, method: str, path: str, below: bool
    ) -> Rule:
        """One client, by address and token; who asks for a token has none yet, so by address alone.

        A request without one of its keys is not counted at all ("Aggregating rate-based rules",
        AWS WAF Developer Guide): who shows no token, or changes it, is held by the flood rule.
        """
        conditions = [_match(Field(uri_path=FieldPath()), path, below)]
        if method:
            conditions.append(_match(Field(method=FieldMethod()), method, False))
        shown = name != "token"
        address = Key(ip=aws.wafv2.WebAclRuleStatementRateBasedStatementCustomKeyIpArgs())
        token = Key(
            header=KeyHeader(
                name="authorization", text_transformations=[KeyText(priority=0, type="NONE")]
            )
        )
        single = conditions[0] if len(conditions) == 1 else None
        return Rule(
            name=name,
            priority=priority,
            action=_block(429),
            statement=Statement(
                rate_based_statement=Rate(
                    aggregate_key_type="CUSTOM_KEYS" if shown else "IP",
                    custom_keys=[address, token] if shown else None,
                    limit=requests,
                    evaluation_window_sec=WINDOW_SECONDS,
                    scope_down_statement=single or Scope(and_statement=Both(statements=conditions)),
                )
            ),
            visibility_config=self._visible(name),
        )


def _match(field: pulumi.Input[Field], text: str, begins: bool) -> Scope:
    return Scope(
        byte_match_statement=Match(
            field_to_match=field,
            positional_constraint="STARTS_WITH" if begins else "EXACTLY",
            search_string=text,
            text_transformations=[Text(priority=0, type="NONE")],
        )
    )


def _block(status: int) -> aws.wafv2.WebAclRuleActionArgs:
    block = aws.wafv2.WebAclRuleActionBlockArgs
    answer = aws.wafv2.WebAclRuleActionBlockCustomResponseArgs
    return aws.wafv2.WebAclRuleActionArgs(block=block(custom_response=answer(response_code=status)))
