"""Backups and restores in memory: what comes back, what is given up, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control_plane import status
from control_plane.api_backups import archive_json
from control_plane.keeper import EVERY_SECONDS, Keeper
from control_plane.operations import conflicts
from control_plane.plan import Plan
from control_plane.plans.restore import target_of
from infra.backups import Archive, Target
from infra.provider import Fault
from runtime.errors import Invalid, NotFound, OperationFailed, Refused
from runtime.shardmap import Move
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import (
    GROW,
    backed_up,
    backed_up_twice,
    database_deleted,
    provisioned,
    restored_aside,
    settled,
)

IN_PLACE = {"database": "s1", "to": "in-place"}
TWO_WRITES = "0/7D0"  # 2000 bytes: the first write of `backed_up` and one of the later ones


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (None, Target()),
        ("0/1A2B3C", Target(lsn=0x1A2B3C)),
        ("2/0", Target(lsn=2 << 32)),
        ("2026-01-31T04:15:00Z", Target(time=datetime(2026, 1, 31, 4, 15, tzinfo=UTC))),
        ("2026-01-31 05:15+01:00", Target(time=datetime(2026, 1, 31, 4, 15, tzinfo=UTC))),
        ("2026-01-31T04:15", Target(time=datetime(2026, 1, 31, 4, 15, tzinfo=UTC))),
        ("before-release-7", Target(name="before-release-7")),
        ("20260131", Target(name="20260131")),
    ],
)
def test_a_target_is_a_time_a_position_or_a_restore_point(text: str, target: Target) -> None:
    assert target_of(text) == target


def test_a_time_that_is_none_is_no_restore_point_either() -> None:
    with pytest.raises(Invalid, match="is no time"):
        target_of("2026-02-30T00:00:00Z")


async def test_a_restore_in_place_gives_up_what_came_later_and_lists_it() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        before = (await platform.map()).shards["s1"]
        plan = await platform.run("restore", **IN_PLACE, at=TWO_WRITES)
        after = (await platform.map()).shards["s1"]
        assert plan.expected["lossBytes"] == 2000
        assert after.primary.instance == plan.expected["primary"] != before.primary.instance
        assert after.epoch > before.epoch
        assert platform.provider.nodes[after.primary.instance].wal == ["s1-first", "later 0"]
        saved = platform.provider.salvaged[before.primary.instance]
        assert saved.orders == ("later 1", "later 2")
        primaries = [
            node.id
            for node in platform.topology.database_nodes("s1")
            if platform.provider.nodes[node.id].primary
        ]
        assert primaries == [after.primary.instance]
        assert after.sync == (before.primary.instance,)


async def test_who_still_has_the_old_map_can_write_nowhere_after_a_restore_in_place() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        old = (await platform.map()).shards["s1"]
        await platform.run("restore", **IN_PLACE, at=TWO_WRITES)
        for node in platform.topology.database_nodes("s1"):
            assert not platform.provider.write_to(node.id, "stale", epoch=old.epoch)
        assert platform.provider.write("s1", "goes on")


async def test_a_database_whose_nodes_are_all_gone_comes_back_with_everything() -> None:
    async with Platform.open() as platform:
        await database_deleted(platform)
        await platform.run("restore", **IN_PLACE)
        assert platform.provider.lost() == []
        assert platform.provider.write("s1", "goes on")
        observed = await platform.provider.observe()
        assert status.health(platform.topology, observed, await platform.map()) == "healthy"


async def test_a_frozen_node_is_ended_before_the_data_comes() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        await platform.provider.backups.archives()
        await platform.provider.inject(Fault("freeze", "s1.us-east-1a"))
        plan = await platform.run("restore", **IN_PLACE)
        assert {"fence-instance"} <= {step.name for step in plan.steps}
        assert platform.provider.lost() == []


async def test_a_restore_aside_touches_nothing_that_customers_see() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        before = await platform.provider.observe()
        await platform.run("restore", database="s1", to="new", server="sandbox", at=TWO_WRITES)
        assert await platform.provider.observe() == before
        assert platform.provider.backups.servers["sandbox"][1] == ["s1-first", "later 0"]


async def test_a_shard_that_was_given_up_is_restored_aside_until_its_name_is_used_again() -> None:
    async with Platform.open() as platform:
        await settled(platform)
        await platform.run("backup", database="s3", kind="full")
        await platform.run("reshard", **{**GROW, "to": 2})
        await platform.run("reshard-finish", early=True)
        await platform.run("restore", database="s3", to="new", server="former")
        assert platform.provider.backups.servers["former"][0].database == "s3"
        with pytest.raises(NotFound):
            await platform.plan("restore", database="s3", to="in-place")
        await platform.run("reshard", **GROW)
        with pytest.raises(Refused, match="has no backup"):
            await platform.run("restore", database="s3", to="new")


@pytest.mark.parametrize("to", ["new", "in-place"])
async def test_a_backup_that_is_named_is_the_one_that_is_restored(to: str) -> None:
    async with Platform.open() as platform:
        await backed_up_twice(platform)
        backups = platform.provider.backups
        newest = [each.id for each in backups.backups.values() if each.database == "s1"][-1]
        backups.damaged[newest] = "a byte was flipped"
        with pytest.raises(OperationFailed, match="a byte was flipped"):
            await platform.run("restore", database="s1", to="new")
        await platform.run("restore", database="s1", to=to, id="s1-first")
        assert platform.provider.lost() == []


async def test_a_discarded_server_is_gone() -> None:
    async with Platform.open() as platform:
        await restored_aside(platform)
        await platform.run("restore-discard", id="sandbox")
        with pytest.raises(NotFound):
            await platform.provider.backups.restored("sandbox")


async def test_slots_on_the_move_refuse_a_restore_in_place_but_not_one_aside() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        move = Move(7, "s1", "s2", 0, 31, soak_until="2026-01-01T00:10:00+00:00")
        await platform.store.update_map(lambda known: known.with_move(move), "test")
        with pytest.raises(Refused, match="being moved"):
            await platform.plan("restore", **IN_PLACE)
        await platform.run("restore", database="s1", to="new")
        await platform.store.update_map(lambda known: known.without_move(7), "test")
        with pytest.raises(Refused, match="moved since the backup"):
            await platform.run("restore", **IN_PLACE)
        await platform.run("backup", database="s1")
        await platform.run("restore", **IN_PLACE)


async def test_what_the_archive_cannot_prove_is_refused_before_anything_changes() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        before = await platform.provider.observe()
        for at in ("0/0", "0/FFFF", "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"):
            with pytest.raises(Refused, match="cannot be restored"):
                await platform.run("restore", **IN_PLACE, at=at)
        with pytest.raises(NotFound):
            await platform.run("restore", **IN_PLACE, at="no-such-point")
        assert await platform.provider.observe() == before


async def test_an_archive_that_stays_behind_refuses_and_the_old_primary_runs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        seen = await platform.provider.backups.archives()

        async def stuck() -> Sequence[Archive]:
            return [replace(each, received=0) for each in seen]

        monkeypatch.setattr(platform.provider.backups, "archives", stuck)
        with pytest.raises(Refused, match="has not received everything"):
            await platform.run("restore", **IN_PLACE, at=TWO_WRITES)
        assert platform.provider.write("s1", "goes on")
        with pytest.raises(Refused, match="reason"):
            await platform.plan("restore", **IN_PLACE, accept_data_loss=True)
        anyway = {**IN_PLACE, "at": TWO_WRITES, "accept_data_loss": True, "reason": "test"}
        plan = await platform.plan("restore", **anyway)
        assert "await-archived" not in [step.name for step in plan.steps]


async def test_a_primary_out_of_reach_refuses_a_restore_in_place() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        platform.provider.unreachable.add("us-east-1")
        with pytest.raises(Refused, match="cannot be reached"):
            await platform.plan("restore", **IN_PLACE)


async def held(platform: Platform, verb: str, **asked: object) -> Plan:
    """An operation that has its locks and never ends."""
    plan = await platform.plan(verb, **asked)
    await platform.store.create_operation(plan, "test", None, "pytest")
    return plan


async def refused(platform: Platform, verb: str, **asked: object) -> bool:
    try:
        await held(platform, verb, **asked)
    except Refused:
        return True
    return False


async def test_a_running_backup_refuses_another_of_its_database_and_pruning_and_nothing_else() -> (
    None
):
    async with Platform.open() as platform:
        await backed_up(platform)
        await held(platform, "backup", database="s1")
        assert await refused(platform, "backup", database="s1")
        assert await refused(platform, "backup")
        assert await refused(platform, "prune")
        assert not await refused(platform, "backup", database="s2")
        assert not await refused(platform, "restore", database="s1", to="new")
        assert not await refused(platform, "switchover", to="us-west-2")


async def test_of_a_shard_that_ended_before_its_turn_no_backup_is_taken() -> None:
    async with Platform.open() as platform:
        await settled(platform)
        plan = await platform.plan("backup", database="all", kind="full")
        assert "s3" in {step.args["database"] for step in plan.steps}
        await platform.run("reshard", **{**GROW, "to": 2})
        await platform.run("reshard-finish", early=True)
        await platform.carry_out(plan)
        assert {each.database for each in await platform.provider.backups.list()} == {
            *("s1", "s2", "catalog")
        }


async def test_a_failover_refuses_a_restore_in_place_of_its_database() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
        await held(platform, "failover", target="s1")
        assert await refused(platform, "restore", **IN_PLACE)
        assert not await refused(platform, "restore", database="s1", to="new")


async def test_a_restore_in_place_keeps_resharding_out_and_a_restore_point_does_not() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        await held(platform, "restore-point", name="before-release-7")
        assert await refused(platform, "restore-point", name="another")
        asked = await platform.plan("reshard", to=4)
        assert not conflicts(asked.locks, (await platform.plan("restore-point", name="x")).locks)
        assert conflicts(asked.locks, (await platform.plan("restore", **IN_PLACE)).locks)
        aside = await platform.plan("restore", database="s1", to="new")
        assert not conflicts(asked.locks, aside.locks)
        for name in ("0/1A", "2026-01-31T00:00", "../x", ""):
            with pytest.raises(Invalid):
                await platform.plan("restore-point", name=name)


async def test_a_damaged_backup_fails_its_verification_by_name() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        platform.provider.backups.damaged["s1/wal"] = "checksum"
        with pytest.raises(OperationFailed, match="s1/wal: checksum"):
            await platform.run("backup-verify", id="s1-first")


async def test_an_archive_with_a_hole_or_at_rest_degrades_the_platform() -> None:
    async with Platform.open() as platform:
        await provisioned(platform)
        found = [archive_json(each) for each in await platform.provider.backups.archives()]

        async def state(archives: list[dict[str, object]] | None, *, settling: bool = False) -> str:
            document = status.document(
                platform.topology,
                await platform.provider.observe(),
                await platform.map(),
                entry_url="",
                pid=1,
                address="",
                archives=archives,
                settling=settling,
            )
            return str(document["state"])

        assert await state(found) == "healthy"
        resting = [*found[1:], {**found[0], "running": False}]
        assert await state(resting) == "degraded"
        assert await state(resting, settling=True) == "healthy"
        assert await state([*found[1:], {**found[0], "gap": "spool full"}]) == "degraded"
        assert await state([*found[1:], {**found[0], "alarm": True}]) == "degraded"
        assert await state(None) == "degraded"


async def test_the_keeper_makes_the_first_backups_one_after_the_other_and_then_rests() -> None:
    async with Platform.open() as platform:
        await provisioned(platform)
        keeper = Keeper(platform.provider, platform.store, platform.clock)
        made: list[tuple[str, float]] = []
        began = platform.clock.monotonic()
        for _ in range(60):
            await keeper.look()
            for operation in await platform.store.operations(states=["pending"]):
                made.append((operation.target, platform.clock.monotonic() - began))
                claim = await platform.store.claim(operation.id, "test")
                assert claim is not None
                await platform.carry_out(operation.plan)
                for step in operation.steps:
                    await platform.store.record_success(claim, step.number, {})
            platform.clock.advance(EVERY_SECONDS)
        assert [target for target, _ in made] == ["s1", "s2", "catalog"]
        assert made[0][1] >= 60
        assert len(platform.provider.backups.backups) == 3


async def test_nothing_is_backed_up_before_every_primary_runs() -> None:
    async with Platform.open() as platform:
        await provisioned(platform)
        await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
        keeper = Keeper(platform.provider, platform.store, platform.clock)
        for _ in range(10):
            await keeper.look()
            platform.clock.advance(EVERY_SECONDS)
        assert await platform.store.operations(kinds=["backup"]) == []
