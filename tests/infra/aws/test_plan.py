"""A plan is one document in canonical order, without secrets, that can be compared with another."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.aws import plan as plans
from infra.aws.plan import COMPUTED, SECRET, Registered

PREFIX = "urn:pulumi:stack::project::"
PROVIDER = f"{PREFIX}pulumi:providers:aws::aws-here"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz"), inner, max_size=3),
    max_leaves=6,
)


def registered(kind: str, name: str, parent: str = "", **inputs: Any) -> Registered:
    above = parent.split("::")[2] + "$" if parent else ""
    return Registered(
        urn=f"{PREFIX}{above}{kind}::{name}",
        type=kind,
        name=name,
        parent=parent,
        inputs=inputs,
        dependencies=(),
        property_dependencies={},
        provider=PROVIDER,
        options={},
    )


def made(*resources: Registered) -> plans.JSON:
    return plans.document("t", {"pulumi": "1"}, resources, {})


def secret(value: Any) -> dict[str, Any]:
    return {plans.SIGNATURE: plans.SECRET_SIGNATURE, "value": value}


@given(VALUES)
def test_a_secret_is_never_told_however_deep_it_lies(value: Any) -> None:
    inputs = {"a": [{"b": secret("hunter2")}], "c": value, "d": secret({"e": ["hunter2"]})}
    text = plans.text(made(registered("aws:x/y:Z", "one", **inputs)))
    assert "hunter2" not in text
    assert json.loads(text)["resources"][0]["inputs"]["a"] == [{"b": SECRET}]


def test_what_only_aws_knows_is_told_so_and_whole_numbers_are_whole() -> None:
    given_ = {"count": 2.0, "share": 0.25, "arn": plans.UNKNOWN, "list": [plans.UNKNOWN, True]}
    assert plans.plain(given_) == {
        "count": 2,
        "share": 0.25,
        "arn": COMPUTED,
        "list": [COMPUTED, True],
    }
    assert isinstance(plans.plain(2.0), int)


def test_the_order_of_registration_changes_no_byte() -> None:
    resources = [registered("aws:x/y:Z", f"r{number}") for number in range(20)]
    wanted = plans.text(made(*resources))
    for seed in range(5):
        random.Random(seed).shuffle(resources)
        assert plans.text(made(*resources)) == wanted


def test_two_resources_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two resources are called 'one'"):
        made(registered("aws:x/y:Z", "one"), registered("aws:x/y:Z", "one"))


def test_a_resource_is_where_its_provider_goes_unless_its_service_is_worldwide() -> None:
    provider = Registered(
        PROVIDER,
        plans.PROVIDER_TYPE,
        "aws-here",
        "",
        {"region": "eu-north-1", "defaultTags": '{"tags": {"owner": "me"}}'},
        (),
        {},
        "",
        {},
    )
    found = made(
        provider,
        registered("aws:ec2/vpc:Vpc", "a"),
        registered("aws:iam/role:Role", "b"),
        registered("aws:acm/certificate:Certificate", "c", region="us-east-1"),
        registered("aws:wafv2/webAcl:WebAcl", "d", region="us-east-1", scope="CLOUDFRONT"),
        registered("own:Part", "e"),
    )
    regions = {one["name"]: one["region"] for one in found["resources"]}
    assert regions == {
        "aws-here": "eu-north-1",
        "a": "eu-north-1",
        "b": "global",
        "c": "us-east-1",
        "d": "global",
        "e": "",
    }
    tags = next(one for one in found["resources"] if one["name"] == "aws-here")["inputs"]
    assert tags["defaultTags"] == {"tags": {"owner": "me"}}


def test_the_tree_has_what_is_nested_below_what_groups_it() -> None:
    region = registered("own:Region", "here")
    network = registered("own:Network", "net", region.urn)
    vpc = registered("aws:ec2/vpc:Vpc", "vpc", network.urn)
    alone = registered("aws:ec2/vpc:Vpc", "other")
    found = plans.tree(made(vpc, network, alone, region))
    assert [node.resource["name"] for node in found] == ["other", "here"]
    assert found[1].children[0].resource["name"] == "net"
    assert found[1].children[0].children[0].resource["urn"] == vpc.urn


def test_a_plan_does_not_differ_from_itself(plan: plans.JSON) -> None:
    assert plans.diff(plan, deepcopy(plan)) == ()


def test_a_diff_names_what_came_what_went_and_each_input_that_changed() -> None:
    old = made(
        registered("aws:x/y:Z", "gone"),
        registered("aws:x/y:Z", "kept", size=1, tags={"a": "1", "b": "2"}, zones=["a", "b"]),
    )
    new = made(
        registered("aws:x/y:Z", "kept", size=2, tags={"a": "1", "c": "3"}, zones=["a", "c"]),
        registered("aws:x/y:Z", "new"),
    )
    found = {change.name: change for change in plans.diff(old, new)}
    assert {name: change.kind for name, change in found.items()} == {
        "gone": "removed",
        "kept": "changed",
        "new": "added",
    }
    assert set(found["kept"].fields) == {
        ("size", 1, 2),
        ("tags.b", "2", plans.ABSENT),
        ("tags.c", plans.ABSENT, "3"),
        ("zones[1]", "b", "c"),
    }


@given(
    st.dictionaries(st.text("ab", min_size=1), VALUES),
    st.dictionaries(st.text("ab", min_size=1), VALUES),
)
def test_inputs_differ_exactly_when_the_diff_says_so(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    found = plans.diff(made(_with(before)), made(_with(after)))
    assert bool(found) == (before != after)
    for change in found:
        assert all(old != new for _, old, new in change.fields)


def _with(inputs: dict[str, Any]) -> Registered:
    one = registered("aws:x/y:Z", "one")
    return Registered(**(vars(one) | {"inputs": inputs}))


def test_one_region_is_made_with_all_that_it_needs_and_nothing_else(plan: plans.JSON) -> None:
    by_urn = {one["urn"]: one for one in plan["resources"]}
    for region in ("us-east-1", "us-west-2"):
        inside = {urn for urn, one in by_urn.items() if one["region"] == region}
        found = set(plans.targets(plan, region, ()))
        assert inside < found < by_urn.keys()
        assert all(plans.needs(by_urn[urn]) <= found for urn in found)
        first = set(plans.targets(plan, region, by_urn.keys()))
        assert first == inside, "what is there elsewhere is left alone"
        for urn in found - inside:
            if by_urn[urn]["type"].startswith("aws:"):
                part = {
                    other for other in by_urn if by_urn[other]["parent"] == by_urn[urn]["parent"]
                }
                assert part <= found, "a bucket comes with what keeps it closed"
        kinds = {by_urn[urn]["type"] for urn in found if by_urn[urn]["region"] not in ("", region)}
        assert "aws:cloudwatch/metricAlarm:MetricAlarm" not in kinds
