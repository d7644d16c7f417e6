"""The program declares everything twice over: two zones, two regions, and edges between them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infra.aws import plan as plans
from infra.aws.naming import Names
from infra.topology import BUILT_IN, load
from runtime.errors import Exit
from tests.infra.aws import recording

Resource = dict[str, Any]
TOPOLOGY = load("aws-two-regions")
NAMES = Names("regionctl", "prod", "shop.example.com")
REGIONS = ("us-east-1", "us-west-2")
VARIED = {
    "name: aws-two-regions": "name: wide",
    "us-east-1, role: primary, zones: [a, b]": "eu-central-1, role: primary, zones: [a, b, c]",
    "{name: us-west-2, role: dr, zones: [a, b]}": (
        "{name: eu-west-1, role: dr, zones: [a, b]}\n  - {name: us-east-2, role: dr, zones: [b, c]}"
    ),
    "shards: 2": "shards: 3",
}


def of(plan: plans.JSON, kind: str, **inputs: Any) -> list[Resource]:
    """The resources of a type such as "rds/cluster:Cluster" with these inputs."""
    return [
        one
        for one in plan["resources"]
        if one["type"] == f"aws:{kind}"
        and all(one["inputs"].get(name) == value for name, value in inputs.items())
    ]


def one_of(plan: plans.JSON, kind: str, **inputs: Any) -> Resource:
    (found,) = of(plan, kind, **inputs)
    return found


def needs(resource: Resource, key: str) -> set[str]:
    """The names of what an input comes from."""
    return {urn.rpartition("::")[2] for urn in resource["propertyDependencies"].get(key, ())}


def test_the_default_topology_is_some_hundred_resources_in_two_regions(plan: plans.JSON) -> None:
    assert len(plans.managed(plan)) >= 150
    assert sum(plan["counts"].values()) == len(plan["resources"])
    regions = Counter(one["region"] for one in plans.managed(plan))
    assert set(regions) == {*REGIONS, plans.GLOBAL}
    assert plan["mode"] == "planned"
    assert plan["tools"].keys() == {"pulumi", "pulumiAws"}
    assert plan["outputs"]["entryUrl"] == "https://api.shop.example.com"


def test_urns_are_those_of_the_real_engine(plan: plans.JSON) -> None:
    region = "urn:pulumi:aws-two-regions.prod::regionctl::regionctl:aws:Region"
    vpc = one_of(plan, "ec2/vpc:Vpc", cidrBlock="10.20.0.0/16")
    assert vpc["urn"] == f"{region}$regionctl:aws:Network$aws:ec2/vpc:Vpc::us-east-1-vpc"
    assert vpc["parent"] == f"{region}$regionctl:aws:Network::us-east-1-network"
    assert not [one for one in plan["resources"] if "pulumi:pulumi:Stack" in one["urn"]]


def test_every_edge_leads_to_a_resource_of_the_plan(plan: plans.JSON) -> None:
    known = {one["urn"] for one in plan["resources"]}
    found = list(plans.edges(plan))
    assert len(found) > len(known)
    for source, target, name in found:
        assert target in known, f"{source} needs {target} for {name}"
    for one in plan["resources"]:
        assert one["parent"] == "" or one["parent"] in known
        assert one["provider"] == "" or one["provider"] in known


def test_no_password_is_in_the_plan(plan_text: str, plan: plans.JSON) -> None:
    versions = of(plan, "secretsmanager/secretVersion:SecretVersion")
    assert versions
    assert {one["inputs"]["secretStringWo"] for one in versions} == {plans.SECRET}
    first = one_of(plan, "rds/cluster:Cluster", clusterIdentifier="regionctl-prod-s1-us-east-1")
    assert first["inputs"]["masterPasswordWo"] == plans.SECRET
    rules = of(plan, "lb/listenerRule:ListenerRule", priority=20)
    shown = [one["inputs"]["conditions"][0]["httpHeader"]["values"] for one in rules]
    assert shown == [[plans.SECRET]] * 2
    # What the recorder answers to a question for a random password.
    assert '"planned"' not in plan_text.replace('"mode": "planned"', "")


def test_what_shows_a_secret_needs_it_although_nobody_knows_it_yet(plan: plans.JSON) -> None:
    first = one_of(plan, "rds/cluster:Cluster", clusterIdentifier="regionctl-prod-s1-us-east-1")
    assert "us-east-1-secret-first-passwords" in needs(first, "masterPasswordWo")
    for rule in of(plan, "lb/listenerRule:ListenerRule", priority=20):
        assert "us-east-1-secret-origin" in needs(rule, "conditions")
    for store in of(plan, "elasticache/replicationGroup:ReplicationGroup"):
        assert needs(store, "authTokenWo") == {"us-east-1-secret-valkey"}


def test_every_database_is_encrypted_protected_kept_and_in_two_zones(plan: plans.JSON) -> None:
    clusters = of(plan, "rds/cluster:Cluster")
    assert len(clusters) == len(TOPOLOGY.databases) * 2 + 1
    for cluster in clusters:
        inputs = cluster["inputs"]
        assert inputs["storageEncrypted"] is True
        assert needs(cluster, "kmsKeyId") == {f"{cluster['region']}-key-data"}
        assert inputs["deletionProtection"] is True
        assert cluster["options"]["protect"] is True
        assert inputs["backupRetentionPeriod"] == 35
        assert inputs["skipFinalSnapshot"] is False
        assert inputs["enabledCloudwatchLogsExports"] == ["postgresql"]
        servers = [
            one
            for one in of(plan, "rds/clusterInstance:ClusterInstance")
            if cluster["urn"] in one["propertyDependencies"]["clusterIdentifier"]
        ]
        zones = {one["inputs"]["availabilityZone"] for one in servers}
        assert zones == {f"{cluster['region']}a", f"{cluster['region']}b"}
        for server in servers:
            assert server["inputs"]["publiclyAccessible"] is False
            assert server["inputs"]["performanceInsightsEnabled"] is True
    for group in of(plan, "rds/clusterParameterGroup:ClusterParameterGroup"):
        values = {one["name"]: one["value"] for one in group["inputs"]["parameters"]}
        assert values["rds.force_ssl"] == "1"


@pytest.mark.parametrize("database", TOPOLOGY.databases)
def test_a_database_is_written_in_one_region_and_followed_in_the_other(
    plan: plans.JSON, database: str
) -> None:
    whole = one_of(
        plan,
        "rds/globalCluster:GlobalCluster",
        globalClusterIdentifier=NAMES.global_cluster(database),
    )
    assert whole["inputs"]["storageEncrypted"] is True
    assert whole["inputs"]["deletionProtection"] is True
    first, second = (
        one_of(plan, "rds/cluster:Cluster", clusterIdentifier=NAMES.cluster(database, region))
        for region in REGIONS
    )
    for cluster in (first, second):
        assert needs(cluster, "globalClusterIdentifier") == {whole["name"]}
        ignored = cluster["options"]["ignoreChanges"]
        assert {"globalClusterIdentifier", "replicationSourceIdentifier"} <= set(ignored)
    assert "masterUsername" in first["inputs"]
    assert not {"masterUsername", "masterPasswordWo", "databaseName"} & second["inputs"].keys()
    writers = {f"us-east-1-server-{database}-{zone}" for zone in "ab"}
    waits = {urn.rpartition("::")[2] for urn in second["dependencies"]}
    assert writers <= waits, "a cluster that follows needs a writer to follow"


def test_every_instance_of_the_topology_is_in_the_plan(plan: plans.JSON) -> None:
    made = {one["inputs"]["identifier"] for one in of(plan, "rds/clusterInstance:ClusterInstance")}
    for spec in TOPOLOGY.instances(kind="postgres"):
        assert NAMES.instance(spec.component, spec.region, spec.zone) in made
    services = {(one["region"], one["inputs"]["name"]) for one in of(plan, "ecs/service:Service")}
    tasks = [*TOPOLOGY.instances(kind="service"), *TOPOLOGY.instances(component="gateway")]
    assert {(one.region, NAMES.ecs_service(one.component)) for one in tasks} <= services


def test_every_region_has_its_subnets_in_two_zones_and_its_tasks_in_the_private_ones(
    plan: plans.JSON,
) -> None:
    for region in REGIONS:
        subnets = [one for one in of(plan, "ec2/subnet:Subnet") if one["region"] == region]
        tiers = Counter(one["inputs"]["tags"]["tier"] for one in subnets)
        assert tiers == {"public": 2, "private": 2, "database": 2}
        for tier in tiers:
            zones = {
                one["inputs"]["availabilityZone"]
                for one in subnets
                if one["inputs"]["tags"]["tier"] == tier
            }
            assert zones == {f"{region}a", f"{region}b"}
    for service in of(plan, "ecs/service:Service"):
        network = service["inputs"]["networkConfiguration"]
        assert network["assignPublicIp"] is False
        found = needs(service, "networkConfiguration")
        private = {f"{service['region']}-private-{zone}" for zone in "ab"}
        assert private <= found
        assert not {name for name in found if "-public-" in name or "-database-" in name}


def test_services_grow_at_seventy_percent_and_bad_deployments_go_back(plan: plans.JSON) -> None:
    for service in of(plan, "ecs/service:Service"):
        breaker = service["inputs"]["deploymentCircuitBreaker"]
        assert breaker == {"enable": True, "rollback": True}
        assert "desiredCount" in service["options"]["ignoreChanges"]
    grown = of(plan, "appautoscaling/policy:Policy")
    assert len(grown) == 2 * (len(TOPOLOGY.services) + 1)
    for one in grown:
        tracked = one["inputs"]["targetTrackingScalingPolicyConfiguration"]
        assert tracked["targetValue"] == 70
    for target in of(plan, "appautoscaling/target:Target"):
        assert target["inputs"]["minCapacity"] < target["inputs"]["maxCapacity"]


def test_caches_need_tls_and_a_password_and_live_in_two_zones(plan: plans.JSON) -> None:
    stores = of(plan, "elasticache/replicationGroup:ReplicationGroup")
    assert len(stores) == 4
    for store in stores:
        inputs = store["inputs"]
        assert inputs["engine"] == "valkey"
        assert inputs["transitEncryptionEnabled"] is True
        assert inputs["atRestEncryptionEnabled"] is True
        assert inputs["authTokenWo"] == plans.SECRET
        assert inputs["multiAzEnabled"] is True
        assert inputs["automaticFailoverEnabled"] is True
        assert len(set(inputs["preferredCacheClusterAzs"])) == inputs["numCacheClusters"] == 2


def test_no_bucket_is_public_and_objects_are_copied_both_ways(plan: plans.JSON) -> None:
    buckets = of(plan, "s3/bucket:Bucket")
    assert len(buckets) == 4
    for bucket in buckets:
        name = bucket["inputs"]["bucket"]
        closed = one_of(plan, "s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket=name)
        flags = [value for key, value in closed["inputs"].items() if key != "bucket"]
        assert flags == [True] * 4
        versioned = one_of(plan, "s3/bucketVersioning:BucketVersioning", bucket=name)
        assert versioned["inputs"]["versioningConfiguration"]["status"] == "Enabled"
        allowed = one_of(plan, "s3/bucketPolicy:BucketPolicy", bucket=name)["inputs"]["policy"]
        first = json.loads(allowed)["Statement"][0]
        assert first["Effect"] == "Deny"
        assert first["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    copied = of(plan, "s3/bucketReplicationConfig:BucketReplicationConfig")
    assert {one["region"] for one in copied} == set(REGIONS)
    for one in copied:
        (other,) = set(REGIONS) - {one["region"]}
        assert f"{other}-bucket-objects" in needs(one, "rules")
        prefixes = {rule["filter"]["prefix"] for rule in one["inputs"]["rules"]}
        assert prefixes == {"invoices/", "analytics/"}, "a shard map belongs to one region"


def test_the_entry_leads_to_either_region_and_lets_nobody_past_it(plan: plans.JSON) -> None:
    halves = of(plan, "route53/record:Record", name="origin.shop.example.com")
    kinds = {one["inputs"]["setIdentifier"]: one for one in halves}
    assert kinds.keys() == set(REGIONS)
    for region, kind in zip(REGIONS, ("PRIMARY", "SECONDARY"), strict=True):
        inputs = kinds[region]["inputs"]
        assert inputs["failoverRoutingPolicies"] == [{"type": kind}]
        assert needs(kinds[region], "healthCheckId") == {f"{region}-health"}
    for check in of(plan, "route53/healthCheck:HealthCheck"):
        assert check["inputs"]["resourcePath"] == "/health/ready"
        assert set(check["options"]["ignoreChanges"]) == {"disabled", "invertHealthcheck"}
    edge = one_of(plan, "cloudfront/distribution:Distribution")["inputs"]
    assert edge["defaultCacheBehavior"]["targetOriginId"] == "serving"
    assert edge["defaultCacheBehavior"]["viewerProtocolPolicy"] == "https-only"
    (group,) = edge["originGroups"]
    assert [one["originId"] for one in group["members"]] == ["serving", "us-west-2"]
    for kept in edge["orderedCacheBehaviors"]:
        assert "POST" not in kept["allowedMethods"], "CloudFront repeats at the other origin"
    for listener in of(plan, "lb/listener:Listener"):
        (default,) = listener["inputs"]["defaultActions"]
        assert default["fixedResponse"]["statusCode"] == "403"
        assert listener["inputs"]["protocol"] == "HTTPS"


def test_nothing_but_the_entry_is_reached_from_the_internet(plan: plans.JSON) -> None:
    for rule in of(plan, "vpc/securityGroupIngressRule:SecurityGroupIngressRule"):
        inputs = rule["inputs"]
        assert inputs.get("cidrIpv4") != "0.0.0.0/0"
        if "prefixListId" in inputs:
            group = needs(rule, "securityGroupId")
            assert group <= {
                f"{rule['region']}-group-balancer",
                f"{rule['region']}-group-checked",
            }
    outside = of(plan, "vpc/securityGroupEgressRule:SecurityGroupEgressRule", cidrIpv4="0.0.0.0/0")
    assert {tuple(needs(one, "securityGroupId")) for one in outside} == {
        (f"{region}-group-outside",) for region in REGIONS
    }


def test_the_alarm_on_a_lag_asks_for_the_metric_whatever_region_it_comes_from(
    plan: plans.JSON,
) -> None:
    for region in REGIONS:
        for database in TOPOLOGY.databases:
            alarm = one_of(
                plan,
                "cloudwatch/metricAlarm:MetricAlarm",
                name=NAMES.alarm(f"{database}-lag", region),
            )
            assert "dimensions" not in alarm["inputs"], "they would have to be all of them"
            assert "statistic" not in alarm["inputs"]
            (query,) = alarm["inputs"]["metricQueries"]
            assert query["expression"] == (
                'SELECT MAX(AuroraGlobalDBReplicationLag) FROM "AWS/RDS" '
                f"WHERE DBClusterIdentifier = '{NAMES.cluster(database, region)}'"
            )
            assert (query["period"], query["returnData"]) == (60, True)
            assert alarm["inputs"]["threshold"] == 60_000
            assert alarm["inputs"]["treatMissingData"] == "notBreaching", "a writer has none"
            assert alarm["region"] == region


def test_every_backup_is_copied_to_the_other_region_and_restored_for_a_test(
    plan: plans.JSON,
) -> None:
    for region, other in (REGIONS, REGIONS[::-1]):
        backup = one_of(plan, "backup/plan:Plan", name=NAMES.backup_plan(region))
        assert needs(backup, "rules") == {f"{region}-vault", f"{other}-vault"}
        for rule in backup["inputs"]["rules"]:
            assert len(rule["copyActions"]) == 1
    assert len(of(plan, "backup/restoreTestingPlan:RestoreTestingPlan")) == 2
    tagged = [one for one in of(plan, "rds/cluster:Cluster") if one["inputs"]["tags"]]
    assert len(tagged) == len(of(plan, "rds/cluster:Cluster"))


def test_keys_are_rotated_and_the_data_key_is_the_same_in_both_regions(plan: plans.JSON) -> None:
    keys = of(plan, "kms/key:Key")
    assert all(one["inputs"]["enableKeyRotation"] is True for one in keys)
    first = one_of(plan, "kms/key:Key", multiRegion=True)
    replica = one_of(plan, "kms/replicaKey:ReplicaKey")
    assert needs(replica, "primaryKeyArn") == {first["name"]}
    assert replica["region"] == "us-west-2"
    for secret in of(plan, "secretsmanager/secret:Secret"):
        assert [one["region"] for one in secret["inputs"]["replicas"]] == ["us-west-2"]


def test_every_task_is_bounded_starts_by_its_own_role_and_runs_one_image(
    plan: plans.JSON,
) -> None:
    definitions = of(plan, "ecs/taskDefinition:TaskDefinition")
    assert len(definitions) == 2 * (len(TOPOLOGY.services) + 1) + 1
    used = set()
    for definition in definitions:
        used |= needs(definition, "executionRoleArn") | needs(definition, "taskRoleArn")
        (container,) = json.loads(definition["inputs"]["containerDefinitions"])
        assert container["image"].endswith("/regionctl/prod/platform:0.1.0")
        assert definition["region"] in container["image"]
    assert len(used) == 2 * len(definitions)
    for name in used:
        (role,) = [one for one in of(plan, "iam/role:Role") if one["name"] == name]
        assert needs(role, "permissionsBoundary") == {"us-east-1-boundary"}


def test_a_topology_of_three_regions_and_three_shards_is_planned_too(
    tmp_path: Path, plan: plans.JSON
) -> None:
    text = (BUILT_IN / "aws-two-regions.yaml").read_text(encoding="utf-8")
    for old, new in VARIED.items():
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "wide.yaml"
    file.write_text(text, encoding="utf-8")
    wide = json.loads(recording.record(str(file), tmp_path / "wide.json"))
    assert len(of(wide, "rds/cluster:Cluster")) == 4 * 3 + 1
    assert len(of(wide, "ec2/vpcPeeringConnection:VpcPeeringConnection")) == 3
    assert len(of(wide, "ec2/natGateway:NatGateway")) == 3 + 2 + 2
    halves = of(wide, "route53/record:Record", name="origin.shop.example.com")
    assert len(halves) == 2, "Route 53 knows one record that stands in, no more"
    acl = one_of(wide, "wafv2/webAcl:WebAcl")
    assert acl["inputs"]["region"] == "us-east-1", "CloudFront's firewall is nowhere else"
    kinds = {change.kind for change in plans.diff(plan, wide)}
    assert kinds == {"added", "removed"}, "another stack has no URN in common"


def test_aws_may_write_logs_before_anybody_is_told_to_write_them(plan: plans.JSON) -> None:
    """A load balancer and a distribution are refused when it may not yet."""
    kinds = ("BucketPolicy", "BucketOwnershipControls")
    (edge,) = of(plan, "cloudfront/distribution:Distribution")
    for one in [*of(plan, "lb/loadBalancer:LoadBalancer"), edge]:
        where = one["region"] if one is not edge else "us-east-1"
        found = {urn.rpartition("/")[2] for urn in one["dependencies"]}
        for kind in kinds:
            first = kind[0].lower() + kind[1:]
            assert f"{first}:{kind}::{where}-bucket-logs" in found


def test_every_administrators_password_is_rotated_but_the_control_planes(plan: plans.JSON) -> None:
    rotated = of(plan, "secretsmanager/secretRotation:SecretRotation")
    names = {one["name"].removeprefix("us-east-1-rotation-") for one in rotated}
    assert names == set(TOPOLOGY.databases)
    function = one_of(plan, "serverlessrepository/cloudFormationStack:CloudFormationStack")
    assert needs(function, "parameters") >= {"us-east-1-key-data"}


def test_a_topology_for_another_provider_is_refused_as_a_document(tmp_path: Path) -> None:
    said = recording.child("two-regions", tmp_path / "none.json")
    assert said.returncode == Exit.USAGE
    problem = json.loads(said.stderr)
    assert "provider local" in problem["detail"]
    assert problem["hint"] == "regionctl infra plan --topology aws-two-regions"
    assert not (tmp_path / "none.json").exists()
