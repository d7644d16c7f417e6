"""A shard with a standby: reading one's own writes, and losing the primary under a request."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest

from runtime import checks, owners
from runtime.shardmap import ShardMap
from tests.runtime.conftest import Platform, endpoint
from tests.runtime.customers import place, register, sign_in
from tests.runtime.servers import Postgres

pytestmark = pytest.mark.process


@pytest.fixture
def standby(platform: Platform) -> Iterator[Postgres]:
    """A streaming standby of s1 in zone b."""
    server = Postgres(platform.s1.root, "s1b")
    server.clone(platform.s1)
    server.start()
    yield server
    server.stop()
    server.remove()


def with_standby(platform: Platform, standby: Postgres) -> ShardMap:
    whole = platform.first_map(version=2)
    shard = replace(whole.shards["s1"], replicas=(endpoint(standby, "b"),), sync=("s1b",))
    return replace(whole, shards={**whole.shards, "s1": shard})


async def test_own_writes_are_read_from_a_replica_only_when_it_has_them(
    platform: Platform, standby: Postgres
) -> None:
    platform.publish(with_standby(platform, standby))
    user = await register(platform)
    replica: checks.Database = await asyncpg.connect(**standby.dsn())
    async with platform.service("orders", "b") as orders:
        await sign_in(platform, orders)
        await replica.execute("SELECT pg_wal_replay_pause()")
        placed = await place(orders, user, "k")
        position = {"X-Regionctl-Position": placed.headers["x-regionctl-position"]}
        path = f"/api/v1/orders/{placed.json()['id']}"
        behind = await orders.get(path, headers=position)
        assert behind.json() == placed.json()
        assert behind.headers["x-regionctl-instance"] == "s1.us-east-1a"
        await replica.execute("SELECT pg_wal_replay_resume()")
        async with asyncio.timeout(30):
            while True:
                got = await orders.get(path, headers=position)
                assert got.json() == placed.json()
                if got.headers["x-regionctl-instance"] == "s1b.us-east-1b":
                    break
        primary = await orders.get(path, headers={"Cache-Control": "no-cache"})
        assert primary.headers["x-regionctl-instance"] == "s1.us-east-1a"
    await replica.close()


async def test_a_frozen_primary_costs_waiting_and_no_order(
    platform: Platform, standby: Postgres, shard_db: checks.Database
) -> None:
    platform.publish(with_standby(platform, standby))
    user = await register(platform)
    await shard_db.execute("ALTER SYSTEM SET synchronous_standby_names = 's1b'")
    await shard_db.execute("SELECT pg_reload_conf()")
    new: checks.Database | None = None
    try:
        async with platform.service("orders") as orders:
            await sign_in(platform, orders)
            before = await place(orders, user, "before")
            assert before.status_code == 201
            platform.s1.signal_all(signal.SIGSTOP)
            during = [asyncio.create_task(place(orders, user, f"during-{n}")) for n in range(12)]
            done, _ = await asyncio.wait(during, timeout=0.2)
            assert not done
            await asyncio.to_thread(standby.promote)
            new = await asyncpg.connect(**standby.dsn())
            moved = platform.shard_map.with_primary("s1", endpoint(standby, "b"), home="us-east-1")
            await owners.set_epochs(new, moved.slots_of("s1"))
            platform.publish(moved)
            answers = await asyncio.wait_for(asyncio.gather(*during), 30)
            assert {answer.status_code for answer in answers} == {201}
            assert {answer.headers["x-regionctl-instance"] for answer in answers} == {
                "s1b.us-east-1b"
            }
        kept = await new.fetchval("SELECT count(*) FROM orders")
        assert kept == 13
    finally:
        platform.s1.signal_all(signal.SIGCONT)
        if new is not None:
            await new.close()
        await shard_db.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await shard_db.execute("SELECT pg_reload_conf()")
