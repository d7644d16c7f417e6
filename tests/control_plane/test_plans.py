"""Planners over a world in memory: what they do, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.plans import PLANNERS
from infra.provider import Fault
from infra.topology import parse
from runtime.errors import NotFound, Refused
from tests.control_plane.platform import Platform


async def test_provision_makes_everything_and_then_has_nothing_to_do(
    empty_platform: Platform,
) -> None:
    await empty_platform.run("provision")
    assert (await empty_platform.plan("provision")).steps == ()
    observed = await empty_platform.provider.observe()
    assert all(observed.running(spec.id) for spec in empty_platform.topology.instances())
    assert observed.route == "us-east-1"
    shard_map = await empty_platform.map()
    assert {shard.sync for shard in shard_map.shards.values()} == {
        (f"{name}.us-east-1b",) for name in empty_platform.topology.databases
    }


async def test_provision_after_a_reboot_starts_what_is_there_and_keeps_the_data(
    platform: Platform,
) -> None:
    assert platform.provider.write("s1", "before")
    for region in platform.topology.regions:
        await platform.provider.inject(Fault("kill-region", region.name))
    platform.provider.servers.clear()
    platform.provider.route = None
    plan = await platform.run("provision")
    assert "create-primaries" not in {step.name for step in plan.steps}
    assert plan.steps[-1].name == "resend-events"
    assert platform.provider.write("s1", "after")
    assert platform.provider.lost() == []
    assert (await platform.plan("provision")).steps == ()


async def test_provision_refuses_to_make_a_primary_whose_data_is_gone(platform: Platform) -> None:
    del platform.provider.nodes["s1.us-east-1a"]
    with pytest.raises(Refused, match=r"s1\.us-east-1a.*gone"):
        await platform.plan("provision")


async def test_failover_of_a_healthy_database_is_refused_and_points_to_switchover(
    platform: Platform,
) -> None:
    with pytest.raises(Refused) as refused:
        await platform.plan("failover", target="s1")
    assert "switchover" in (refused.value.hint or "")


async def test_failover_to_the_synchronous_standby_loses_nothing(platform: Platform) -> None:
    assert platform.provider.write("s1", "one")
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    plan = await platform.run("failover", target="s1")
    assert plan.expected["lossSeconds"] == 0.0
    shard = (await platform.map()).shards["s1"]
    assert shard.primary.instance == "s1.us-east-1b"
    assert shard.sync == ()
    assert platform.provider.write("s1", "two")
    assert platform.provider.lost() == []


async def test_a_standby_that_is_not_in_sync_is_promoted_only_with_consent_and_a_reason(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))
    await platform.run("relax-sync", database="s1")
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    with pytest.raises(Refused, match="recorded in sync"):
        await platform.plan("failover", target="s1")
    with pytest.raises(Refused, match="reason"):
        await platform.plan("failover", target="s1", accept_data_loss=True)
    plan = await platform.plan("failover", target="s1", accept_data_loss=True, reason="both lost")
    assert plan.expected["primary"] == "s1.us-west-2a"
    assert plan.expected["lossSeconds"] is None
    mended = ["restore-directory", "return-orphan-stock", "resend-events"]
    assert [step.name for step in plan.steps][-3:] == mended


async def test_a_deposed_primary_started_by_hand_is_no_candidate_beside_a_standby(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    platform.provider.nodes["s1.us-east-1a"].wal += ["never", "acknowledged"]
    await platform.run("failover", target="s1")
    await platform.provider.start_database("s1.us-east-1a")
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))
    plan = await platform.plan("failover", target="s1", accept_data_loss=True, reason="both lost")
    assert plan.expected["primary"] == "s1.us-west-2a"


async def test_a_plan_whose_premises_changed_makes_no_second_primary(platform: Platform) -> None:
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    stale = await platform.plan("failover", target="s1")
    await platform.run("failover", target="s1")
    with pytest.raises(Refused, match="changed while"):
        await platform.store.create_operation(stale, "late", None, "test")
    with pytest.raises(Refused):
        await platform.carry_out(stale)


async def test_region_failover_moves_every_home_and_says_the_loss_beforehand(
    platform: Platform,
) -> None:
    assert platform.provider.write("s1", "replicated")
    await platform.provider.observe()
    await platform.provider.inject(Fault("kill-region", "us-east-1"))
    with pytest.raises(Refused, match="asynchronous"):
        await platform.plan("failover", target="us-east-1")
    await platform.run("failover", target="us-east-1", accept_data_loss=True, reason="drill")
    assert {shard.home for shard in (await platform.map()).shards.values()} == {"us-west-2"}
    assert platform.provider.write("s1", "after")


async def test_a_region_that_cannot_be_fenced_stops_the_failover(platform: Platform) -> None:
    platform.provider.unreachable.add("us-east-1")
    for database in platform.topology.databases:
        platform.provider.nodes[f"{database}.us-east-1a"].frozen = True
    with pytest.raises(Refused, match="could not be fenced"):
        await platform.run("failover", target="us-east-1", accept_data_loss=True, reason="cut off")
    assert (await platform.map()).shards["s1"].home == "us-east-1"
    await platform.run(
        "failover", target="us-east-1", accept_data_loss=True, unfenced=True, reason="powered off"
    )
    assert (await platform.map()).shards["s1"].home == "us-west-2"


async def test_failback_brings_everything_home_without_loss_and_then_is_empty(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill-region", "us-east-1"))
    await platform.run("failover", target="us-east-1", accept_data_loss=True, reason="drill")
    assert platform.provider.write("s1", "written away")
    await platform.run("failback")
    shard = (await platform.map()).shards["s1"]
    assert (shard.home, shard.primary.instance) == ("us-east-1", "s1.us-east-1a")
    assert shard.sync == ("s1.us-east-1b",)
    assert platform.provider.lost() == []
    assert platform.provider.route == "us-east-1"
    assert (await platform.plan("failback")).steps == ()
    assert (await platform.plan("provision")).steps == ()


async def test_switchover_swaps_primary_and_standby_and_keeps_redundancy(
    platform: Platform,
) -> None:
    assert platform.provider.write("catalog", "one")
    await platform.run("switchover", target="catalog")
    shard = (await platform.map()).shards["catalog"]
    assert shard.primary.instance == "catalog.us-east-1b"
    assert shard.sync == ("catalog.us-east-1a",)
    assert platform.provider.lost() == []


async def test_switchover_of_a_region_and_back_loses_nothing(platform: Platform) -> None:
    assert platform.provider.write("s2", "one")
    await platform.run("switchover", to="us-west-2")
    assert platform.provider.route == "us-west-2"
    assert platform.provider.write("s2", "two")
    await platform.run("switchover", to="us-east-1")
    assert platform.provider.lost() == []
    assert (await platform.plan("provision")).steps == ()


async def test_rejoin_makes_the_deposed_primary_a_standby_and_exports_its_tail(
    platform: Platform,
) -> None:
    old = platform.provider.nodes["s1.us-east-1a"]
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    old.wal.append("never acknowledged")
    await platform.run("failover", target="s1")
    plan = await platform.run("rejoin", database="s1")
    assert [step.name for step in plan.steps][:2] == ["salvage", "return-standbys"]
    assert platform.provider.salvaged["s1.us-east-1a"].orders == ("never acknowledged",)
    assert (await platform.map()).shards["s1"].sync == ("s1.us-east-1a",)
    assert not platform.provider.nodes["s1.us-east-1a"].primary


async def test_a_queue_fails_over_to_the_other_zone(platform: Platform) -> None:
    platform.provider.servers["queue.us-east-1a"] = False
    began = platform.clock.monotonic()
    plan = await platform.run("queue-failover", region="us-east-1")
    assert [step.name for step in plan.steps][-3:] == ["publish-map", *["resend-events"] * 2]
    assert platform.clock.monotonic() - began >= plan.steps[-1].args["settle_seconds"] > 1
    assert (await platform.map()).queues["us-east-1"].instance == "queue.us-east-1b"


async def test_decommission_stops_all_and_then_is_empty(platform: Platform) -> None:
    await platform.run("decommission")
    assert (await platform.plan("decommission")).steps == ()
    observed = await platform.provider.observe()
    assert not any(observed.running(spec.id) for spec in platform.topology.instances())


async def test_unknown_targets_name_what_exists(platform: Platform) -> None:
    with pytest.raises(NotFound) as missing:
        await platform.plan("failover", target="s9")
    assert "s1" in (missing.value.hint or "")


@pytest.mark.parametrize("verb", [verb for verb in PLANNERS if verb not in ("provision",)])
async def test_nothing_is_planned_before_the_first_provision(
    empty_platform: Platform, verb: str
) -> None:
    asked: dict[str, Any] = {"target": "s1", "database": "s1", "region": "us-east-1", "to": 4}
    asked |= {"id": "s1-first", "name": "before-release-7", "service": "orders", "seconds": 60.0}
    if verb == "decommission":
        assert (await empty_platform.plan(verb)).steps == ()
        return
    with pytest.raises(Refused) as refused:
        await empty_platform.plan(verb, **asked)
    assert refused.value.hint == "regionctl up"


async def test_one_region_alone_works_and_has_nowhere_to_fail_over_to() -> None:
    text = """
