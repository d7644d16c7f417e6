"""What the databases themselves refuse, and what of an old primary is saved from them."""

from __future__ import annotations

import asyncpg
import pytest

from runtime import checks, directory
from runtime.shardmap import slot_of
from tests.runtime.conftest import Platform
from tests.runtime.customers import new_user, place, register, sign_in

pytestmark = pytest.mark.process


async def test_the_fence_refuses_what_it_should(
    platform: Platform, shard_db: checks.Database
) -> None:
    orders: checks.Database = await asyncpg.connect(**platform.s1.dsn("orders"))
    insert = (
        "INSERT INTO outbox (user_id, event_id, kind, payload, created_at) "
        "VALUES (1, 1, 'x', '{}', now())"
    )
    try:
        for slot, epoch in ((5, 2), (5, 0), (9999, 1)):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await orders.execute("SELECT regionctl.guard($1, $2)", slot, epoch)
            assert refused.value.sqlstate == "RG001"
        with pytest.raises(asyncpg.PostgresError) as unguarded:
            await orders.execute(insert)
        assert unguarded.value.sqlstate == "RG003"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await orders.execute("UPDATE regionctl.slot_owner SET epoch = 9")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await orders.execute("DELETE FROM orders")
        async with orders.transaction():
            await orders.execute("SELECT regionctl.guard($1, 1)", slot_of(1))
            await orders.execute(insert)
    finally:
        await orders.close()


async def test_what_only_the_old_primary_has_is_exported_with_its_lines(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        order = (await place(orders, user, "k")).json()
    assert await checks.orphan_rows(shard_db, shard_db) == []
    assert await checks.orphan_rows(catalog_db, catalog_db) == []
    empty: checks.Database = await asyncpg.connect(**platform.s1.dsn())
    await empty.execute(
        "CREATE TEMP TABLE users (LIKE public.users);"
        "CREATE TEMP TABLE orders (LIKE public.orders);"
        "CREATE TEMP TABLE outbox (LIKE public.outbox)"
    )
    rows = await checks.orphan_rows(shard_db, empty)
    await empty.close()
    assert [row["table"] for row in rows] == ["users", "orders", "outbox"]
    assert str(rows[1]["row"]["id"]) == order["id"]
    assert rows[1]["items"][0]["sku"] == "MUG-ONCALL"
    # Rows of a slot that another shard has by now are not lost with this one.
    await shard_db.execute("UPDATE regionctl.slot_owner SET state = 'moved'")
    empty = await asyncpg.connect(**platform.s1.dsn())
    await empty.execute("CREATE TEMP TABLE users (LIKE public.users)")
    assert await checks.orphan_rows(shard_db, empty) == []
    await empty.close()


async def test_the_directory_follows_the_shards_when_either_lost_rows(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    kept, lost = await register(platform, "kept@x.org"), await register(platform, "lost@x.org")
    await catalog_db.execute(
        "INSERT INTO emails (email, user_id, idempotency_key, request_hash, state) "
        "VALUES ('flying@x.org', 7, 'flying', '', 'reserved')"
    )
    before = await catalog_db.fetchrow("SELECT * FROM emails WHERE email = 'kept@x.org'")
    await catalog_db.execute("DELETE FROM emails WHERE email = 'kept@x.org'")
    await shard_db.execute("DELETE FROM users WHERE email = 'lost@x.org'")
    broken = (await checks.invariants({"s1": shard_db}, catalog_db))[-1]
    assert broken["name"] == "directory-complete"
    assert not broken["held"]
    assert kept in broken["detail"]
    assert lost in broken["detail"]
    assert await directory.restore({"s1": shard_db}, catalog_db) == 2
    assert await directory.restore({"s1": shard_db}, catalog_db) == 0
    assert (await checks.invariants({"s1": shard_db}, catalog_db))[-1]["held"]
    after = await catalog_db.fetchrow("SELECT * FROM emails WHERE email = 'kept@x.org'")
    assert before is not None
    assert after is not None
    assert {**before, "reserved_at": 0} == {**after, "reserved_at": 0}
    assert await register(platform, "kept@x.org") == kept
    async with platform.service("users") as users:
        body = new_user("lost@x.org") | {"name": "Grace"}
        again = await users.post("/api/v1/users", json=body, headers={"Idempotency-Key": "new"})
    assert again.status_code == 201
    assert (await checks.invariants({"s1": shard_db}, catalog_db))[-1]["held"]
    state = await catalog_db.fetchval("SELECT state FROM emails WHERE email = 'flying@x.org'")
    assert state == "reserved"


async def test_the_catalogs_addresses_and_stock_movements_are_exported_too(
    platform: Platform, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    await catalog_db.executemany(
        "INSERT INTO stock_movements (event_id, sku, order_id, user_id, quantity, outcome) "
        "VALUES (7, $1, 7, 1, 2, 'reserved')",
        [("MUG-ONCALL",), ("SSD-2TB",)],
    )
    empty: checks.Database = await asyncpg.connect(**platform.catalog.dsn())
    await empty.execute(
        "CREATE TEMP TABLE emails (LIKE public.emails);"
        "CREATE TEMP TABLE stock_movements (LIKE public.stock_movements)"
    )
    rows = await checks.orphan_rows(catalog_db, empty)
    await empty.close()
    assert [row["table"] for row in rows] == ["emails", "stock_movements", "stock_movements"]
    assert str(rows[0]["row"]["user_id"]) == user
    assert {row["row"]["sku"] for row in rows[1:]} == {"MUG-ONCALL", "SSD-2TB"}
