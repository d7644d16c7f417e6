"""What a topology means on AWS is decided before anything knows of Pulumi."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from ipaddress import IPv4Network
from itertools import combinations, product

import pytest
from botocore import xform_name
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from infra.aws import alarms, aurora, images, permissions
from infra.aws.naming import CONTROL_PLANE, GATEWAY, Names, short
from infra.aws.spec import Platform, platform, secrets_of
from infra.topology import BUILT_IN, load, parse
from infra.topology_aws import FARGATE
from runtime.errors import Invalid
from tests.infra.aws import table

TEXT = (BUILT_IN / "aws-two-regions.yaml").read_text(encoding="utf-8")
ACCOUNT = "123456789012"
AREAS = {
    "af": ["south-1"],
    "ap": ["east-1", "northeast-1", "northeast-2", "south-1", "south-2", "southeast-1"],
    "ca": ["central-1", "west-1"],
    "eu": ["central-1", "central-2", "north-1", "south-1", "south-2", "west-1", "west-2"],
    "il": ["central-1"],
    "me": ["central-1", "south-1"],
    "sa": ["east-1"],
    "us": ["east-1", "east-2", "west-1", "west-2"],
}
REGIONS = [f"{area}-{name}" for area, names in AREAS.items() for name in names]


def made(text: str = TEXT) -> Platform:
    return platform(parse(text, "mine.yaml"), text)


def refused(old: str, new: str) -> str:
    assert old in TEXT
    with pytest.raises(Invalid) as caught:
        made(TEXT.replace(old, new, 1))
    assert str(BUILT_IN / "aws-two-regions.yaml") in str(caught.value.hint)
    return caught.value.detail


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "us-west-2, role: dr, zones: [a, b]",
            "us-west-2, role: dr, zones: [a]",
            "needs two zones on AWS",
        ),
        ("{name: us-west-2", "{name: munich", "munich is not a region of AWS"),
        ("cpu: 1024, memory: 2048", "cpu: 1024, memory: 1024", "1024 MiB do not go with cpu 1024"),
        (
            "cpu: 1024, memory: 2048",
            "cpu: 1000, memory: 2048",
            "must be 256, 512, 1024, 2048 or 4096",
        ),
        ("minimum: 12, maximum: 60", "minimum: 12, maximum: 4", "may not exceed maximum, 4"),
        ("domain: shop.example.com", "domain: Shop", "must be a domain in lower case"),
        ("# imageDigest: sha256:...", "imageDigest: latest", "sha256: and 64 hexadecimal digits"),
        ("  owner: platform\n", "", "aws.owner: this field is missing"),
        ("instanceClass", "instanceKlass", "did you mean instanceClass?"),
    ],
)
def test_each_fault_of_the_aws_block_is_told_with_what_is_allowed(
    old: str, new: str, said: str
) -> None:
    assert said in refused(old, new)


def test_the_aws_block_is_there_for_aws_and_for_nothing_else() -> None:
    with pytest.raises(Invalid, match="aws: this is for provider aws only"):
        parse(TEXT.replace("provider: aws", "provider: memory"), "mine.yaml")
    head = TEXT[: TEXT.index("\naws:\n") + 1]
    with pytest.raises(Invalid, match="provider aws needs the field aws"):
        parse(head, "mine.yaml")
    with pytest.raises(Invalid, match="is for the provider local"):
        platform(load("two-regions"), "")


def test_every_subnet_is_in_its_network_and_meets_no_other() -> None:
    regions = made().regions
    networks = [IPv4Network(region.cidr) for region in regions]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    for region, network in zip(regions, networks, strict=True):
        blocks = [*region.public, *region.private, *region.database]
        assert len(blocks) == 3 * len(region.zones)
        subnets = [IPv4Network(block) for block in blocks]
        assert all(one.subnet_of(network) for one in subnets)
        assert not any(one.overlaps(other) for one, other in combinations(subnets, 2))


def test_the_control_plane_and_its_database_stand_where_a_lost_region_leaves_them() -> None:
    found = made()
    assert found.control_region == "us-west-2"
    assert "control" in found.databases_in("us-west-2")
    assert "control" not in found.databases_in("us-east-1")
    components = {one.name: {task.component for task in one.tasks} for one in found.regions}
    assert CONTROL_PLANE in components["us-west-2"]
    assert CONTROL_PLANE not in components["us-east-1"]


def test_every_instance_of_the_topology_has_a_name_of_its_own_on_aws() -> None:
    topology = load("aws-two-regions")
    names = made().names
    servers = topology.instances(kind="postgres")
    assert len(servers) == len(topology.databases) * 2 * 2
    called = [names.instance(one.component, one.region, one.zone) for one in servers]
    assert len(set(called)) == len(called)


def test_every_region_has_a_short_name_of_its_own() -> None:
    assert len({short(region) for region in REGIONS}) == len(REGIONS)
    assert short("us-east-1") == "use1"
    assert short("ap-southeast-2") == "apse2"


@given(
    project=st.from_regex(r"\A[a-z][a-z0-9]{1,10}\Z"),
    environment=st.from_regex(r"\A[a-z][a-z0-9]{1,6}\Z"),
    domain=st.from_regex(r"\A[a-z]{1,20}\.[a-z]{2,19}\Z"),
    region=st.sampled_from(REGIONS),
)
def test_no_name_is_longer_than_aws_takes(
    project: str, environment: str, domain: str, region: str
) -> None:
    names = Names(project, environment, domain)
    longest = "notifications"
    assert len(names.balancer(region)) <= 32
    assert len(names.target_group(region)) <= 32
    assert len(names.replication_group("cache", region)) <= 40
    assert len(names.instance("catalog", region, "a")) <= 63
    assert len(f"{names.cluster('catalog', region)}-final") <= 63
    assert len(names.bucket("objects", region)) <= 63
    assert len(names.role(f"{longest}-start", region)) <= 64
    assert len(names.vault(region)) <= 50
    assert len(f"{names.restore_test(region)}_aurora") <= 50


def test_a_digest_pins_the_image_and_without_one_the_tag_does() -> None:
    digest = "sha256:" + "a" * 64
    pinned = made(TEXT.replace("# imageDigest: sha256:...", f"imageDigest: {digest}"))
    found = images.image(pinned, pinned.primary, ACCOUNT)
    assert found == f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/regionctl/prod/platform@{digest}"
    assert images.image(made(), made().primary, ACCOUNT).endswith("/platform:0.1.0")


def test_a_container_holds_no_password_in_what_anybody_may_read() -> None:
    found = made()
    for region in found.regions:
        for task in region.tasks:
            container = images.container(found, region, task, ACCOUNT, "/log")
            told = {one["name"] for one in container["environment"]}
            kept = {one["name"] for one in container["secrets"]}
            assert not told & kept
            assert not any("SECRET" in name and name != "REGIONCTL_SECRETS" for name in told)
            assert all(one["valueFrom"].startswith("arn:aws:") for one in container["secrets"])
            assert container["user"] != "0"
            writes = container["readonlyRootFilesystem"] is False
            assert writes == (task.component == CONTROL_PLANE), "ECS Exec needs to write"
            assert len(json.dumps(container)) < 60_000, "a task definition has 64 KiB at most"


def test_a_service_reads_its_own_secret_and_no_other() -> None:
    found = made()
    region = found.primary
    for task, other in product(region.tasks, region.tasks):
        if task is other or other.component == GATEWAY:
            continue
        allowed = json.dumps(permissions.starting(found, region, task, ACCOUNT, "arn:logs"))
        assert f"secret:{found.names.secret(other.component)}-" not in allowed


def test_what_somebody_else_asks_for_is_left_to_a_person() -> None:
    assert secrets_of("auth") == {"database": True, "tokenKey": True}
    assert secrets_of("payments") == {
        "database": True,
        "gatewayKey": False,
        "webhookSecret": False,
    }
    assert secrets_of("orders") == {"database": True}


def test_no_statement_allows_every_action_but_the_boundary_that_only_takes_away() -> None:
    found = made()
    for region in found.regions:
        for task in region.tasks:
            statements = [
                *permissions.starting(found, region, task, ACCOUNT, "arn:logs"),
                *permissions.acting(found, region, task, ACCOUNT),
            ]
            for statement in statements:
                assert statement["Effect"] == "Allow"
                assert not [one for one in statement["Action"] if one.endswith(":*") or one == "*"]
                if statement["Resource"] == "*":
                    assert all(_only_looks(action) for action in statement["Action"]), statement
    _, never, databases = permissions.boundary(found, ACCOUNT)
    assert {"iam:*", "rds:DeleteGlobalCluster", "kms:ScheduleKeyDeletion"} <= set(never["Action"])
    assert databases["Effect"] == "Deny"
    assert "rds:DeleteDBCluster" in databases["Action"]
    for database in found.every_database:
        arn = (
            f"arn:aws:rds:us-east-1:{ACCOUNT}:cluster:{found.names.cluster(database, 'us-east-1')}"
        )
        assert not any(fnmatchcase(arn, pattern) for pattern in databases["NotResource"])


# Of what the control plane does: the actions that know the tags of what they are about, by the
# "Service Authorization Reference".
KNOW_TAGS = {
    "application-autoscaling:RegisterScalableTarget",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:RevokeSecurityGroupEgress",
    "ec2:RevokeSecurityGroupIngress",
}


def test_the_control_plane_may_do_all_that_its_provider_asks_for() -> None:
    """No tag is demanded where the service knows none: such a statement allows nothing."""
    session = get_session()
    statements = permissions.controlling(made(), ACCOUNT)
    for asked in table.operations():
        service, _, operation = asked.partition(".")
        names = session.get_service_model(service).operation_names
        (name,) = [one for one in names if xform_name(one) == operation]
        action = f"{'elasticloadbalancing' if service == 'elbv2' else service}:{name}"
        allowing = [
            statement
            for statement in statements
            if any(fnmatchcase(action, pattern) for pattern in statement["Action"])
        ]
        assert allowing, action
        for statement in allowing:
            assert "Condition" not in statement or action in KNOW_TAGS, action


def _only_looks(action: str) -> bool:
    verb = action.partition(":")[2]
    seen = ("Describe", "List", "Get", "Discover")
    return verb.startswith(seen) or action.startswith("ssmmessages:")


def test_aurora_is_set_as_the_local_servers_are() -> None:
    local = aurora.local_settings()
    assert local["jit"] == "off"
    found = {name: value for name, value, _ in aurora.cluster_parameters("db.r6g.large")}
    assert found["rds.force_ssl"] == "1"
    assert found["jit"] == "0"
    assert found["wal_sender_timeout"] == "10000"
    assert found["max_connections"] == "1600"
    for name in aurora.CARRIED:
        assert name in local, f"{name} is no setting of the local platform any more"
    assert aurora.family("18.6") == "aurora-postgresql18"
    with pytest.raises(Invalid, match=r"memory of db\.x9\.huge"):
        aurora.max_connections("db.x9.huge")


def test_another_environment_is_another_stack_and_shares_no_name() -> None:
    prod = made()
    assert "environment: prod" in TEXT
    text = TEXT.replace("environment: prod", "environment: stage")
    stage = made(text.replace("shop.example.com", "stage.example.com"))
    assert (prod.stack, stage.stack) == ("aws-two-regions.prod", "aws-two-regions.stage")

    def names(of: Platform) -> set[str]:
        region, names = of.primary.name, of.names
        return {
            names.global_cluster("s1"),
            names.cluster("s1", region),
            names.replication_group("cache", region),
            names.ecs_cluster(region),
            names.repository(),
            names.namespace(region),
            names.balancer(region),
            names.entry(),
            names.bucket("objects", region),
            names.key_alias("data"),
            names.secret("root"),
            names.parameter("cache"),
            names.vault(region),
            names.log_group("orders", region),
            names.role("orders", region),
        }

    assert not names(prod) & names(stage)


def test_the_alarms_are_those_of_the_table() -> None:
    found = made()
    table = {one.name: one for one in alarms.alarms(found, found.primary)}
    assert table["error-rate"].threshold == 1
    assert table["error-rate"].total == "RequestCount"
    assert table["p99"].threshold == 0.5
    for service in found.topology.services:
        assert (table[f"{service}-cpu"].threshold, table[f"{service}-cpu"].severity) == (
            80,
            "critical",
        )
        assert table[f"{service}-memory"].threshold == 85
    assert table["s1-connections"].threshold == 1280
    assert (table["no-gateway"].below, table["no-gateway"].threshold) == (True, 1)
    assert table["lost-requests"].dimensions == {"LoadBalancer": "@balancer"}
    for name in ("cache-001-cpu", "cache-002-cpu", "queue-001-memory", "queue-002-memory"):
        group = found.names.replication_group(name.partition("-")[0], "us-east-1")
        assert table[name].dimensions == {"CacheClusterId": f"{group}-{name.split('-')[1]}"}


def test_a_global_databases_lag_is_watched_in_every_region_since_any_may_follow() -> None:
    found = made()
    for region in found.regions:
        table = {one.name: one for one in alarms.alarms(found, region)}
        assert {name for name in table if name.endswith("-lag")} == {
            f"{database}-lag" for database in found.databases
        }
        lag = table["s1-lag"]
        assert (lag.metric, lag.statistic) == ("AuroraGlobalDBReplicationLag", "Maximum")
        assert lag.dimensions == {"DBClusterIdentifier": found.names.cluster("s1", region.name)}
        # With SourceRegion, of which nobody knows which it is next.
        assert lag.anywhere


def test_a_platform_without_a_way_to_aws_is_refused_with_the_reason() -> None:
    with pytest.raises(Invalid, match="natGateways: false"):
        parse(TEXT.replace("natGateways: true", "natGateways: false"), "here.yaml")


def test_fargate_takes_every_size_that_is_allowed() -> None:
    for cpu, memories in FARGATE.items():
        assert memories[0] >= 2 * cpu
        assert memories[-1] <= 8 * cpu