apiVersion: regionctl/v1
kind: Topology
name: one-region
provider: memory
regions: [{name: us-east-1, role: primary, zones: [a, b]}]
shards: 1
objectives: [{scenario: service-outage, rtoSeconds: 300, rpoSeconds: 0, procedure: x}]
"""
    async with Platform.open(parse(text, "one.yaml")) as platform:
        await _lose_the_only_region(platform)


async def _lose_the_only_region(platform: Platform) -> None:
    await platform.run("provision")
    await platform.provider.inject(Fault("kill-region", "us-east-1"))
    with pytest.raises(Refused, match="No replica"):
        await platform.plan("failover", target="us-east-1", accept_data_loss=True, reason="x")


async def test_provision_starts_again_what_outlived_its_regions_supervisor(
    platform: Platform,
) -> None:
    """A new supervisor begins with nothing: what runs without one is ended first."""
    platform.provider.supervised.discard("us-east-1")
    plan = await platform.plan("provision")
    started = {id for step in plan.steps for id in step.args.get("instances", ())}
    assert {"s1.us-east-1a", "queue.us-east-1a", "orders.us-east-1b"} <= started
    returned = [step for step in plan.steps if step.name == "return-standbys"]
    assert {"s1.us-east-1b", "s2.us-east-1b", "catalog.us-east-1b"} == {
        entry["instance"] for step in returned for entry in step.args["standbys"]
    }


async def test_a_deposed_primary_is_looked_through_before_a_switchover_of_the_region_rewinds_it(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
    await platform.run("failover", target="s1")
    platform.provider.nodes["s1.us-east-1a"].wal.append("never acknowledged")
    await platform.run("switchover", to="us-west-2")
    assert platform.provider.salvaged["s1.us-east-1a"].orders == ("never acknowledged",)
