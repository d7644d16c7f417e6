"""What a drill will do, decided before it does anything."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import drills, objectives
from control_plane.plan import Plan
from infra.memory import MemoryProvider
from infra.provider import Fault, Observed
from infra.topology import Topology, load
from runtime.clock import Clock
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import Shard, ShardMap, even_ranges


async def whole(topology: Topology, clock: Clock | None = None) -> tuple[MemoryProvider, ShardMap]:
    """A platform as `up` leaves it, in memory."""
    provider = MemoryProvider(topology, clock)
    for region in topology.regions:
        await provider.ensure_region(region.name)
    kinds = ("postgres", "supervisor")
    await provider.ensure_running([s.id for s in topology.instances() if s.kind not in kinds])
    shards = {}
    for database in topology.databases:
        first, *rest = topology.database_nodes(database)
        await provider.create_primary(first.id)
        for node in rest:
            await provider.clone(node.id, first.id)
        shards[database] = Shard(
            database,
            1,
            first.region,
            provider.endpoint(first.id),
            tuple(provider.endpoint(node.id) for node in rest),
            (rest[0].id,),
        )
    queues = {r.name: provider.endpoint(f"queue.{r.name}a") for r in topology.regions}
    shard_map = ShardMap(1, even_ranges(topology.shards, 1), shards, queues)
    for name, shard in shards.items():
        await provider.set_sync(shard.primary.instance, shard.sync)
        await provider.set_epoch(shard.primary.instance, shard_map, name)
    await provider.publish_map(shard_map)
    await provider.open_route(topology.primary_region.name)
    return provider, shard_map


@pytest.fixture
def topology() -> Topology:
    return load("two-regions")


@pytest.fixture
async def world(topology: Topology) -> tuple[Observed, ShardMap]:
    provider, shard_map = await whole(topology)
    return await provider.observe(), shard_map


FAULTS = {"reshard": "kill-during-move", "backup-restore": "assume-loss"}


def targets(plan: Plan) -> list[str]:
    return [step.args["fault"]["target"] for step in plan.steps if step.name == "inject-fault"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("service-outage", ["orders.us-east-1a", "orders.us-east-1b", "orders.us-east-1a"]),
        ("database-failure", ["s1.us-east-1a", "s1.us-east-1b", "s1.us-east-1a"]),
        ("zone-failure", ["us-east-1a", "us-east-1b", "us-east-1a"]),
        ("region-failure", ["us-east-1", "us-east-1", "us-east-1"]),
    ],
)
async def test_each_repeat_breaks_what_serves_at_that_time(
    topology: Topology, world: tuple[Observed, ShardMap], name: str, expected: list[str]
) -> None:
    assert targets(drills.plan(topology, *world, drill=name, repeat=3)) == expected


async def test_a_zone_failure_awaits_the_recovery_of_every_primary_and_the_queue(
    topology: Topology, world: tuple[Observed, ShardMap]
) -> None:
    plan = drills.plan(topology, *world, drill="zone-failure")
    (awaiting,) = [step for step in plan.steps if step.name == "await-recovery"]
    assert awaiting.args["operations"] == [
        ["failover", "s1"],
        ["failover", "s2"],
        ["failover", "catalog"],
        ["queue-failover", "us-east-1"],
    ]


async def test_a_region_goes_home_between_repeats_but_not_after_the_last(
    topology: Topology, world: tuple[Observed, ShardMap]
) -> None:
    plan = drills.plan(topology, *world, drill="region-failure", repeat=3)
    assert [step.name for step in plan.steps].count("run-return") == 2
    assert plan.expected["recovery"][0]["name"] == "close-route"


@pytest.mark.parametrize("name", sorted(drills.DRILLS))
async def test_the_same_seed_plans_the_same_drill_and_another_seed_another_phase(
    topology: Topology, world: tuple[Observed, ShardMap], name: str
) -> None:
    def planned(seed: int) -> Plan:
        return drills.plan(topology, *world, drill=name, repeat=2, seed=seed)

    assert planned(7) == planned(7)
    assert planned(7) != planned(8)


@pytest.mark.parametrize("name", sorted(drills.DRILLS))
async def test_every_drill_reads_back_tests_its_meter_and_reports(
    topology: Topology, world: tuple[Observed, ShardMap], name: str
) -> None:
    names = [step.name for step in drills.plan(topology, *world, drill=name).steps]
    fault = FAULTS.get(name, "inject-fault")
    wanted = ["start-probe", fault, "read-back", "self-test", "judge", "write-report"]
    assert [name for name in names if name in wanted] == wanted


async def test_a_drill_is_refused_while_an_instance_is_down(topology: Topology) -> None:
    provider, shard_map = await whole(topology)
    await provider.inject(Fault("kill", "s2.us-west-2a"))
    with pytest.raises(Refused, match=r"s2\.us-west-2a"):
        drills.plan(topology, await provider.observe(), shard_map, drill="service-outage")


async def test_a_drill_is_refused_while_a_database_has_no_standby_in_sync(
    topology: Topology, world: tuple[Observed, ShardMap]
) -> None:
    observed, shard_map = world
    with pytest.raises(Refused, match="s2 has no standby"):
        drills.plan(topology, observed, shard_map.with_sync("s2", ()), drill="zone-failure")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"drill": "earthquake"}, NotFound),
        ({"drill": "zone-failure", "fault": "freeze"}, Invalid),
        ({"drill": "database-failure", "target": "s9"}, NotFound),
        ({"drill": "service-outage", "target": "s1.us-east-1a"}, Invalid),
        ({"drill": "region-failure", "target": "us-west-2"}, Refused),
        ({"drill": "region-failure", "target": "eu-west-1"}, NotFound),
        ({"drill": "zone-failure", "target": "us-east-1a"}, Invalid),
        ({"drill": "region-failure", "repeat": 0}, Invalid),
        ({"drill": "reshard", "target": "s1"}, Invalid),
        ({"drill": "reshard", "fault": "corrupt"}, Invalid),
        ({"drill": "data-corruption", "target": "catalog"}, NotFound),
        ({"drill": "backup-restore", "target": "s1"}, Invalid),
    ],
)
async def test_what_no_drill_can_do_is_refused_with_what_is_possible(
    topology: Topology,
    world: tuple[Observed, ShardMap],
    asked: dict[str, Any],
    problem: type[Exception],
) -> None:
    with pytest.raises(problem):
        drills.plan(topology, *world, **asked)


def test_phases_spread_over_the_second_before_the_fault() -> None:
    phases = [drills.phase(1, run) for run in range(100)]
    assert all(0 <= phase < drills.PHASE_SECONDS for phase in phases)
    assert max(phases) - min(phases) > 0.8


async def test_a_kill_during_moves_falls_on_every_part_in_both_directions(
    topology: Topology, world: tuple[Observed, ShardMap]
) -> None:
    victims: set[tuple[str, str | None]] = set()
    for seed in range(200):
        plan = drills.plan(topology, *world, drill="reshard", seed=seed)
        (kill,) = [step for step in plan.steps if step.name == "kill-during-move"]
        victims.add((kill.args["name"], kill.args["database"]))
        assert (kill.args["database"] is None) is (kill.args["instance"] is not None)
    parts = ("s1", "s2", "s3", "s4", None)
    assert victims == {(way, part) for way in ("grow", "shrink") for part in parts}


async def test_a_corruption_hits_the_shards_in_turn_and_other_rows_each_time(
    topology: Topology, world: tuple[Observed, ShardMap]
) -> None:
    plan = drills.plan(topology, *world, drill="data-corruption", repeat=3)
    assert targets(plan) == ["s1", "s2", "s1"]
    seeds = [s.args["fault"]["seed"] for s in plan.steps if s.name == "inject-fault"]
    assert len(set(seeds)) == 3
    damages = [step for step in plan.steps if step.name == "plant-damages"]
    assert len(damages) == 1


async def test_a_drill_has_its_own_limits_before_those_of_its_row(topology: Topology) -> None:
    def limits(name: str) -> dict[str, float]:
        spec = drills.find(name)
        found = objectives.of(topology, spec.scenario, spec.limits)
        return {each.name: each.limit_seconds for each in found}

    assert limits("reshard") == {"pause": 0.1}
    assert limits("backup-restore") == {"rto": 86400, "rpo": 1.0}
    assert limits("data-corruption") == {"rto": 86400, "rpo": 86400}
