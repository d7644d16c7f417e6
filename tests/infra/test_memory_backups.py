"""The backups of the world in memory keep what `infra.backups` promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from infra.backups import Backups, Target
from infra.memory import MemoryProvider
from infra.memory_backups import MemoryBackups
from runtime.clock import FakeClock
from runtime.errors import NotFound, OperationFailed, Refused, Unavailable
from tests.infra.platform import PRIMARY, first_map, provision, small_topology


class Platform:
    """One shard with its catalog, and its backups."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.world = MemoryProvider(small_topology(("orders",)), self.clock)
        self.backups = MemoryBackups(self.world)
        asyncio.run(self._provision())
        self.map = first_map(self.world)

    async def _provision(self) -> None:
        await provision(self.world)
        await self.world.create_primary("catalog.us-east-1a")
        await self.world.open_route("us-east-1")

    def write(self, *ids: str) -> None:
        """One write a second."""
        for id in ids:
            self.clock.advance(1)
            assert self.world.write("s1", id)
            self.backups.receive()

    def create(self, kind: str = "full") -> str:
        made = asyncio.run(self.backups.create("s1", kind, self.map))  # type: ignore[arg-type]
        return made.id

    def restore(self, id: str, target: Target) -> list[str]:
        asyncio.run(self.backups.restore_aside(id, "s1", target))
        return list(self.backups.servers[id][1])


@pytest.fixture
def made() -> Platform:
    return Platform()


def test_they_are_the_protocol(made: Platform) -> None:
    backups: Backups = made.backups
    assert asyncio.run(backups.list()) == []


def test_everything_archived_is_restored_after_the_whole_shard_is_gone(made: Platform) -> None:
    made.write("a")
    made.create()
    made.write("b", "c")
    made.world.nodes.clear()
    assert made.restore("r1", Target()) == ["a", "b", "c"]


def test_a_target_is_reached_by_time_position_and_point(made: Platform) -> None:
    made.create()
    made.write("a", "b")
    then = made.clock.now()
    point = asyncio.run(made.backups.mark_point("before", made.map))
    made.write("c")
    assert made.restore("r1", Target(time=then)) == ["a", "b"]
    assert made.restore("r2", Target(lsn=point.lsns["s1"])) == ["a", "b"]
    assert made.restore("r3", Target(name="before")) == ["a", "b"]


def test_what_the_archive_cannot_reach_is_refused(made: Platform) -> None:
    check = made.backups.check_target
    with pytest.raises(Refused):
        asyncio.run(check("s1", Target()))
    made.write("a", "b")
    before = made.clock.now() - timedelta(seconds=1)
    made.create()
    for target in (Target(time=before), Target(time=made.clock.now() + timedelta(1))):
        with pytest.raises(Refused, match="reaches from"):
            asyncio.run(check("s1", target))
    with pytest.raises(NotFound):
        asyncio.run(check("s1", Target(name="never")))
    with pytest.raises(NotFound):
        asyncio.run(check("s1", Target(), "s1-unknown"))
    made.backups.gaps["s1"] = "the spool was full"
    with pytest.raises(Refused, match="hole"):
        asyncio.run(check("s1", Target()))


def test_damage_is_found_before_anything_is_restored(made: Platform) -> None:
    id = made.create()
    made.write("a")
    made.backups.damaged[id] = "SHA-256 differs"
    assert asyncio.run(made.backups.verify(id))["problems"] == [f"{id}: SHA-256 differs"]
    with pytest.raises(OperationFailed, match=id):
        made.restore("r1", Target())


def test_pruning_keeps_chains_whole(made: Platform) -> None:
    chains = [[made.create("full"), made.create("incremental")] for _ in range(3)]
    assert asyncio.run(made.backups.prune(2)) == chains[0]
    assert [each.id for each in asyncio.run(made.backups.list())] == chains[1] + chains[2]


def test_a_node_gets_the_restored_rows_on_a_timeline_of_its_own_and_only_once(
    made: Platform,
) -> None:
    made.create()
    made.write("a", "bad")
    target = Target(lsn=1000)
    with pytest.raises(Refused):
        asyncio.run(made.backups.restore_into(PRIMARY, "s1", target))
    asyncio.run(made.world.stop_database(PRIMARY))
    answer = asyncio.run(made.backups.restore_into(PRIMARY, "s1", target))
    assert made.world.nodes[PRIMARY].wal == ["a"]
    assert answer["timeline"] == 2
    assert asyncio.run(made.backups.restore_into(PRIMARY, "s1", target)) == answer


def test_without_object_storage_nothing_is_pretended(made: Platform) -> None:
    made.backups.store_answers = False
    with pytest.raises(Unavailable):
        asyncio.run(made.backups.list())
    assert asyncio.run(made.backups.archives())[0].uploaded is None


def test_a_backup_of_a_timeline_that_was_left_earlier_reaches_nothing_newer(
    made: Platform,
) -> None:
    made.write("a", "b")
    made.create()
    node = made.world.nodes[PRIMARY]
    made.world.nodes[PRIMARY] = replace(node, wal=["a"], timeline=2)
    made.backups.receive()
    with pytest.raises(Refused):
        asyncio.run(made.backups.check_target("s1", Target()))
