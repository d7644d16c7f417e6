"""Single policies on stacks of a few resources. The pack as a whole: test_judgement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.aws.plan import COMPUTED
from infra.aws.policy_pack import durability, encryption, exposure
from infra.aws.policy_pack.world import Resource, World

BUCKET = "aws:s3/bucket:Bucket"
ALL_BLOCKS = dict.fromkeys(exposure.BLOCKS, True)


def made(type: str, called: str = "it", **props: Any) -> Resource:
    return Resource(urn=f"urn:{called}", type=type, name=called, props=props)


def statement(**content: Any) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", **content}]})


@pytest.mark.parametrize(
    ("props", "open_"),
    [
        (ALL_BLOCKS, False),
        (ALL_BLOCKS | {"blockPublicAcls": COMPUTED}, False),
        (ALL_BLOCKS | {"blockPublicAcls": False}, True),
        ({}, True),
    ],
)
def test_a_bucket_needs_all_four_public_access_blocks(props: dict[str, Any], open_: bool) -> None:
    bucket = made(BUCKET, bucket="mine")
    block = made(exposure.BLOCK, "block", bucket="mine", **props)
    assert bool(list(exposure.public(World([bucket, block])))) == open_


def test_a_bucket_without_a_block_is_open_whatever_others_have() -> None:
    bucket = made(BUCKET, bucket="mine")
    other = made(exposure.BLOCK, "block", bucket="other", **ALL_BLOCKS)
    assert [urn for urn, _ in exposure.public(World([bucket, other]))] == ["urn:it"]


def test_a_block_may_name_its_bucket_by_an_edge() -> None:
    bucket = made(BUCKET)
    block = Resource(
        "urn:block",
        exposure.BLOCK,
        "block",
        {**ALL_BLOCKS, "bucket": COMPUTED},
        needs={"bucket": ["urn:it"]},
    )
    assert list(exposure.public(World([bucket, block]))) == []


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        (statement(Action="*", Resource="*"), True),
        (statement(Action=["s3:*"], Resource="*"), True),
        (statement(Action=["s3:*"], Resource="arn:aws:s3:::mine/*"), False),
        (statement(Action=["s3:GetObject"], Resource="*"), False),
        (statement(NotAction=["iam:*"], Resource="*"), True),
        (json.dumps({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}), False),
        (COMPUTED, False),
        ("no json", False),
    ],
)
def test_a_role_may_not_do_everything_everywhere(policy: str, wrong: bool) -> None:
    role = made("aws:iam/rolePolicy:RolePolicy", policy=policy)
    assert bool(list(exposure.least_privilege(World([role])))) == wrong


def test_a_boundary_may_name_everything_unless_it_also_grants() -> None:
    everything = statement(Action="*", Resource="*")
    policy = made("aws:iam/policy:Policy", "limit", name="limit", policy=everything)
    role = made("aws:iam/role:Role", permissionsBoundary="arn:aws:iam::1:policy/limit")
    attachment = made(
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "grant",
        policyArn="arn:aws:iam::1:policy/limit",
    )
    assert list(exposure.least_privilege(World([policy, role]))) == []
    assert list(exposure.least_privilege(World([policy, role, attachment])))


def test_a_key_policy_may_give_all_of_its_key_to_the_account_but_nothing_to_everybody() -> None:
    account = {"AWS": "arn:aws:iam::1:root"}
    own = made("aws:kms/key:Key", policy=statement(Action="kms:*", Resource="*", Principal=account))
    public = made("aws:kms/key:Key", policy=statement(Action="kms:*", Resource="*", Principal="*"))
    assert list(exposure.least_privilege(World([own]))) == []
    assert list(exposure.least_privilege(World([public])))


@pytest.mark.parametrize("default_tags", [{"tags": dict.fromkeys(durability.TAGS, "x")}, "text"])
def test_tags_may_come_from_the_provider_as_an_object_or_as_text(default_tags: Any) -> None:
    tags = {"tags": dict.fromkeys(durability.TAGS, "x")}
    given = json.dumps(tags) if default_tags == "text" else default_tags
    tagged = Resource("urn:a", BUCKET, "a", {}, provider={"defaultTags": given})
    assert list(durability.tags(World([tagged]))) == []
    assert list(durability.tags(World([made(BUCKET)])))


def test_a_database_forces_tls_by_its_parameter_group() -> None:
    parameters = [{"name": "rds.force_ssl", "value": "1"}]
    kind = "aws:rds/clusterParameterGroup:ClusterParameterGroup"
    group = made(kind, "group", name="safe", parameters=parameters)
    safe = made(durability.CLUSTER, "safe", dbClusterParameterGroupName="safe")
    plain = made(durability.CLUSTER, "plain", dbClusterParameterGroupName="other")
    found = dict(encryption.in_transit(World([group, safe, plain])))
    assert set(found) == {"urn:plain"}


def test_a_listener_speaks_tls_of_today_or_sends_clients_to_one_that_does() -> None:
    kind = "aws:lb/listener:Listener"
    good = made(kind, "good", protocol="HTTPS", sslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06")
    old = made(kind, "old", protocol="HTTPS", sslPolicy="ELBSecurityPolicy-2016-08")
    plain = made(kind, "plain", protocol="HTTP", defaultActions=[{"type": "forward"}])
    away = made(kind, "away", protocol="HTTP", defaultActions=[{"redirect": {"protocol": "HTTPS"}}])
    found = dict(encryption.in_transit(World([good, old, plain, away])))
    assert set(found) == {"urn:old", "urn:plain"}


def test_data_is_protected_by_aws_and_by_pulumi() -> None:
    safe = Resource("urn:a", durability.CLUSTER, "a", {"deletionProtection": True}, protect=True)
    risky = made(durability.CLUSTER, deletionProtection=True, skipFinalSnapshot=True)
    assert list(durability.deletion(World([safe]))) == []
    assert len(list(durability.deletion(World([risky])))) == 2
