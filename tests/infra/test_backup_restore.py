"""Backups of a real database: taken while it is written to, restored to a moment, or refused."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from infra.backups import Backup, Point, Restored, Target
from infra.local.backups import base, damage, parts, program
from infra.local.backups.index import Shelves
from infra.local.backups.local import LocalBackups
from infra.local.backups.seal import Key
from infra.local.backups.store import Vault
from infra.local.provider import LocalProvider
from infra.repair import DAMAGES
from runtime.clock import SystemClock, wait_until
from runtime.errors import NotFound, Refused
from runtime.shardmap import ShardMap
from tests.infra import platform
from tests.infra.platform import PRIMARY, REMOTE, World, first_map

pytestmark = pytest.mark.process
ROWS = "SELECT count(*), coalesce(sum(hashtext(what)::bigint), 0) FROM t"


@dataclass(frozen=True)
class Moment:
    """What the table was, and when: by the server's clock and by its position."""

    at: datetime
    lsn: int
    rows: tuple[int, int]


@dataclass
class Past:
    """What happened to the database of the fixture, in this order."""

    world: World
    full: Backup
    first: Backup
    good: Moment
    second: Backup
    point: Point
    pointed: tuple[int, int]
    end: Moment

    def run(self, work: Any) -> Any:
        return self.world.run(work)


def one_shard(provider: LocalProvider) -> ShardMap:
    """The map of a platform that has no catalog."""
    whole = first_map(provider)
    return replace(whole, shards={"s1": whole.shards["s1"]})


def local(provider: LocalProvider) -> LocalBackups:
    assert isinstance(provider.backups, LocalBackups)
    return provider.backups


async def write(provider: LocalProvider, first: int, last: int) -> None:
    async with provider.monitor.session(PRIMARY) as session:
        query = "INSERT INTO t SELECT g, md5(g::text) FROM generate_series($1::int, $2::int) g"
        await session.execute(query, first, last)


async def now(provider: LocalProvider) -> Moment:
    async with provider.monitor.session(PRIMARY) as session:
        count, total = await session.fetchrow(ROWS)
        lsn = await session.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        at = await session.fetchval("SELECT clock_timestamp()")
        return Moment(at, int(lsn), (count, total))


async def archived(provider: LocalProvider, position: int) -> None:
    async def received() -> bool:
        archives = await provider.backups.archives()
        return any(a.database == "s1" and (a.received or 0) >= position for a in archives)

    await wait_until(SystemClock(), received, what="the archive", seconds=60)


async def make(provider: LocalProvider) -> dict[str, Any]:
    """A primary, its replica elsewhere, and the archiver there; then the past."""
    for region in provider.topology.regions:
        await provider.ensure_region(region.name)
    await provider.ensure_running(["link.us-west-2", "objects.us-west-2a"])
    shard_map = one_shard(provider)
    await provider.create_primary(PRIMARY)
    await provider.publish_map(shard_map)
    await provider.set_epoch(PRIMARY, shard_map, "s1")
    await provider.clone(REMOTE, PRIMARY)
    async with provider.monitor.session(PRIMARY) as session:
        await session.execute("CREATE TABLE t(id int PRIMARY KEY, what text)")
    await write(provider, 1, 5000)
    await archived(provider, 1)
    backups = provider.backups
    full = await backups.create("s1", "full", shard_map)
    await write(provider, 5001, 5100)
    first = await backups.create("s1", "incremental", shard_map)
    await write(provider, 5101, 5200)
    good = await now(provider)
    await write(provider, 5201, 5300)
    second = await backups.create("s1", "incremental", shard_map)
    await write(provider, 5301, 5400)
    pointed = (await now(provider)).rows
    point = await backups.mark_point("before-the-damage", shard_map)
    async with provider.monitor.session(PRIMARY) as session:
        await session.execute("UPDATE t SET what = 'damaged' WHERE id % 2 = 0")
    end = await now(provider)
    await write(provider, 5401, 5401)
    await archived(provider, (await now(provider)).lsn)
    made = {"full": full, "first": first, "good": good, "second": second}
    return made | {"point": point, "pointed": pointed, "end": end}


