"""The default topology on AWS is judged, and mistakes that are planted in its plan are found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from infra.aws import catalogue, validate
from infra.aws.catalogue import Catalogue
from tests.infra.aws.surveyed import JSON, of, survey, with_mistake

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> JSON:
    return survey(tmp_path_factory)


@pytest.fixture(scope="module")
def plan(surveyed: JSON) -> JSON:
    return dict(surveyed["plan"])


@pytest.fixture(scope="module")
def offers(plan: JSON) -> Catalogue:
    return catalogue.read(one["region"] for one in plan["resources"])


def first(plan: JSON, type: str) -> JSON:
    return next(of(plan, type))


def test_the_default_plan_is_large_and_has_no_findings(surveyed: JSON, offers: Catalogue) -> None:
    plan = surveyed["plan"]
    assert sum(1 for one in plan["resources"] if one["type"].startswith("aws:")) >= 150
    assert validate.validate(plan, surveyed["schema"], offers) == ()


def misspelt_key(plan: JSON) -> None:
    inputs = first(plan, ":Service")["inputs"]
    inputs["networkConfiguration"]["subnetss"] = inputs["networkConfiguration"].pop("subnets")


def wrong_type(plan: JSON) -> None:
    first(plan, "service:Service")["inputs"]["desiredCount"] = "two"


def text_for_list(plan: JSON) -> None:
    first(plan, ":LoadBalancer")["inputs"]["subnets"] = "subnet-1"


def wrong_enum(plan: JSON) -> None:
    first(plan, "cluster:Cluster")["inputs"]["engineMode"] = "bogus"


def wrong_documented_value(plan: JSON) -> None:
    first(plan, "service:Service")["inputs"]["launchType"] = "FARGAT"


def missing_input(plan: JSON) -> None:
    del first(plan, ":ClusterInstance")["inputs"]["instanceClass"]


def class_of_nowhere(plan: JSON) -> None:
    first(plan, ":ClusterInstance")["inputs"]["instanceClass"] = "db.r6g.larg"


def old_version(plan: JSON) -> None:
    first(plan, "rds/cluster:Cluster")["inputs"]["engineVersion"] = "16.6"


def node_of_nowhere(plan: JSON) -> None:
    first(plan, ":ReplicationGroup")["inputs"]["nodeType"] = "cache.r7g.larg"


def impossible_task(plan: JSON) -> None:
    first(plan, ":TaskDefinition")["inputs"] |= {"cpu": "512", "memory": "9999"}


def one_zone_of_subnets(plan: JSON) -> None:
    for subnet in of(plan, ":Subnet"):
        if subnet["region"] == "us-west-2":
            subnet["inputs"]["availabilityZone"] = "us-west-2a"


def one_zone_of_a_database(plan: JSON) -> None:
    for instance in of(plan, ":ClusterInstance"):
        instance["inputs"]["availabilityZone"] = f"{instance['region']}a"


def no_secondary_record(plan: JSON) -> None:
    plan["resources"] = [
        one
        for one in plan["resources"]
        if not any(
            policy["type"] == "SECONDARY"
            for policy in one["inputs"].get("failoverRoutingPolicies") or ()
        )
    ]


def health_check_unwired(plan: JSON) -> None:
    for record in of(plan, "record:Record"):
        record["inputs"].pop("healthCheckId", None)
        record["propertyDependencies"].pop("healthCheckId", None)


def backups_stay_at_home(plan: JSON) -> None:
    for rule in first(plan, "backup/plan:Plan")["inputs"]["rules"]:
        del rule["copyActions"]


def scales_late(plan: JSON) -> None:
    for policy in of(plan, "appautoscaling/policy:Policy"):
        config = policy["inputs"].get("targetTrackingScalingPolicyConfiguration") or {}
        config["targetValue"] = 95


def lost_edge(plan: JSON) -> None:
    service = first(plan, "service:Service")
    del service["propertyDependencies"]["taskDefinition"]


def twice(plan: JSON) -> None:
    plan["resources"].append(plan["resources"][-1])


MISTAKES: dict[Callable[[JSON], None], tuple[str, str]] = {
    misspelt_key: ("unknown-key", "did you mean 'subnets'?"),
    wrong_type: ("type", ""),
    text_for_list: ("type", ""),
    wrong_enum: ("enum", "provisioned"),
    wrong_documented_value: ("documented-value", "did you mean 'FARGATE'?"),
    missing_input: ("required", ""),
    class_of_nowhere: ("not-offered", "did you mean 'db.r6g.large'?"),
    old_version: ("engine-deprecated", "16.8"),
    node_of_nowhere: ("not-offered", "did you mean 'cache.r7g.large'?"),
    impossible_task: ("fargate-size", "1024"),
    one_zone_of_subnets: ("two-zones", ""),
    one_zone_of_a_database: ("two-zones", ""),
    no_secondary_record: ("failover-pair", ""),
    health_check_unwired: ("health-check", ""),
    backups_stay_at_home: ("backup", ""),
    scales_late: ("autoscaling", ""),
    lost_edge: ("edge", ""),
    twice: ("urn", ""),
}


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_the_validator_finds_a_planted_mistake(
    plant: Callable[[JSON], None], surveyed: JSON, offers: Catalogue
) -> None:
    rule, hint = MISTAKES[plant]
    wrong = with_mistake(surveyed["plan"], plant)
    found = validate.validate(wrong, surveyed["schema"], offers)
    assert rule in {finding.rule for finding in found}
    assert any(hint in finding.hint for finding in found if finding.rule == rule)


def judged(plan: JSON) -> JSON:
    command = [sys.executable, "-m", "infra.aws.analyze"]
    done = subprocess.run(
        command, input=json.dumps(plan), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def everything_at_once(plan: JSON) -> None:
    """One mistake for each mandatory policy, each in another resource."""
    first(plan, ":BucketPublicAccessBlock")["inputs"]["blockPublicPolicy"] = False
    first(plan, "rds/cluster:Cluster")["inputs"]["storageEncrypted"] = False
    first(plan, ":ReplicationGroup")["inputs"]["transitEncryptionEnabled"] = False
    first(plan, ":GlobalCluster")["inputs"]["deletionProtection"] = False
    first(plan, "kms/key:Key")["inputs"]["enableKeyRotation"] = False
    first(plan, "rds/cluster:Cluster")["inputs"]["backupRetentionPeriod"] = 1
    one_zone_of_a_database(plan)
    provider = first(plan, "pulumi:providers:aws")
    del provider["inputs"]["defaultTags"]["tags"]["owner"]
    opened = first(plan, ":SecurityGroupIngressRule")
    opened["inputs"] |= {"cidrIpv4": "0.0.0.0/0", "fromPort": 22, "toPort": 22}
    role = first(plan, "rolePolicy:RolePolicy")
    role["inputs"]["policy"] = json.dumps(
        {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    )


def test_each_mandatory_policy_finds_its_planted_mistake(plan: JSON) -> None:
    found = judged(with_mistake(plan, everything_at_once))
    mandatory = {each["name"] for each in found["policies"] if each["level"] == "mandatory"}
    broken = {each["policy"] for each in found["violations"] if each["level"] == "mandatory"}
    assert broken == mandatory
    messages = {each["policy"]: each["message"] for each in found["violations"]}
    assert "blockPublicPolicy" in messages["no-public-access"]
    assert messages["required-tags"] == "tags are missing: owner"
    assert "22 to 22" in messages["no-open-security-group"]
