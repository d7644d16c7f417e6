"""The web application firewall at the edge: AWS's managed rules, and how much one client may send.

The services count each client by who it is, with the same limits (`runtime/ratelimit.py`). Here a
client is its address with its token, or its address alone where it shows no token or the services
count by address too; what it sends too much never gets to a region. What only operators do (the
audit log, products written) is counted by the services alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part, policy
from infra.aws.program.keys import DELETION_DAYS, ROTATION_DAYS, account_decides, for_logs
from infra.local.envoy_edge import Guard
from runtime import ratelimit

EDGE_REGION = "us-east-1"
WINDOW_SECONDS = 60
TOKEN = "authorization"  # noqa: S105 (a header)
PLAIN: Any = {"priority": 0, "type": "NONE"}
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


@dataclass(frozen=True)
class Counted:
    """The requests that `limit` is for: `path`, with what is `below` it; any method when empty;
    `query`: only those that have one."""

    limit: ratelimit.Limit
    method: str
    path: str
    below: bool = False
    query: bool = False


LIMITS = (
    Counted(ratelimit.USERS_LIST, "GET", ratelimit.USERS),
    Counted(ratelimit.USERS_ONE, "", f"{ratelimit.USERS}/", below=True),
    Counted(ratelimit.REGISTER, "POST", ratelimit.USERS),
    Counted(ratelimit.PLACE, "POST", ratelimit.ORDERS),
    Counted(ratelimit.ORDERS_OTHER, "", ratelimit.ORDERS, below=True),
    Counted(ratelimit.TOKEN, "POST", "/oauth/", below=True),
    Counted(ratelimit.PRODUCTS_QUERY, "", "/api/v1/products", below=True, query=True),
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
Size = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementSizeConstraintStatementArgs
SizeField = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementSizeConstraintStatementFieldToMatchArgs  # noqa: E501
SizeHeader = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementSizeConstraintStatementFieldToMatchSingleHeaderArgs  # noqa: E501
SizeQuery = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementSizeConstraintStatementFieldToMatchQueryStringArgs  # noqa: E501
SizeText = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementSizeConstraintStatementTextTransformationArgs  # noqa: E501
Not = aws.wafv2.WebAclRuleStatementRateBasedStatementScopeDownStatementNotStatementArgs
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
        for counted in LIMITS:
            rules += self._limits(len(rules), counted)
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
                        name=TOKEN
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

    def _limits(self, priority: int, counted: Counted) -> Iterator[Rule]:
        """A request without one of a rule's keys is not counted by it at all ("Aggregating
        rate-based rules", AWS WAF Developer Guide). So who shows no token has a rule of its own;
        who changes it with each request is held by the flood rule.
        """
        conditions = [_match(Field(uri_path=FieldPath()), counted.path, counted.below)]
        if counted.method:
            conditions.append(_match(Field(method=FieldMethod()), counted.method, False))
        if counted.query:
            conditions.append(_present(SizeField(query_string=SizeQuery())))
        limit = counted.limit
        if limit.by_address:
            yield self._limit(priority, limit.name, limit, conditions)
            return
        address = Key(ip=aws.wafv2.WebAclRuleStatementRateBasedStatementCustomKeyIpArgs())
        token = Key(header=KeyHeader(name=TOKEN, text_transformations=[KeyText(**PLAIN)]))
        yield self._limit(priority, limit.name, limit, conditions, [address, token])
        shown = _present(SizeField(single_header=SizeHeader(name=TOKEN)))
        conditions = [*conditions, Scope(not_statement=Not(statement=shown))]
        yield self._limit(priority + 1, f"{limit.name}-anonymous", limit, conditions)

    def _limit(
        self,
        priority: int,
        name: str,
        limit: ratelimit.Limit,
        conditions: list[Scope],
        keys: list[Key] | None = None,
    ) -> Rule:
        single = conditions[0] if len(conditions) == 1 else None
        return Rule(
            name=name,
            priority=priority,
            action=_block(429),
            statement=Statement(
                rate_based_statement=Rate(
                    aggregate_key_type="CUSTOM_KEYS" if keys else "IP",
                    custom_keys=keys,
                    limit=limit.requests,
                    evaluation_window_sec=limit.seconds,
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
            text_transformations=[Text(**PLAIN)],
        )
    )


def _present(field: SizeField) -> Scope:
    """What has it, and not empty."""
    return Scope(
        size_constraint_statement=Size(
            field_to_match=field,
            comparison_operator="GT",
            size=0,
            text_transformations=[SizeText(**PLAIN)],
        )
    )


def _block(status: int) -> aws.wafv2.WebAclRuleActionArgs:
    block = aws.wafv2.WebAclRuleActionBlockArgs
    answer = aws.wafv2.WebAclRuleActionBlockCustomResponseArgs
    return aws.wafv2.WebAclRuleActionArgs(block=block(custom_response=answer(response_code=status)))