@pytest.fixture(scope="module")
def past() -> Iterator[Past]:
    with pytest.MonkeyPatch.context() as patch, platform.on_this_machine(platform.PAYING) as world:
        patch.setattr(program, "SETTLE_SECONDS", 0.0)
        yield Past(world, **world.run(make))


@asynccontextmanager
async def connected(provider: LocalProvider, restored: Restored) -> Any:
    connection = await asyncpg.connect(
        host=restored.host,
        port=restored.port,
        user=restored.user,
        database=restored.dbname,
        passfile=restored.passfile,
    )
    try:
        yield connection
    finally:
        await connection.close()


def refusal(past: Past, target: Target, id: str | None = None) -> str:
    with pytest.raises(Refused) as raised:
        past.run(lambda p: p.backups.check_target("s1", target, id))
    return raised.value.detail


def test_incremental_backups_build_on_the_one_before_and_hold_only_what_changed(past: Past) -> None:
    assert [past.full.parent, past.first.parent] == [None, past.full.id]
    assert past.second.parent == past.first.id
    assert past.second.bytes < past.full.bytes / 3
    listed = past.run(lambda p: p.backups.list())
    assert listed == [past.full, past.first, past.second]
    assert all(each.region == "us-west-2" for each in listed)


def test_a_verified_backup_has_no_problems(past: Past) -> None:
    found = past.run(lambda p: p.backups.verify(past.second.id))
    assert found["problems"] == []
    assert found["pieces"] == sum(b.pieces for b in (past.full, past.first, past.second))
    with pytest.raises(NotFound):
        past.run(lambda p: p.backups.verify("s1-20200101T000000Z-full"))


@pytest.mark.parametrize("how", ["time", "point", "lsn"])
def test_a_restored_server_has_the_rows_of_the_moment_and_cannot_be_written_to(
    past: Past, how: str
) -> None:
    target, rows = {
        "time": (Target(time=past.good.at), past.good.rows),
        "point": (Target(name=past.point.name), past.pointed),
        "lsn": (Target(lsn=past.end.lsn), past.end.rows),
    }[how]

    async def check(provider: LocalProvider) -> None:
        restored = await provider.backups.restore_aside(f"by-{how}", "s1", target)
        assert await provider.backups.restore_aside(f"by-{how}", "s1", target) == restored
        assert await provider.backups.restored(f"by-{how}") == restored
        assert set(restored.seconds) == {"download", "verify", "combine", "recover", "checksums"}
        async with connected(provider, restored) as connection:
            assert tuple(await connection.fetchrow(ROWS)) == rows
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute("DELETE FROM t")
            for name in ("primary_conninfo", "synchronous_standby_names", "archive_command"):
                assert await connection.fetchval(f"SHOW {name}") in ("", "(disabled)")
        await provider.backups.discard(f"by-{how}")
        await provider.backups.discard(f"by-{how}")
        with pytest.raises(NotFound):
            await provider.backups.restored(f"by-{how}")
        assert not (local(provider).parts.restored / f"by-{how}").exists()

    past.run(check)


def test_targets_that_the_archive_does_not_prove_are_refused_with_what_is_possible(
    past: Past,
) -> None:
    for target in (
        Target(time=past.full.began_at - timedelta(seconds=1)),
        Target(time=past.end.at + timedelta(days=1)),
        Target(lsn=past.full.start - 1),
        Target(lsn=past.end.lsn + (1 << 40)),
    ):
        assert "Possible is from " in refusal(past, target)
    assert "Possible is from " in refusal(past, Target(time=past.good.at), past.second.id)
    chosen = past.run(lambda p: p.backups.check_target("s1", Target(time=past.good.at)))
    assert chosen == past.first
    for target, id in ((Target(name="never"), None), (Target(), "s1-20200101T000000Z-full")):
        with pytest.raises(NotFound):
            past.run(lambda p, t=target, i=id: p.backups.check_target("s1", t, i))


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_kind_of_damage_is_noticed(past: Past, kind: str) -> None:
    async def check(provider: LocalProvider) -> None:
        known = local(provider).parts
        found = await damage.check(known, past.second.id, kind)
        assert found["caught"], found["how"]
        assert await known.shelves.vaults["us-west-2"].store.list("scratch/") == []

    past.run(check)


