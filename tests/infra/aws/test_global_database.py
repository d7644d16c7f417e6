"""Where a global database is written: seen, switched over, failed over, moved within its region."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from infra.aws import databases
from infra.aws.clients import Cloud
from infra.aws.observe import observe
from infra.aws.operate.failover import failover
from infra.aws.operate.promote import promote
from infra.aws.operate.switchover import switchover
from infra.aws.site import Site
from runtime.errors import NotFound, Refused
from tests.infra.aws import emulators

EAST, WEST = "us-east-1", "us-west-2"
FIRST, BESIDE, REMOTE, REMOTE_B = "s1.us-east-1a", "s1.us-east-1b", "s1.us-west-2a", "s1.us-west-2b"


def roles(site: Site) -> dict[str, tuple[str, str | None]]:
    """instance → (role, upstream) of shard s1."""
    nodes = [spec.id for spec in site.topology.database_nodes("s1")]
    observed = asyncio.run(observe(site, nodes))
    views = {id: observed.postgres(id) for id in nodes}
    return {id: (view.role, view.upstream) for id, view in views.items() if view}


@pytest.mark.shows(
    "rds.describe_global_clusters", "rds.describe_db_clusters", "rds.describe_db_instances"
)
def test_one_server_of_a_global_database_is_the_primary_and_all_others_follow_it(
    shard: Site,
) -> None:
    assert roles(shard) == {
        FIRST: ("primary", None),
        **dict.fromkeys((BESIDE, REMOTE, REMOTE_B), ("standby", FIRST)),
    }
    primary = asyncio.run(observe(shard, [FIRST])).postgres(FIRST)
    assert primary is not None
    assert primary.sync_names == (BESIDE,)
    assert {each.instance: (each.streaming, each.sync) for each in primary.followers} == {
        BESIDE: (True, True),
        REMOTE: (True, False),
        REMOTE_B: (True, False),
    }


@pytest.mark.shows("cloudwatch.get_metric_data")
def test_the_lag_of_another_region_is_what_cloudwatch_says_and_unknown_without_it(
    shard: Site,
) -> None:
    assert asyncio.run(databases.lags(shard, ["s1", "catalog"], WEST)) == {}
    emulators.fall_behind(shard, "s1", WEST, 412.0)
    assert asyncio.run(databases.lags(shard, ["s1", "catalog"], WEST)) == {"s1": 0.412}
    view = asyncio.run(observe(shard, [FIRST])).postgres(FIRST)
    assert view is not None
    lags = {each.instance: each.lag_seconds for each in view.followers}
    assert lags == {BESIDE: 0.0, REMOTE: 0.412, REMOTE_B: 0.412}
    emulators.fall_behind(shard, "s1", WEST, 650.0, source=EAST)
    assert asyncio.run(databases.lags(shard, ["s1"], WEST)) == {"s1": 0.65}


@pytest.mark.shows("rds.switchover_global_cluster")
def test_a_switchover_moves_the_writer_once_and_back(shard: Site) -> None:
    first = asyncio.run(switchover(shard, "s1", WEST))
    assert (first["region"], first["writer"], first["changed"]) == (WEST, REMOTE, True)
    assert roles(shard)[FIRST] == ("standby", REMOTE)
    again = asyncio.run(switchover(shard, "s1", WEST))
    assert (again["writer"], again["changed"]) == (REMOTE, False)
    asyncio.run(switchover(shard, "s1", EAST))
    assert roles(shard)[FIRST] == ("primary", None)


@pytest.mark.shows("rds.failover_global_cluster")
def test_a_failover_needs_somebody_who_agrees_to_the_loss(shard: Site) -> None:
    with pytest.raises(Refused, match="agreed"):
        asyncio.run(failover(shard, "s1", WEST, accept_data_loss=False))
    assert roles(shard)[FIRST] == ("primary", None)
    done = asyncio.run(failover(shard, "s1", WEST, accept_data_loss=True))
    assert (done["writer"], done["changed"], done["lossless"]) == (REMOTE, True, False)
    assert done["lagSeconds"] is None
    # Again, also without consent: nothing is lost by what is so already.
    again = asyncio.run(failover(shard, "s1", WEST, accept_data_loss=False))
    assert (again["changed"], again["lossless"]) == (False, True)


def test_a_failover_works_with_the_lost_regions_api_away(shard: Site) -> None:
    away = without(shard, EAST)
    done = asyncio.run(failover(away, "s1", WEST, accept_data_loss=True))
    assert done["writer"] == REMOTE
    observed = asyncio.run(observe(away, [FIRST, REMOTE]))
    assert observed.unreachable == {EAST}
    assert observed.state(FIRST) == "failed"
    view = observed.postgres(REMOTE)
    assert view is not None
    assert (view.role, view.sync_names) == ("primary", (REMOTE_B,))


def without(site: Site, region: str) -> Site:
    """The same site when nothing of `region` answers (Route 53 stands in no region)."""

    class Without(Cloud):
        def client(self, service: str, where: str) -> Any:
            if where == region and service != "route53":
                return nowhere.client(service, where)
            return site.cloud.client(service, where)

    nowhere = Cloud({"*": "http://127.0.0.1:9"}, attempts=1)
    return replace(site, cloud=Without(site.cloud.endpoints, pause=site.cloud.pause))


@pytest.mark.shows("rds.failover_db_cluster")
def test_within_its_region_the_writer_moves_to_the_server_that_is_asked_for(shard: Site) -> None:
    done = asyncio.run(promote(shard, BESIDE))
    assert (done["writer"], done["changed"], done["lossless"]) == (BESIDE, True, True)
    assert roles(shard)[FIRST] == ("standby", BESIDE)
    assert asyncio.run(promote(shard, BESIDE))["changed"] is False


def test_a_server_of_another_region_is_promoted_without_loss_unless_loss_was_agreed_to(
    shard: Site,
) -> None:
    planned = asyncio.run(promote(shard, REMOTE_B))
    assert (planned["writer"], planned["lossless"]) == (REMOTE_B, True)
    assert roles(shard)[REMOTE] == ("standby", REMOTE_B)
    lost = asyncio.run(promote(shard, FIRST, accept_data_loss=True))
    assert (lost["writer"], lost["lossless"]) == (FIRST, False)


def test_a_region_without_a_cluster_and_a_database_that_is_not_there_are_not_found(
    shard: Site,
) -> None:
    with pytest.raises(NotFound, match="no cluster in eu-west-1"):
        asyncio.run(switchover(shard, "s1", "eu-west-1"))
    with pytest.raises(NotFound):
        asyncio.run(switchover(shard, "s9", WEST))
    with pytest.raises(NotFound, match="no postgres"):
        asyncio.run(promote(shard, "cache.us-east-1a"))


def test_nothing_is_begun_while_another_change_is_under_way() -> None:
    cluster = databases.Member(WEST, "arn:west", writer=False, connected=True)
    other = databases.Member(EAST, "arn:east", writer=True, connected=True)
    from infra.aws.operate.handover import under_way

    calm = databases.Global("g", "available", (other, cluster))
    assert not under_way(calm, cluster, healthy=True)
    mine = databases.Global("g", "switching-over", (other, cluster), heading="arn:west")
    assert under_way(mine, cluster, healthy=True)
    theirs = replace(mine, heading="arn:east")
    upgrade = replace(calm, status="upgrading")
    for known, healthy in ((theirs, True), (theirs, False), (upgrade, True)):
        with pytest.raises(Refused):
            under_way(known, cluster, healthy=healthy)
    assert not under_way(upgrade, cluster, healthy=False)
