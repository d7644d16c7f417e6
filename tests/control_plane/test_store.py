"""What the control plane remembers: maps, failovers, reports, events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from control_plane.access import Asked
from control_plane.audit import Audit
from control_plane.database import connect
from control_plane.records import schema
from control_plane.steps.provision import first_map
from control_plane.store import Store, open_store
from infra.memory import MemoryProvider
from runtime.clock import FakeClock
from runtime.errors import NotFound, Refused
from runtime.shardmap import ShardMap
from tests.control_plane.toys import TOPOLOGY, new_store

FIRST = first_map(TOPOLOGY, MemoryProvider(TOPOLOGY).endpoint)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path) as opened:
        yield opened


async def test_the_newest_map_is_the_map(store: Store) -> None:
    assert await store.shard_map() is None
    await store.save_map(FIRST, "first")
    moved = FIRST.with_sync("s1", ("s1.us-east-1b",))
    await store.save_map(moved, "in sync")
    assert await store.shard_map() == moved


async def test_saving_the_newest_map_again_changes_nothing(store: Store) -> None:
    await store.save_map(FIRST, "first")
    assert await store.save_map(FIRST, "again") == FIRST


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
async def test_a_map_version_is_never_lowered_nor_written_twice(versions: list[int]) -> None:
    store = await open_store("sqlite+aiosqlite://", FakeClock(), durable=False)
    try:
        newest = 0
        for number, version in enumerate(versions):
            map = replace(FIRST.with_sync("s1", (f"n{number}",)), version=version)
            if version > newest:
                await store.save_map(map, "grows")
                newest = version
            else:
                with pytest.raises(Refused, match="old map"):
                    await store.save_map(map, "late")
            found = await store.shard_map()
            assert found is not None
            assert found.version == newest
    finally:
        await store.database.close()


async def test_changes_of_the_map_made_at_the_same_time_are_all_kept(store: Store) -> None:
    await store.save_map(FIRST, "first")

    def sync(name: str) -> ShardMap:
        return FIRST.with_sync(name, (name,))

    await asyncio.gather(
        *(
            store.update_map(lambda map, name=name: map.with_sync(name, (name,)), name)  # type: ignore[misc]
            for name in FIRST.shards
        )
    )
    found = await store.shard_map()
    assert found is not None
    assert found.version == FIRST.version + len(FIRST.shards)
    assert {name: shard.sync for name, shard in found.shards.items()} == {
        name: sync(name).shards[name].sync for name in FIRST.shards
    }


async def test_a_failover_is_recorded_once_and_acknowledged_by_an_operator(store: Store) -> None:
    for _ in range(2):
        await store.record_failover("s1", "failover", "op-1")
    [found] = await store.failovers("s1")
    assert (found["operation"], found["acknowledged"]) == ("op-1", False)
    assert await store.acknowledge("s1", "seen") == 1
    assert await store.acknowledge("s1", "seen") == 0
    assert (await store.failovers())[0]["acknowledged"]
    assert await store.failovers("s2") == []


async def test_reports_are_listed_newest_first_and_replaced_by_operation(store: Store) -> None:
    await store.save_report({"operation": "op-1", "verdict": "void"})
    store.clock.advance(1)  # type: ignore[attr-defined]
    await store.save_report({"operation": "op-2", "verdict": "passed"})
    await store.save_report({"operation": "op-2", "verdict": "failed"})
    assert [each["operation"] for each in await store.reports()] == ["op-2", "op-1"]
    assert (await store.report("op-2"))["verdict"] == "failed"
    with pytest.raises(NotFound):
        await store.report("op-3")


async def test_events_are_numbered_in_order_and_read_from_any_point(store: Store) -> None:
    for number in range(5):
        await store.append_event("tick", {"number": number}, "op-1" if number % 2 else None)
    all_events = await store.events()
    assert [event.data["number"] for event in all_events] == [0, 1, 2, 3, 4]
    after = all_events[1].sequence
    assert [event.data["number"] for event in await store.events(after=after)] == [2, 3, 4]
    mine = await store.events(operation_id="op-1")
    assert [event.data["number"] for event in mine] == [1, 3]
    assert [event.data["number"] for event in await store.past_events(limit=2)] == [3, 4]


async def test_a_writer_cancelled_in_the_middle_of_a_statement_leaves_the_file_unlocked(
    tmp_path: Path,
) -> None:
    async with new_store(tmp_path) as store:
        loop = asyncio.get_running_loop()

        async def write() -> None:
            async with store.database.write() as connection:
                sqlite = (await connection.get_raw_connection()).driver_connection
                assert sqlite is not None

                def interrupt() -> int:
                    loop.call_soon_threadsafe(writer.cancel)
                    return 0

                await sqlite.create_function("interrupt", 0, interrupt)
                await connection.execute(text("SELECT interrupt() UNION ALL SELECT 1"))

        writer = asyncio.create_task(write())
        # The traceback keeps the cursor, as the one of a failed operation does.
        (interrupted,) = await asyncio.gather(writer, return_exceptions=True)
        assert isinstance(interrupted, asyncio.CancelledError)
        async with asyncio.timeout(4):  # less than SQLite waits for a lock
            await store.save_map(FIRST, "next")


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with new_store(tmp_path) as store:
        await store.save_map(FIRST, "first")
    async with new_store(tmp_path) as store:
        assert await store.shard_map() == FIRST


async def test_a_database_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'control.db'}"
    database = connect(url, durable=False)
    await database.prepare()
    async with database.write() as connection:
        await connection.execute(schema.update().values(version=99))
    with pytest.raises(Refused, match="99"):
        await database.prepare()
    await database.close()


async def test_records_of_the_version_before_are_taken_over(tmp_path: Path) -> None:
    """Version 1 had neither tokens nor an audit log."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'control.db'}"
    async with new_store(tmp_path) as store:
        await store.save_map(FIRST, "first")
        async with store.database.write() as connection:
            for table in ("audit", "token"):
                await connection.execute(text(f"DROP TABLE {table}"))
            await connection.execute(schema.update().values(version=1))
    store = await open_store(url, FakeClock(), durable=False)
    try:
        assert await store.shard_map() == FIRST
        await store.refuse(Asked("ada", "viewer", "failover"), "no")
        assert (await Audit(store.database).verify()).entries == 1
    finally:
        await store.database.close()


async def test_nobody_else_reads_the_records(tmp_path: Path) -> None:
    async with new_store(tmp_path) as store:
        await store.save_map(FIRST, "first")
        files = [tmp_path / f"control.db{more}" for more in ("", "-wal", "-shm")]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
