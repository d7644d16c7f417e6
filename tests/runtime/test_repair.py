"""Rows corrupted on a real shard, and brought back from what they were before.

A transaction that was opened before the corruption stands for the restored copy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from control_plane.merging import merge
from infra.local import corrupting
from infra.local.backups import copies
from runtime import checks
from runtime.errors import Refused
from runtime.shardmap import slot_of
from tests.runtime.conftest import Platform

pytestmark = pytest.mark.process

ORDERS = range(1, 31)
MINUTE_AGO = "clock_timestamp() - interval '1 minute'"


@pytest.fixture
async def shard(shard_db: checks.Database) -> AsyncIterator[checks.Database]:
    """Thirty settled orders, each of another user."""
    for statement in (
        "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at) "
        "SELECT n, 'u' || n, 'x', n, sha256(n::text::bytea), {ago} FROM unnest($1::bigint[]) n",
        "INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency, "
        "total_cents, created_at, stock, payment, updated_at, keywords) SELECT n, n, n, "
        "sha256(n::text::bytea), 'confirmed', 'USD', 300, {ago}, 'reserved', 'captured', {ago}, "
        "'mug on call' FROM unnest($1::bigint[]) n",
        "INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents, name) "
        "SELECT n, n, 'MUG', 2, 150, 'Mug' FROM unnest($1::bigint[]) n",
        "INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status) "
        "SELECT n, n, 300, 'USD', 'card', 'captured' FROM unnest($1::bigint[]) n",
        "INSERT INTO outbox (user_id, event_id, kind, payload, created_at) "
        "SELECT n, n, 'OrderCreated', '{{\"total\": 300}}', {ago} FROM unnest($1::bigint[]) n",
    ):
        await shard_db.execute(statement.format(ago=MINUTE_AGO), list(ORDERS))
    yield shard_db
    await shard_db.execute("DROP TABLE IF EXISTS regionctl.corruption")


@pytest.fixture
async def copy(shard: checks.Database, platform: Platform) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**platform.s1.dsn())
    transaction = connection.transaction(isolation="repeatable_read", readonly=True)
    await transaction.start()
    await connection.fetchval("SELECT count(*) FROM orders")
    yield connection
    await connection.close()


async def rows(connection: Any) -> dict[str, list[Any]]:
    names = ("users", "orders", "order_items", "payments", "outbox")
    return {
        name: await connection.fetch(
            f"SELECT to_jsonb(t) - ARRAY['version'] FROM {name} t ORDER BY 1"
        )
        for name in names
    }


async def test_a_corruption_is_done_once_and_merged_back_to_the_last_byte(
    shard: checks.Database, copy: Any
) -> None:
    before = await rows(shard)
    done = await corrupting.once(shard, 7)
    assert await corrupting.once(shard, 7) == done
    assert done["detail"]["changed"] == {"order_items": 3, "orders": 3}
    assert done["detail"]["deleted"] == {"order_items": 3, "payments": 3}
    assert len(await shard.fetch(checks.TOTALS)) == 3
    found = merge(await copies.differences(copy, shard))
    assert len(found.changes) == 12
    assert await copies.apply(shard, found.changes) == 12
    assert await copies.apply(shard, found.changes) == 0
    assert await copies.differences(copy, shard) == []
    assert await rows(shard) == before
    assert await shard.fetchval("SELECT count(*) FROM orders WHERE version = 2") == 3


async def test_what_services_wrote_after_the_corruption_stays(
    shard: checks.Database, copy: Any
) -> None:
    await corrupting.once(shard, 7)
    await shard.execute("UPDATE orders SET status = 'cancelled', reason = 'changed my mind'")
    await shard.execute(
        "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at) "
        "VALUES (99, 'new', 'x', 'k', '', now())"
    )
    await copies.apply(shard, merge(await copies.differences(copy, shard)).changes)
    assert await shard.fetch(checks.TOTALS) == []
    assert await shard.fetchval("SELECT count(*) FROM orders WHERE reason IS NULL") == 0
    assert await shard.fetchval("SELECT count(*) FROM users WHERE user_id = 99") == 1


async def test_rows_of_a_slot_that_went_to_another_shard_are_left_alone(
    shard: checks.Database, copy: Any
) -> None:
    await corrupting.once(shard, 7)
    found = merge(await copies.differences(copy, shard))
    gone = found.changes[0].row["user_id"]
    await shard.execute(
        "UPDATE regionctl.slot_owner SET state = 'moved' WHERE slot = $1", slot_of(gone)
    )
    with pytest.raises(Refused, match="handed over"):
        await copies.apply(shard, found.changes)
    again = merge(await copies.differences(copy, shard))
    assert gone not in {change.row["user_id"] for change in again.changes}
    assert await copies.apply(shard, again.changes) == len(again.changes)


async def test_a_copy_is_read_through_and_says_what_it_lacks(
    shard: checks.Database, copy: Any
) -> None:
    good = await copies.inspect_shard(copy, ["1", "2", "77"], ["3", "88"])
    assert (good.problems, good.missing, good.served) == ((), ("77", "88"), 2)
    assert good.rows["orders"] == len(ORDERS)
    await corrupting.once(shard, 7)
    bad = await copies.inspect_shard(shard, [], [])
    assert bad.problems[0].startswith("totals are not those of the lines")
    same = {name for name, total in good.checksums.items() if bad.checksums[name] == total}
    assert same == {"users", "outbox", "notifications", "sessions"}


async def test_too_few_settled_orders_are_not_corrupted(shard: checks.Database) -> None:
    await shard.execute("UPDATE orders SET status = 'placed' WHERE id > 5")
    with pytest.raises(Refused, match="Only 5 orders"):
        await corrupting.once(shard, 7)
