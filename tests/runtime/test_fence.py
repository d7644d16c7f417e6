"""The fence of a shard: each row is written under the guard of its own slot, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from runtime import checks
from runtime.batches import guard_owned
from runtime.served import owned, served
from runtime.shardmap import slot_of
from tests.runtime.conftest import Platform

pytestmark = pytest.mark.process

ADA, BOB = 1, 42
INSERT = (
    "INSERT INTO outbox (user_id, event_id, kind, payload, created_at) "
    "SELECT user_id, $2, 'x', '{}', now() FROM unnest($1::bigint[]) AS u(user_id)"
)
GUARD = "SELECT regionctl.guard($1, 1)"


@pytest.fixture
async def orders(platform: Platform) -> AsyncIterator[checks.Database]:
    connection = await asyncpg.connect(**platform.s1.dsn("orders"))
    yield connection
    await connection.close()


async def refusal(connection: checks.Database, statement: str, *arguments: object) -> str | None:
    try:
        await connection.execute(statement, *arguments)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return None


async def test_the_guard_of_one_slot_lets_nobody_write_a_row_of_another(
    orders: checks.Database,
) -> None:
    transaction = orders.transaction()
    await transaction.start()
    await orders.execute(GUARD, slot_of(ADA))
    await orders.execute(INSERT, [ADA], 1)
    assert await refusal(orders, INSERT, [ADA, BOB], 2) == "RG003"
    await transaction.rollback()
    async with orders.transaction():
        await orders.execute(GUARD, slot_of(ADA))
        await orders.execute(GUARD, slot_of(BOB))
        await orders.execute(INSERT, [ADA, BOB], 3)
    # The guards ended with their transaction.
    assert await refusal(orders, "UPDATE outbox SET relayed_at = now()") == "RG003"
    assert await orders.fetchval("SELECT count(*) FROM outbox") == 2


async def test_a_guard_ends_with_its_savepoint(orders: checks.Database) -> None:
    async with orders.transaction():
        savepoint = orders.transaction()
        await savepoint.start()
        await orders.execute(GUARD, slot_of(ADA))
        await savepoint.rollback()
        inner = orders.transaction()
        await inner.start()
        assert await refusal(orders, INSERT, [ADA], 1) == "RG003"
        await inner.rollback()


async def test_nobody_gives_a_row_to_another_user(
    orders: checks.Database, shard_db: checks.Database
) -> None:
    async with orders.transaction():
        await orders.execute(GUARD, slot_of(ADA))
        await orders.execute(INSERT, [ADA], 1)
    assert await refusal(shard_db, "UPDATE outbox SET user_id = $1", BOB) == "RG005"
    assert await refusal(shard_db, "UPDATE outbox SET user_id = $1", ADA) is None
    # What replication applies is not asked.
    await shard_db.execute("SET session_replication_role = replica")
    assert await refusal(shard_db, "UPDATE outbox SET user_id = $1", BOB) is None


async def test_of_many_slots_those_that_are_owned_are_guarded_and_no_other_is_locked(
    platform: Platform, orders: checks.Database, shard_db: checks.Database
) -> None:
    await shard_db.execute(
        "UPDATE regionctl.slot_owner SET state = 'fencing' WHERE slot = $1", slot_of(BOB)
    )
    async with orders.transaction():
        slots = [slot_of(BOB), slot_of(ADA), slot_of(ADA)]
        mine = await guard_owned(orders, platform.shard_map, "s1", slots)
        assert mine == {slot_of(ADA)}
        assert await guard_owned(orders, platform.shard_map, "s2", slots) == set()
        locked = await shard_db.fetch(
            "SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND classid = 7411"
        )
        assert [row[0] for row in locked] == [slot_of(ADA)]
        await orders.execute(INSERT, [ADA], 1)
        assert await refusal(orders, INSERT, [BOB], 1) == "RG003"


@pytest.mark.parametrize(
    ("state", "seen", "written"),
    [
        ("owned", True, True),
        ("fencing", True, False),
        ("moved", False, False),
        ("absent", False, False),
    ],
)
async def test_a_shard_shows_the_rows_of_slots_that_it_owns(
    orders: checks.Database, shard_db: checks.Database, state: str, seen: bool, written: bool
) -> None:
    await shard_db.execute(INSERT, [ADA, BOB], 1)
    await shard_db.execute(
        "UPDATE regionctl.slot_owner SET state = $2 WHERE slot = $1", slot_of(BOB), state
    )
    for condition, expected in ((served(), seen), (owned(), written)):
        rows = await orders.fetch(f"SELECT user_id FROM outbox WHERE {condition}")
        assert {row[0] for row in rows} == ({ADA, BOB} if expected else {ADA})
