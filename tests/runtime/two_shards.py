"""Shards s1 and s2 for tests of moves; every slot is s1's at first, and copies may lie on both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import asyncpg
import pytest

from runtime import checks, owners
from runtime.shardmap import Shard, ShardMap
from tests.runtime.conftest import REGION, Platform, endpoint, prepare
from tests.runtime.servers import Postgres

TABLES = "users, sessions, orders, order_items, payments, notifications, outbox"


@dataclass(frozen=True)
class Pair:
    """The superuser's connections to both."""

    platform: Platform
    one: checks.Database
    two: checks.Database

    @property
    def both(self) -> dict[str, checks.Database]:
        return {"s1": self.one, "s2": self.two}

    async def fence(self, slot: int, state: str = "fencing") -> None:
        await self.one.execute(
            "UPDATE regionctl.slot_owner SET state = $2 WHERE slot = $1", slot, state
        )

    async def hand_over(self, slot: int) -> ShardMap:
        """From s1 to s2, in the databases; the map that is to be published."""
        moved = self.platform.shard_map.with_slots(
            slot, slot, "s2", self.platform.shard_map.next_epoch()
        )
        await self.two.execute(
            "INSERT INTO regionctl.slot_owner VALUES ($1, 'owned', $2)",
            slot,
            moved.place(slot).epoch,
        )
        await self.fence(slot, "moved")
        return moved

    async def copy(self, *tables: str) -> None:
        """The rows of s1 are on s2 too."""
        for table in tables:
            rows = await self.one.fetch(f"SELECT to_jsonb(t)::text FROM {table} t")
            columns = await self.one.fetchval(
                "SELECT string_agg(column_name, ', ') FROM information_schema.columns "
                "WHERE table_name = $1 AND table_schema = 'public' AND is_generated = 'NEVER'",
                table,
            )
            await self.two.execute(
                f"INSERT INTO {table} ({columns}) SELECT {columns} "
                f"FROM unnest($1::jsonb[]) AS r(row), jsonb_populate_record(NULL::{table}, row)",
                [row[0] for row in rows],
            )


@pytest.fixture(scope="module")
def second(databases: tuple[Postgres, Postgres]) -> Iterator[Postgres]:
    server = Postgres(databases[0].root, "s2")
    server.initialise()
    server.start()
    try:
        thread = threading.Thread(target=lambda: asyncio.run(prepare(server, "shard", owns=False)))
        thread.start()
        thread.join()
        yield server
    finally:
        server.stop()
        server.remove()


@pytest.fixture
async def pair(platform: Platform, second: Postgres) -> AsyncIterator[Pair]:
    one = await asyncpg.connect(**platform.s1.dsn())
    two = await asyncpg.connect(**second.dsn())
    await two.execute(f"TRUNCATE {TABLES}, regionctl.slot_owner")
    whole = platform.first_map()
    s2 = Shard("s2", 1, REGION, replace(endpoint(second), instance="s2.us-east-1a"))
    platform.publish(whole.with_shard(s2))
    yield Pair(platform, one, two)
    await one.execute("DELETE FROM regionctl.slot_owner")
    await owners.set_epochs(one, whole.ranges)
    await one.close()
    await two.close()
