"""Where a component stands: its region, the provider that goes there, and the names of things."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.naming import Names
from infra.aws.spec import Platform, RegionSpec


@dataclass(frozen=True)
class Here:
    """`account` is the number of the account; a plan without one has "<account>" in its place."""

    platform: Platform
    region: RegionSpec
    provider: aws.Provider
    parent: pulumi.Resource
    account: str

    @property
    def names(self) -> Names:
        return self.platform.names

    def arn(self, service: str, resource: str) -> str:
        """The ARN of something in this region, which its name is enough for."""
        return f"arn:aws:{service}:{self.region.name}:{self.account}:{resource}"

    def log_arn(self, component: str) -> str:
        """A log group with all its streams."""
        return self.arn("logs", f"log-group:{self.names.log_group(component, self.region.name)}:*")


class Part(pulumi.ComponentResource):
    """What belongs together in one region. Its children go to the region by its provider. `name`
    where a region has several of a kind."""

    def __init__(self, here: Here, kind: str, name: str = "") -> None:
        self.here = here
        super().__init__(
            f"regionctl:aws:{kind}",
            self.called(name or kind.lower()),
            None,
            pulumi.ResourceOptions(parent=here.parent, providers=[here.provider]),
        )

    def called(self, what: str) -> str:
        """The logical name of a resource: what it is, after its region."""
        return f"{self.here.region.name}-{what}"

    def inside(self, **options: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)


def text(value: Any) -> str:
    """JSON in one order, for policies and the like."""
    return json.dumps(value, sort_keys=True)


def policy(*statements: dict[str, Any]) -> str:
    return text({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service: str, **conditions: Any) -> str:
    """A role's policy: `service` of AWS may take it on."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if conditions:
        statement["Condition"] = conditions
    return policy(statement)
