"""Clients, tasks, maps and sessions of a platform on AWS, one verb after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from infra.aws import compute, databases, maps, route
from infra.aws.observe import observe
from infra.aws.operate import fence, reroute, restore, scale, snapshot
from infra.aws.provider import AwsProvider
from infra.aws.route import Door
from infra.aws.sessions import Sessions
from infra.aws.site import Site
from infra.aws.snapshots import AwsBackups
from infra.aws.spec import platform
from infra.provider import Fault, Fenced
from runtime.clock import SystemClock, wait_until
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import Endpoint, Shard, ShardMap, even_ranges
from tests.infra.aws import emulators
from tests.infra.aws.test_global_database import EAST, FIRST, WEST, without


@pytest.mark.shows(
    "ecs.describe_services",
    "ecs.list_tasks",
    "ecs.describe_tasks",
    "elasticache.describe_replication_groups",
    "route53.list_hosted_zones_by_name",
    "route53.list_resource_record_sets",
    "route53.get_health_check",
    "route53.get_health_check_status",
    "elbv2.describe_load_balancers",
    "elbv2.describe_listeners",
    "elbv2.describe_rules",
)
def test_a_platform_as_made_is_seen_whole(site: Site) -> None:
    observed = asyncio.run(observe(site))
    assert set(observed.instances) == set(site.topology.by_id)
    # Emulated tasks all stand in the first zone.
    apart = [s.id for s in site.topology.instances(zone="b") if s.kind in ("service", "envoy")]
    down = [id for id, view in observed.instances.items() if view.state != "running"]
    assert sorted(down) == sorted(apart)
    assert (observed.route, observed.unreachable) == (EAST, frozenset())
    replica = observed.instances["queue.us-east-1b"].valkey
    assert replica is not None
    assert (replica.role, replica.upstream) == ("replica", "queue.us-east-1a")


@pytest.mark.shows("route53.update_health_check", "elbv2.create_rule", "elbv2.delete_rule")
def test_the_route_goes_to_another_region_to_nobody_and_home(site: Site) -> None:
    for region in (WEST, WEST, None, None, EAST, None, WEST, EAST):
        if region is None:
            asyncio.run(reroute.close_route(site))
        else:
            asyncio.run(reroute.open_route(site, region))
        assert asyncio.run(route.read(site)) == region
    # Home again, everything is as Pulumi made it.
    checks = asyncio.run(route.checks(site))
    assert {route.held(check) for check in checks.values()} == {"free"}
    assert [asyncio.run(route.closed(site, region)) for region in site.regions] == [False, False]


def test_the_route_leaves_a_region_that_does_not_answer(site: Site) -> None:
    away = without(site, EAST)
    asyncio.run(reroute.close_route(away))
    assert asyncio.run(route.read(away)) is None
    asyncio.run(reroute.open_route(away, WEST))
    assert asyncio.run(route.read(away)) == WEST
    # It comes back, and no client comes back with it.
    assert asyncio.run(route.read(site)) == WEST
    asyncio.run(reroute.open_route(site, EAST))


def test_dns_answers_with_the_first_healthy_region_and_never_with_none() -> None:
    up = [Door(EAST, "free", True, False), Door(WEST, "free", True, False)]
    assert route.leads_to(up) == EAST
    assert route.leads_to([replace(up[0], healthy=False), up[1]]) == WEST
    assert route.leads_to([replace(door, healthy=False) for door in up]) == EAST
    assert route.leads_to([replace(up[0], closed=True), up[1]]) is None
    assert route.leads_to([replace(up[0], held="out", healthy=False, closed=None), up[1]]) == WEST


@pytest.mark.parametrize(
    ("disabled", "inverted", "way"),
    [(False, False, "free"), (False, True, "free"), (True, False, "in"), (True, True, "out")],
)
def test_only_a_disabled_check_holds_a_region(disabled: bool, inverted: bool, way: str) -> None:
    config = {"Disabled": disabled, "Inverted": inverted}
    assert route.held({"HealthCheckConfig": config}) == way


@pytest.mark.shows(
    "application-autoscaling.describe_scalable_targets",
    "application-autoscaling.register_scalable_target",
    "ecs.update_service",
    "ec2.describe_security_groups",
    "ec2.describe_security_group_rules",
    "ec2.revoke_security_group_ingress",
    "ec2.authorize_security_group_ingress",
    "ec2.revoke_security_group_egress",
    "ec2.authorize_security_group_egress",
)
def test_a_fenced_region_has_no_task_of_a_service_and_no_way_into_its_databases(
    site: Site,
) -> None:
    for _ in range(2):
        fenced = asyncio.run(fence.fence_region(site, Sessions(site), EAST))
        assert fenced.fenced, fenced.how
    assert [asyncio.run(compute.tasks(site, EAST, name)) for name in site.topology.services] == [
        [],
        [],
    ]
    assert len(asyncio.run(compute.tasks(site, EAST, "gateway"))) == 2
    assert sources(site, EAST) == ["control"]
    assert ways(site, WEST, EAST) == [], "a service of the other region gets in neither"
    assert len(ways(site, EAST, WEST)) == 2, "nobody asked for that"
    assert asyncio.run(observe(site, ["orders.us-east-1a"])).state("orders.us-east-1a") == "stopped"
    # Its databases run and nobody gets in: to whoever plans a failover they are lost.
    assert asyncio.run(observe(site, [FIRST])).state(FIRST) == "frozen"
    for _ in range(2):
        asyncio.run(fence.lift(site, EAST))
    assert asyncio.run(observe(site, [FIRST])).running(FIRST)
    assert sources(site, EAST) == ["control", "service"]
    assert len(ways(site, WEST, EAST)) == 2
    asyncio.run(scale.scale(site, EAST, "orders", 2))
    asyncio.run(scale.scale(site, EAST, "payments", 2))


def sources(site: Site, region: str) -> list[str]:
    """Who may connect to the databases of a region."""
    ec2 = site.cloud.client("ec2", region)
    groups = {
        group["GroupId"]: group["GroupName"].removeprefix(f"{site.names.stem}-")
        for group in ec2.describe_security_groups()["SecurityGroups"]
        if group["GroupName"].startswith(site.names.stem)
    }
    database = next(id for id, name in groups.items() if name == "database")
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [database]}])
    named = [
        rule.get("ReferencedGroupInfo", {}).get("GroupId") for rule in rules["SecurityGroupRules"]
    ]
    return sorted(groups[id] for id in named if id)


def ways(site: Site, region: str, to: str) -> list[str]:
    """The database subnets of another region that services of `region` may open sessions to."""
    ec2 = site.cloud.client("ec2", region)
    named = [{"Name": "group-name", "Values": [site.group("service")]}]
    (group,) = ec2.describe_security_groups(Filters=named)["SecurityGroups"]
    (spec,) = [one for one in platform(site.topology, "").regions if one.name == to]
    known = {each["CidrIp"] for rule in group["IpPermissionsEgress"] for each in rule["IpRanges"]}
    return sorted(known & set(spec.database))


def fenced_without(site: Site, silent: str) -> Fenced:
    """What the fence of EAST says while nothing of the region `silent` answers."""
    away = without(site, silent)
    return asyncio.run(fence.fence_region(away, Sessions(away), EAST))


def test_a_region_whose_neighbours_nobody_can_hold_off_is_not_called_fenced(site: Site) -> None:
    fenced = fenced_without(site, WEST)
    assert not fenced.fenced
    assert fenced.how == "services of us-west-2 may still write there"
    asyncio.run(fence.lift(site, EAST))


def test_a_region_that_does_not_answer_is_not_called_fenced(site: Site) -> None:
    fenced = fenced_without(site, EAST)
    assert not fenced.fenced
    assert "does not answer" in fenced.how
    assert sources(site, EAST) == ["control", "service"]


def test_a_reader_is_fenced_by_nature_and_a_writer_by_a_promotion_only(site: Site) -> None:
    assert not asyncio.run(fence.fence(site, FIRST)).fenced
    assert asyncio.run(fence.fence(site, "s1.us-east-1b")).fenced
    assert asyncio.run(fence.fence(site, "s1.us-west-2a")).fenced
    assert not asyncio.run(fence.fence(without(site, EAST), FIRST)).fenced


def test_a_detached_cluster_gets_no_writers_back(shard: Site) -> None:
    west = asyncio.run(databases.cluster(shard, "s1", WEST))
    shard.cloud.client("rds", EAST).remove_from_global_cluster(
        GlobalClusterIdentifier=shard.names.global_cluster("s1"),
        DbClusterIdentifier=west["DBClusterArn"],
    )
    with pytest.raises(Refused, match="not part of"):
        asyncio.run(fence.lift(shard, WEST))


def test_tasks_are_added_and_never_taken_from_load(site: Site) -> None:
    more = asyncio.run(scale.scale(site, WEST, "orders", 5))
    assert (more["desired"], more["changed"]) == (5, True)
    less = asyncio.run(scale.scale(site, WEST, "orders", 3))
    assert (less["desired"], less["changed"]) == (5, False)
    target = site.cloud.client("application-autoscaling", WEST).describe_scalable_targets(
        ServiceNamespace="ecs", ResourceIds=[site.names.scaling_target("orders", WEST)]
    )["ScalableTargets"][0]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (3, 8)
    with pytest.raises(Invalid):
        asyncio.run(scale.scale(site, WEST, "orders", 1000))
    with pytest.raises(NotFound):
        asyncio.run(scale.scale(site, WEST, "search", 2))


@pytest.mark.shows("s3.put_object", "s3.get_object")
def test_two_who_publish_at_once_leave_the_newer_map(site: Site) -> None:
    end = Endpoint(FIRST, EAST, "a", "db", 5432)
    shards = {"s1": Shard("s1", 1, EAST, end)}

    def version(number: int) -> ShardMap:
        return ShardMap(number, even_ranges(["s1"], 1), shards, {})

    async def publish() -> None:
        await asyncio.gather(*(maps.publish(site, version(number)) for number in (3, 5, 4)))

    asyncio.run(publish())
    assert asyncio.run(maps.versions(site)) == {EAST: 5, WEST: 5}
    assert asyncio.run(maps.newest(site)) == version(5)
    # A damaged one is older than every other.
    site.cloud.client("s3", EAST).put_object(
        Bucket=site.names.bucket("objects", EAST), Key=maps.key(EAST), Body=b"{"
    )
    assert asyncio.run(maps.versions(site)) == {EAST: 0, WEST: 5}
    asyncio.run(maps.publish(site, version(5)))
    assert asyncio.run(maps.versions(site)) == {EAST: 5, WEST: 5}


def test_a_broken_region_has_lost_its_services_and_heals(site: Site) -> None:
    provider = AwsProvider(site.topology, site.cloud)
    fault = Fault("kill-region", WEST)
    asyncio.run(provider.inject(fault))
    assert asyncio.run(observe(site, ["orders.us-west-2a"])).state("orders.us-west-2a") == "stopped"
    asyncio.run(provider.heal(fault))
    asyncio.run(provider.ensure_running(["orders.us-west-2a", "payments.us-west-2a"]))
    assert asyncio.run(observe(site, ["orders.us-west-2a"])).running("orders.us-west-2a")


@pytest.mark.shows("ecs.stop_task")
def test_killed_tasks_are_those_of_one_zone(site: Site) -> None:
    provider = AwsProvider(site.topology, site.cloud)
    asyncio.run(provider.inject(Fault("kill", "payments.us-west-2b")))
    before = len(asyncio.run(compute.tasks(site, WEST, "payments")))
    assert before > 0
    asyncio.run(provider.inject(Fault("kill", "payments.us-west-2a")))
    assert asyncio.run(compute.tasks(site, WEST, "payments")) == []


REFUSALS: list[tuple[str, Callable[[AwsProvider], object]]] = [
    ("set_shards", lambda p: p.set_shards(4)),
    ("remove_region", lambda p: p.remove_region(EAST)),
    ("ensure_stopped", lambda p: p.ensure_stopped(["orders.us-east-1a"])),
    ("set_instances", lambda p: p.set_instances("orders", "us-east-1a", 2)),
    ("stop_database", lambda p: p.stop_database(FIRST)),
    ("remove_database", lambda p: p.remove_database(FIRST)),
    ("rewind", lambda p: p.rewind(FIRST, "s1.us-west-2a")),
    ("salvage", lambda p: p.salvage(FIRST, "s1.us-west-2a")),
    ("moves", lambda p: p.moves.finish(None, None)),  # type: ignore[arg-type]
    ("repairs", lambda p: p.repairs.inspect("r", [], [])),
    ("restore_into", lambda p: p.backups.restore_into(FIRST, "s1", None)),  # type: ignore[arg-type]
    ("verify", lambda p: p.backups.verify("b")),
    ("mark_point", lambda p: p.backups.mark_point("p", None)),  # type: ignore[arg-type]
    ("prune", lambda p: p.backups.prune(2)),
    ("queues", lambda p: p.dead_letters(EAST)),
    ("inject freeze", lambda p: p.inject(Fault("freeze", FIRST))),
    ("inject kill-zone", lambda p: p.inject(Fault("kill-zone", "us-east-1a"))),
    ("inject cut-link", lambda p: p.inject(Fault("cut-link", "us-east-1/us-west-2"))),
    ("inject slow-link", lambda p: p.inject(Fault("slow-link", "us-east-1/us-west-2"))),
    ("inject drop-cache", lambda p: p.inject(Fault("drop-cache", "cache.us-east-1a"))),
    ("inject drop-queue", lambda p: p.inject(Fault("drop-queue", "queue.us-east-1a"))),
    ("inject corrupt", lambda p: p.inject(Fault("corrupt", "s1"))),
]


@pytest.mark.parametrize(("what", "ask"), REFUSALS, ids=[what for what, _ in REFUSALS])
def test_what_aws_cannot_do_is_refused_with_the_reason(
    what: str, ask: Callable[[AwsProvider], object], site: Site
) -> None:
    from infra.aws.limits import REASONS

    provider = AwsProvider(site.topology, site.cloud)
    with pytest.raises(Refused) as refused:
        asyncio.run(ask(provider))  # type: ignore[arg-type]
    assert REASONS[what] in refused.value.detail
    assert refused.value.hint


@pytest.mark.shows("rds.reboot_db_instance")
def test_a_killed_database_server_restarts_and_serves_again(shard: Site) -> None:
    provider = AwsProvider(shard.topology, shard.cloud)
    asyncio.run(provider.inject(Fault("kill", "s1.us-east-1b")))

    async def again() -> bool:
        return (await observe(shard, ["s1.us-east-1b"])).running("s1.us-east-1b")

    asyncio.run(wait_until(SystemClock(), again, what="it to run again", seconds=20))


@pytest.mark.shows("rds.create_db_cluster_snapshot", "rds.describe_db_cluster_snapshots")
def test_a_snapshot_is_taken_once_and_listed(shard: Site) -> None:
    for changed in (True, False):
        made = asyncio.run(snapshot.snapshot(shard, "s1", EAST, id=f"{shard.names.stem}-b1"))
        assert made["changed"] is changed
    listed = asyncio.run(AwsBackups(shard).list())
    assert [(each.id, each.database, each.region) for each in listed] == [(made["id"], "s1", EAST)]


@pytest.mark.shows("rds.delete_db_instance", "rds.delete_db_cluster")
def test_a_restored_cluster_is_discarded_with_its_servers(shard: Site) -> None:
    rds, id = shard.cloud.client("rds", EAST), f"{shard.names.stem}-restored-r1"
    rds.create_db_cluster(
        DBClusterIdentifier=id,
        Engine=emulators.ENGINE,
        MasterUsername="regionctl",
        MasterUserPassword="emulated-only",
        Tags=[{"Key": restore.TAG, "Value": "s1"}],
    )
    rds.create_db_instance(
        DBInstanceIdentifier=f"{id}-1",
        DBClusterIdentifier=id,
        DBInstanceClass="db.r6g.large",
        Engine=emulators.ENGINE,
    )
    backups = AwsBackups(shard)
    assert asyncio.run(backups.restored("r1")).database == "s1"
    for _ in range(2):
        asyncio.run(backups.discard("r1"))
    with pytest.raises(NotFound):
        asyncio.run(backups.restored("r1"))


@pytest.mark.shows("logs.filter_log_events")
def test_the_last_lines_of_a_service_are_those_of_its_log_group(shard: Site) -> None:
    logs, group = shard.cloud.client("logs", EAST), shard.names.log_group("orders", EAST)
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    now = int(SystemClock().now().timestamp() * 1000)
    lines = [{"timestamp": now + number, "message": f"line {number}"} for number in range(3)]
    logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=lines)
    provider = AwsProvider(shard.topology, shard.cloud)
    told = asyncio.run(provider.logs(["orders.us-east-1a", FIRST], 2))
    assert told == {"orders.us-east-1a": ["line 1", "line 2"], FIRST: []}
