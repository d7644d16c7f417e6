"""Requests that no emulator answers: they are well-formed by AWS' own model of them.

A stub checks names, types and what is required of a request, and the form of its answer. That AWS
does what it says is shown by the live tests only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from infra.aws import designed, maps
from infra.aws.clients import Cloud
from infra.aws.naming import OBJECTS
from infra.aws.operate import evict, queue, restore, scale, snapshot
from infra.aws.provider import AwsProvider
from infra.aws.sessions import Sessions
from infra.aws.site import Site
from runtime.clock import FakeClock
from runtime.errors import (
    Forbidden,
    NotFound,
    OperationFailed,
    Problem,
    Refused,
    Unauthorized,
    Unavailable,
)
from tests.infra.aws import emulators

EAST, WEST = "us-east-1", "us-west-2"
Answer = tuple[str, dict[str, Any], dict[str, Any] | None]


@pytest.fixture(scope="module")
def clients() -> Iterator[Cloud]:
    """Nobody listens at their addresses: what is not stubbed fails."""
    with emulators.keys():
        yield Cloud({"*": "http://127.0.0.1:9"}, attempts=1)


@dataclass
class Stubbed:
    """A site, and what its clients are told, in order: (operation, answer, expected request)."""

    site: Site

    def run(
        self, service: str, region: str, answers: Sequence[Answer], work: Callable[[], Any]
    ) -> Any:
        with Stubber(self.site.cloud.client(service, region)) as stub:
            for operation, answer, asked in answers:
                stub.add_response(operation, answer, asked)
            result = asyncio.run(work())
            stub.assert_no_pending_responses()
        return result


@pytest.fixture
def stubbed(clients: Cloud) -> Stubbed:
    clients.pause, clients.clock = 1.0, FakeClock(datetime(2026, 11, 23, tzinfo=UTC))
    return Stubbed(emulators.site(clients, "stub"))


def group(primary: str, status: str = "available") -> dict[str, Any]:
    """The queue of us-east-1 with its primary in that zone."""
    members = [
        {
            "CacheClusterId": f"q-00{number}",
            "PreferredAvailabilityZone": f"{EAST}{zone}",
            "CurrentRole": "primary" if zone == primary else "replica",
        }
        for number, zone in enumerate("ab", start=1)
    ]
    node_groups = [{"NodeGroupId": "0001", "NodeGroupMembers": members}]
    name = "regionctl-stub-queue-use1"
    return {
        "ReplicationGroups": [
            {"ReplicationGroupId": name, "Status": status, "NodeGroups": node_groups}
        ]
    }


LOOK = "describe_replication_groups"


@pytest.mark.shows("elasticache.test_failover")
def test_a_queue_is_handed_to_its_other_node_once(stubbed: Stubbed) -> None:
    asked = {"ReplicationGroupId": "regionctl-stub-queue-use1", "NodeGroupId": "0001"}
    answers: list[Answer] = [
        (LOOK, group("a"), {"ReplicationGroupId": asked["ReplicationGroupId"]}),
        ("test_failover", {}, asked),
        (LOOK, group("a", "modifying"), None),
        (LOOK, group("b"), None),
    ]
    work = partial_of(queue.promote_queue, stubbed.site, "queue.us-east-1b")
    assert stubbed.run("elasticache", EAST, answers, work)["changed"] is True
    again: list[Answer] = [(LOOK, group("b"), None)]
    assert stubbed.run("elasticache", EAST, again, work)["changed"] is False


def partial_of(verb: Callable[..., Any], *args: Any, **named: Any) -> Callable[[], Any]:
    return lambda: verb(*args, **named)


def test_a_queue_in_mid_change_is_left_alone(stubbed: Stubbed) -> None:
    work = partial_of(queue.promote_queue, stubbed.site, "queue.us-east-1b")
    with pytest.raises(Refused):
        stubbed.run("elasticache", EAST, [(LOOK, group("a", "modifying"), None)], work)


@pytest.mark.parametrize(("code", "status"), [("NoSuchKey", 404), ("AccessDenied", 403)])
def test_the_first_map_is_published_where_there_is_none(
    stubbed: Stubbed, code: str, status: int
) -> None:
    one = replace(stubbed.site.topology, regions=stubbed.site.topology.regions[:1])
    site = replace(stubbed.site, topology=one)
    with Stubber(site.cloud.client("s3", EAST)) as stub:
        stub.add_client_error("get_object", code, "no", status)
        asked = {
            "Bucket": site.names.bucket(OBJECTS, EAST),
            "Key": maps.key(EAST),
            "Body": ANY,
            "ContentType": "application/json",
            "IfNoneMatch": "*",
        }
        stub.add_response("put_object", {}, asked)
        asyncio.run(maps.publish(site, designed.shard_map(stubbed.site.topology)))
        stub.assert_no_pending_responses()


EARLY, LATE = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)


def source(**more: Any) -> dict[str, Any]:
    return {
        "DBClusters": [
            {
                "DBClusterIdentifier": "regionctl-stub-s1-us-east-1",
                "EarliestRestorableTime": EARLY,
                "LatestRestorableTime": LATE,
                "DBSubnetGroup": "regionctl-stub-data-us-east-1",
                "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
                **more,
            }
        ]
    }


def made(status: str, members: int) -> dict[str, Any]:
    return {
        "DBClusters": [
            {
                "DBClusterIdentifier": "r1",
                "Status": status,
                "Engine": "aurora-postgresql",
                "Endpoint": "r1.cluster-x.us-east-1.rds.amazonaws.com",
                "Port": 5432,
                "DBClusterMembers": [{"DBInstanceIdentifier": "r1-1"}] * members,
            }
        ]
    }


@pytest.mark.shows("rds.restore_db_cluster_to_point_in_time", "rds.create_db_instance")
def test_a_restore_makes_a_cluster_beside_with_one_server_and_waits_for_it(
    stubbed: Stubbed,
) -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    with Stubber(stubbed.site.cloud.client("rds", EAST)) as stub:
        stub.add_response("describe_db_clusters", source())
        stub.add_client_error("describe_db_clusters", "DBClusterNotFoundFault")
        stub.add_response(
            "restore_db_cluster_to_point_in_time",
            {},
            {
                "DBClusterIdentifier": "r1",
                "SourceDBClusterIdentifier": "regionctl-stub-s1-us-east-1",
                "RestoreToTime": at,
                "DBSubnetGroupName": "regionctl-stub-data-us-east-1",
                "VpcSecurityGroupIds": ["sg-1"],
                "DeletionProtection": False,
                "Tags": [{"Key": restore.TAG, "Value": "s1"}],
            },
        )
        # No server is taken while the cluster is made, and none serves before it is available.
        stub.add_response("describe_db_clusters", made("creating", 0))
        stub.add_response("describe_db_clusters", made("available", 0))
        stub.add_response("create_db_instance", {})
        for status in ("creating", "available"):
            server = {"DBInstanceIdentifier": "r1-1", "DBInstanceStatus": status}
            stub.add_response(
                "describe_db_instances", {"DBInstances": [server]}, {"DBInstanceIdentifier": "r1-1"}
            )
        done = asyncio.run(restore.restore(stubbed.site, "s1", EAST, id="r1", at=at))
        stub.assert_no_pending_responses()
    assert (done["cluster"], done["port"], done["changed"]) == ("r1", 5432, True)


@pytest.mark.parametrize(
    "at", [datetime(2026, 10, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
)
def test_a_moment_that_aws_has_not_kept_is_refused_and_nothing_is_made(
    stubbed: Stubbed, at: datetime
) -> None:
    work = partial_of(restore.restore, stubbed.site, "s1", EAST, id="r1", at=at)
    with pytest.raises(Refused, match="can be restored to"):
        stubbed.run("rds", EAST, [("describe_db_clusters", source(), None)], work)


def test_only_what_a_restore_has_made_is_discarded(stubbed: Stubbed) -> None:
    work = partial_of(restore.discard, stubbed.site, EAST, "r1")
    with pytest.raises(Refused, match="not made by a restore"):
        stubbed.run("rds", EAST, [("describe_db_clusters", made("available", 1), None)], work)


def copied(status: str) -> dict[str, Any]:
    arn = f"arn:aws:rds:{WEST}:123456789012:cluster-snapshot:b1"
    found = {"DBClusterSnapshotIdentifier": "b1", "DBClusterSnapshotArn": arn, "Status": status}
    return {"DBClusterSnapshots": [found]}


@pytest.mark.shows("rds.copy_db_cluster_snapshot", "rds.describe_db_cluster_snapshots")
def test_a_snapshot_is_copied_to_another_region_under_its_own_key(stubbed: Stubbed) -> None:
    arn = f"arn:aws:rds:{EAST}:123456789012:cluster-snapshot:b1"
    look = "describe_db_cluster_snapshots"
    with Stubber(stubbed.site.cloud.client("rds", WEST)) as stub:
        stub.add_client_error(look, "DBClusterSnapshotNotFoundFault")
        stub.add_response("copy_db_cluster_snapshot", {})
        stub.add_response(look, copied("creating"))
        stub.add_response(look, copied("available"))
        done = asyncio.run(snapshot.copy(stubbed.site, arn, WEST, id="b1"))
        stub.assert_no_pending_responses()
    assert (done["region"], done["changed"]) == (WEST, True)
    again: list[Answer] = [(look, copied("available"), None)] * 2
    work = partial_of(snapshot.copy, stubbed.site, arn, WEST, id="b1")
    assert stubbed.run("rds", WEST, again, work)["changed"] is False


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("DBClusterNotFoundFault", 404, NotFound),
        ("InvalidGlobalClusterStateFault", 400, Refused),
        ("InvalidDBClusterStateFault", 400, Refused),
        ("AccessDenied", 403, Forbidden),
        ("UnauthorizedOperation", 403, Forbidden),
        ("ExpiredToken", 403, Unauthorized),
        ("InvalidClientTokenId", 403, Unauthorized),
        ("Throttling", 400, Unavailable),
        ("InternalFailure", 500, Unavailable),
        ("DBClusterQuotaExceededFault", 400, Refused),
        ("InvalidParameterValue", 400, OperationFailed),
    ],
)
def test_what_aws_says_becomes_a_problem_of_its_kind(
    stubbed: Stubbed, code: str, status: int, kind: type[Problem]
) -> None:
    with Stubber(stubbed.site.cloud.client("rds", EAST)) as stub:
        stub.add_client_error("describe_db_clusters", code, "so it is", status)
        with pytest.raises(kind) as told:
            asyncio.run(stubbed.site.cloud.call("rds", EAST, "describe_db_clusters"))
    assert type(told.value) is kind
    assert "rds describe_db_clusters in us-east-1" in told.value.detail
    assert told.value.extra["code"] == code


def test_a_region_where_nobody_listens_is_unavailable(stubbed: Stubbed) -> None:
    with pytest.raises(Unavailable) as told:
        asyncio.run(stubbed.site.cloud.call("rds", EAST, "describe_db_clusters"))
    assert told.value.extra == {"region": EAST}


def test_evidence_is_applied_only_when_every_address_is_amazons(
    clients: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clients.mode == "emulated"
    assert Cloud().mode == "applied"
    assert Cloud({"rds": "https://rds.us-east-1.amazonaws.com"}).mode == "applied"
    assert Cloud({"rds": "https://rds.us-east-1.amazonaws.com.example.com"}).mode == "emulated"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert Cloud().mode == "emulated"


def test_a_local_topology_has_no_provider_on_aws(stubbed: Stubbed) -> None:
    local = replace(stubbed.site.topology, aws=None, provider="local")
    with pytest.raises(Problem, match="is for the provider local"):
        AwsProvider(local)


def clusters(*writers: str) -> dict[str, Any]:
    """The catalog's cluster in us-east-1, and which of its servers writes."""
    members = [{"DBInstanceIdentifier": name, "IsClusterWriter": True} for name in writers]
    name = "regionctl-stub-catalog-us-east-1"
    return {"DBClusters": [{"DBClusterIdentifier": name, "DBClusterMembers": members}]}