def test_another_key_opens_nothing(past: Past) -> None:
    async def check(provider: LocalProvider) -> None:
        known = local(provider).parts
        other = {
            region: Vault(vault.store, Key(b"x" * 32))
            for region, vault in known.shelves.vaults.items()
        }
        stranger = replace(known, given=Shelves(other, {}))
        with pytest.raises(Refused, match="key"):
            await stranger.shelves.index("s1")

    past.run(check)


def test_a_restore_point_is_made_once_and_names_one_position_and_the_map(past: Past) -> None:
    async def check(provider: LocalProvider) -> None:
        shard_map = one_shard(provider)
        again = await provider.backups.mark_point(past.point.name, shard_map)
        assert again == past.point
        assert ShardMap.from_json(again.map) == shard_map
        assert await provider.backups.points() == [past.point]
        async with provider.monitor.session(PRIMARY) as writer, writer.transaction():
            await writer.execute("SELECT regionctl.guard(7, 1)")
            with pytest.raises(Refused, match="rest"):
                await provider.backups.mark_point("never", shard_map)
            # Nothing holds back writers afterwards.
            await writer.execute("SELECT regionctl.guard(8, 1)")
        assert await provider.backups.points() == [past.point]

    past.run(check)


def test_only_one_backup_of_a_database_is_taken_at_a_time_and_leftovers_go(past: Past) -> None:
    async def check(provider: LocalProvider) -> None:
        known = local(provider).parts
        vault = known.shelves.vaults["us-west-2"]
        dead = "s1/s1-20200101T000000Z-full/piece-00001"
        await vault.put(dead, b"half")
        with parts.exclusive(known.scratch / "s1.lock", "s1 is being backed up"):
            with pytest.raises(Refused, match="being backed up"):
                await provider.backups.create("s1", "full", one_shard(provider))
            assert await provider.backups.prune(9) == []
            assert await vault.store.find(dead) is not None
        assert await base.prune(known, "s1", 9) == ()
        assert await vault.store.find(dead) is None
        assert not list(known.scratch.glob("s1-*"))

    past.run(check)


def test_after_the_loss_of_a_whole_shard_everything_acknowledged_is_restored_in_place(
    past: Past,
) -> None:
    """It ends the shard of this module, so it comes last."""

    async def check(provider: LocalProvider) -> None:
        with pytest.raises(Refused, match="runs"):
            await provider.backups.restore_into(PRIMARY, "s1", Target())
        await write(provider, 6001, 6050)
        before = await now(provider)
        await archived(provider, before.lsn)
        fenced = await asyncio.gather(provider.fence(PRIMARY), provider.fence(REMOTE))
        assert all(each.fenced for each in fenced)
        for instance in (PRIMARY, REMOTE):
            shutil.rmtree(provider.site.pgdata(instance))
        answer = await provider.backups.restore_into(PRIMARY, "s1", Target())
        assert await provider.backups.restore_into(PRIMARY, "s1", Target()) == answer
        view = (await provider.observe([PRIMARY])).postgres(PRIMARY)
        assert view is not None
        assert (view.role, view.timeline, view.sync_names) == ("primary", 2, ())
        assert (await now(provider)).rows == before.rows
        await write(provider, 7001, 7001)
        left = {path.name for path in provider.site.pgdata(PRIMARY).parent.iterdir()}
        assert not any(name.startswith(("replaced", "restoring.d")) for name in left)
        await archived(provider, (await now(provider)).lsn)
        await _behind_the_restore(provider)

    past.run(check)


async def _behind_the_restore(provider: LocalProvider) -> None:
    """Backups from before the restore reach what was written after it."""
    restored = await provider.backups.restore_aside("after", "s1", Target())
    async with connected(provider, restored) as connection:
        assert await connection.fetchval("SELECT count(*) FROM t WHERE id = 7001") == 1
    await provider.backups.discard("after")
