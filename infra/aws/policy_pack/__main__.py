"""The pack: `pulumi preview --policy-pack infra/aws/policy_pack`, or offline by `infra plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from infra.aws.plan import COMPUTED
from infra.aws.policy_pack import durability, encryption, exposure
from infra.aws.policy_pack.world import Resource, Violation, World

Rule = Callable[[World], Iterator[Violation]]
MANDATORY, ADVISORY = EnforcementLevel.MANDATORY, EnforcementLevel.ADVISORY
POLICIES: Sequence[tuple[str, EnforcementLevel, Rule]] = (
    ("encryption-at-rest", MANDATORY, encryption.at_rest),
    ("encryption-in-transit", MANDATORY, encryption.in_transit),
    ("no-public-access", MANDATORY, exposure.public),
    ("no-open-security-group", MANDATORY, exposure.open_groups),
    ("least-privilege", MANDATORY, exposure.least_privilege),
    ("required-tags", MANDATORY, durability.tags),
    ("deletion-protection", MANDATORY, durability.deletion),
    ("two-zones", MANDATORY, durability.two_zones),
    ("key-rotation", MANDATORY, durability.keys),
    ("backup-retention", MANDATORY, durability.backups),
    ("kept-logs", ADVISORY, durability.watched),
    ("pinned-images", ADVISORY, durability.images),
)


def resource(given: Any) -> Resource:
    return Resource(
        urn=given.urn,
        type=given.resource_type,
        name=given.name,
        props=known(given.props),
        provider=known(given.provider.props) if given.provider else {},
        needs={
            key: [each.urn for each in found] for key, found in given.property_dependencies.items()
        },
        protect=bool(given.opts.protect),
    )


def known(value: Any) -> Any:
    """A value of the SDK as plain data: what is unknown is `COMPUTED` instead of an exception."""
    if isinstance(value, Mapping):
        return {key: peek(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [peek(value, index) for index in range(len(value))]
    return value


def peek(container: Any, key: Any) -> Any:
    try:
        return known(container[key])
    except UnknownValueError:
        return COMPUTED


def policy(name: str, level: EnforcementLevel, rule: Rule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for urn, message in rule(World([resource(each) for each in args.resources])):
            report(message, urn)

    return StackValidationPolicy(
        name=name,
        description=(rule.__doc__ or "").strip(),
        validate=validate,
        enforcement_level=level,
    )


PolicyPack(
    name="regionctl-aws",
    enforcement_level=MANDATORY,
    policies=[policy(*each) for each in POLICIES],
)