def server(status: str) -> dict[str, Any]:
    return {"DBInstanceIdentifier": "regionctl-stub-catalog-us-east-1a", "DBInstanceStatus": status}


@pytest.mark.parametrize(
    ("statuses", "ended"),
    [
        (["rebooting", "rebooting", "available"], True),
        (["available", "rebooting", "available"], True),
        # Nobody has seen it restart.
        (["available", *["available"] * 400], False),
        (["rebooting", *["rebooting"] * 400], False),
        ([], False),
    ],
    ids=["restarts", "restarts-later", "never-restarts", "never-comes-back", "refuses"],
)
def test_a_session_counts_as_ended_only_when_aws_says_that_the_server_has_restarted(
    stubbed: Stubbed, statuses: list[str], ended: bool
) -> None:
    site = replace(stubbed.site, topology=replace(stubbed.site.topology, shards=()))
    name = "regionctl-stub-catalog-us-east-1a"
    with Stubber(site.cloud.client("rds", EAST)) as stub:
        stub.add_response("describe_db_clusters", clusters(name))
        # No address, and nobody has Amazon's certificates here: there is no way in.
        stub.add_response("describe_db_instances", {"DBInstances": [server("available")]})
        if statuses:
            asked = {"DBInstanceIdentifier": name}
            stub.add_response("reboot_db_instance", {"DBInstance": server(statuses[0])}, asked)
        else:
            stub.add_client_error("reboot_db_instance", "InvalidDBInstanceState", "it is stopped")
        for status in statuses[1:]:
            stub.add_response("describe_db_instances", {"DBInstances": [server(status)]}, asked)
        (found,) = asyncio.run(evict.evict(site, Sessions(site), EAST))
    assert found.fenced is ended
    assert found.how == f"{name} was restarted" if ended else "may be open" in found.how


