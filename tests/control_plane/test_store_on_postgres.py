"""The control plane's records on a PostgreSQL server, which REGIONCTL_DATABASE_URL may name."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from control_plane import retention
from control_plane.audit import Audit
from control_plane.levels import Tally
from control_plane.minutes import Minutes
from control_plane.operations import Superseded, run
from control_plane.steps import HANDLERS
from control_plane.store import open_store
from infra.memory import MemoryProvider
from infra.topology_policies import HistoryPolicy
from runtime.clock import FakeClock
from runtime.errors import Refused
from runtime.shardmap import ShardMap
from tests.control_plane.platform import Platform
from tests.control_plane.toys import TOPOLOGY, world_of
from tests.runtime.servers import PASSWORD, SUPERUSER, Postgres

pytestmark = pytest.mark.process


@pytest.fixture
def url() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="regionctl-store-"))
    folder.chmod(0o711)
    server = Postgres(folder, "records")
    try:
        server.initialise()
        server.start()
        yield f"postgresql+asyncpg://{SUPERUSER}:{PASSWORD}@127.0.0.1:{server.port}/postgres"
    finally:
        server.stop()
        shutil.rmtree(folder)


async def test_operations_maps_and_claims_are_kept_on_postgresql_as_in_sqlite(url: str) -> None:
    clock = FakeClock()
    one, other = await open_store(url, clock), await open_store(url, clock)
    try:
        platform = Platform(MemoryProvider(TOPOLOGY, clock), one, clock)
        plan = await platform.plan("provision")
        operation = await one.create_operation(plan, "test", "key", "pytest")
        with pytest.raises(Refused, match=operation.id):
            await other.create_operation(plan, "test", "another key", "pytest")
        make = world_of(one, clock, platform.provider, TOPOLOGY)
        late, claim = await one.claim(operation.id, "late"), await one.claim(operation.id, "new")
        assert late
        assert claim
        ended = await run(one, claim, HANDLERS, make)
        assert (ended.state, ended.problem) == ("succeeded", None)
        with pytest.raises(Superseded):
            await one.record_success(late, 0, None)
        assert await other.operation(operation.id) == ended
        assert (await platform.plan("provision")).steps == ()

        def grows(shard_map: ShardMap) -> ShardMap:
            shard = shard_map.shards["s1"]
            return shard_map.with_sync("s1", (*shard.sync, f"n{len(shard.sync)}"))

        before = await platform.map()
        stores = (one, other) * 5
        await asyncio.gather(*(store.update_map(grows, "grows") for store in stores))
        assert (await platform.map()).version == before.version + len(stores)
        numbers = [event.sequence for event in await other.events()]
        assert numbers == sorted(set(numbers))

        minutes = Minutes(one.database)
        for tally in (Tally(10, 1, 10, 2.5, 1, 1), Tally(5, 0, 5, 0.0, 1, 0)):
            await minutes.keep(int(clock.now().timestamp()) // 60, tally)
        assert (await minutes.period(clock.now()))[1] == Tally(15, 1, 15, 2.5, 2, 1)

        verdict = await Audit(other.database).verify()
        assert (verdict.entries, verdict.broken) == (2, None)
        for statement in ("UPDATE audit SET actor = ''", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(SQLAlchemyError, match="append-only"):
                async with one.database.write() as connection:
                    await connection.execute(text(statement))

        clock.advance(86_400.0)
        await one.save_report({"operation": operation.id, "drill": "x", "verdict": "void"})
        clock.advance(2 * 86_400.0)
        everything = HistoryPolicy(operation_days=1, event_days=1, keep_last=0)
        gone = await retention.forget(one.database, everything, clock.now())
        assert (gone.operations, gone.reports) == (1, 0)
        assert gone.events == len(numbers) + 1
        assert await Audit(other.database).verify() == verdict
    finally:
        await one.database.close()
        await other.database.close()
