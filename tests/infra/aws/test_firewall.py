"""The firewall at the edge counts as the services do, with a token and without."""

from __future__ import annotations

from typing import Any

import pytest

from infra.aws import plan as plans
from runtime import ratelimit
from runtime.app import BODY_LIMIT

Resource = dict[str, Any]


def firewall(plan: plans.JSON) -> Resource:
    (found,) = [one for one in plan["resources"] if one["type"] == "aws:wafv2/webAcl:WebAcl"]
    return dict(found)


def test_the_firewall_reads_as_much_of_a_body_as_the_services(plan: plans.JSON) -> None:
    acl = firewall(plan)
    assert acl["region"] == plans.GLOBAL
    rules = {one["name"]: one for one in acl["inputs"]["rules"]}
    size = rules["body-too-large"]["statement"]["sizeConstraintStatement"]["size"]
    assert size == BODY_LIMIT
    managed = [name for name in rules if name.startswith("AWSManagedRules")]
    assert len(managed) == 4
    priorities = [one["priority"] for one in rules.values()]
    assert len(set(priorities)) == len(priorities)


def matches(statement: Resource, request: dict[str, str]) -> bool:
    """Whether WAF's statement is true of a request: its parts by the name of the field."""
    ((kind, told),) = statement.items()
    if kind == "andStatement":
        return all(matches(each, request) for each in told["statements"])
    if kind == "notStatement":
        return not matches(told["statement"], request)
    ((field, more),) = told["fieldToMatch"].items()
    value = request.get(more.get("name", field), "")
    if kind == "sizeConstraintStatement":
        assert told["comparisonOperator"] == "GT"
        return len(value) > int(told["size"])
    if told["positionalConstraint"] == "STARTS_WITH":
        return value.startswith(str(told["searchString"]))
    return value == str(told["searchString"])


def counted(plan: plans.JSON, request: dict[str, str]) -> set[tuple[str, int]]:
    """The kinds of keys and the limits of the rules that count a request, but floods."""
    rules = firewall(plan)["inputs"]["rules"]
    found = [one["statement"].get("rateBasedStatement") for one in rules if one["name"] != "flood"]
    return {
        (one["aggregateKeyType"], one["limit"])
        for one in found
        if one
        and matches(one["scopeDownStatement"], request)
        and ("customKeys" not in one or request.get("authorization"))
    }


@pytest.mark.parametrize("token", ["", "Bearer of"])
@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/oauth/token", ""),
        ("POST", "/oauth/revoke", ""),
        ("POST", "/api/v1/users", ""),
        ("GET", "/api/v1/users", ""),
        ("GET", "/api/v1/users/u1", ""),
        ("PATCH", "/api/v1/users/u1", ""),
        ("POST", "/api/v1/orders", ""),
        ("GET", "/api/v1/orders/o1", ""),
        ("GET", "/api/v1/orders/search", "q=lamp"),
        ("GET", "/api/v1/products", "q=lamp"),
        ("GET", "/api/v1/products", ""),
        ("GET", "/.well-known/jwks.json", ""),
    ],
)
def test_the_firewall_counts_every_client_as_the_services_do_with_a_token_and_without(
    plan: plans.JSON, method: str, path: str, query: str, token: str
) -> None:
    request = {"method": method, "uriPath": path, "queryString": query, "authorization": token}
    limit = ratelimit.limit_of(method, path, "user", query=bool(query))
    found = counted(plan, request)
    if limit is None:
        assert found == set()
        return
    by_address = limit.by_address or not token
    # What is placed is an order too, and counted as one.
    assert min(found, key=lambda one: one[1]) == (
        "IP" if by_address else "CUSTOM_KEYS",
        limit.requests,
    )