def test_a_cluster_that_names_no_writer_is_not_called_ended(stubbed: Stubbed) -> None:
    site = replace(stubbed.site, topology=replace(stubbed.site.topology, shards=()))
    work = partial_of(evict.evict, site, Sessions(site), EAST)
    (found,) = stubbed.run("rds", EAST, [("describe_db_clusters", clusters(), None)], work)
    assert not found.fenced


@pytest.mark.parametrize("state", ["FAILED", "IN_PROGRESS"])
def test_only_a_deployment_that_ecs_has_given_up_is_begun_again(
    stubbed: Stubbed, state: str
) -> None:
    """As the first one is, of a service that came before its image and the first shard map."""

    def service(running: int) -> dict[str, Any]:
        newest = {"status": "PRIMARY", "rolloutState": state}
        found = {"serviceName": "orders", "status": "ACTIVE", "deployments": [newest]}
        return {"services": [{**found, "desiredCount": 3, "runningCount": running}]}

    answers: list[Answer] = [("describe_services", service(0), None)]
    if state == "FAILED":
        asked = {"cluster": ANY, "service": "orders", "desiredCount": 3, "forceNewDeployment": True}
        answers.append(("update_service", {}, asked))
    answers.append(("describe_services", service(3), None))
    with Stubber(stubbed.site.cloud.client("application-autoscaling", EAST)) as scaling:
        scaling.add_response("describe_scalable_targets", {"ScalableTargets": []})
        work = partial_of(scale.scale, stubbed.site, EAST, "orders", 3)
        assert stubbed.run("ecs", EAST, answers, work)["changed"] is False
