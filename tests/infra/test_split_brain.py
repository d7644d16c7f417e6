"""A deposed primary, started again by hand, acknowledges no write; what only it has is saved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from infra.local.monitor import connect
from infra.local.provider import LocalProvider
from infra.provider import Fault
from tests.infra import platform
from tests.infra.platform import PRIMARY, REMOTE, SYNC

pytestmark = pytest.mark.process

INSERT_USER = (
    "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at) "
    "VALUES ($1, $2, 'Test', 'key', '', clock_timestamp())"
)
INSERT_ORDER = (
    "INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency, "
    "total_cents, created_at) VALUES ($1, $2, 'key', '', 'placed', 'USD', 0, clock_timestamp())"
)


@asynccontextmanager
async def _session(provider: LocalProvider, instance: str) -> AsyncIterator[Any]:
    connection = await connect(provider.site, instance, seconds=5)
    try:
        yield connection
    finally:
        connection.terminate()


async def _acknowledged(provider: LocalProvider, instance: str, user_id: int) -> bool:
    """Whether the server confirms a new user within two seconds."""
    async with _session(provider, instance) as connection:
        write = asyncio.ensure_future(connection.execute(INSERT_USER, user_id, f"{user_id}@x"))
        done, _ = await asyncio.wait({write}, timeout=2.0)
        if done:
            return write.exception() is None
        connection.terminate()
        await asyncio.gather(write, return_exceptions=True)
        return False


async def _start_by_hand(provider: LocalProvider, instance: str) -> None:
    folder = str(provider.site.pgdata(instance))
    arguments = ("start", "-w", "-t", "30", "-D", folder, "-l", f"{folder}/by-hand.log")
    await provider.site.run("pg_ctl", *arguments, instance=instance, seconds=40)


def test_a_deposed_primary_started_by_hand_acknowledges_nothing_and_is_salvaged() -> None:
    async def check(provider: LocalProvider) -> None:
        await platform.provision(provider)
        assert await _acknowledged(provider, PRIMARY, 1)
        await provider.inject(Fault("kill", PRIMARY))
        await provider.promote(SYNC)
        await provider.follow(REMOTE, SYNC)
        assert await _acknowledged(provider, SYNC, 2)

        await _start_by_hand(provider, PRIMARY)
        view = (await provider.observe([PRIMARY])).postgres(PRIMARY)
        assert view is not None
        assert (view.role, view.sync_names) == ("primary", (SYNC,))
        assert not await _acknowledged(provider, PRIMARY, 3)
        await _order_nobody_waits_for(provider, 3, 333)

        assert (await provider.fence(PRIMARY)).fenced
        with pytest.raises(ConnectionRefusedError):
            await connect(provider.site, PRIMARY, seconds=5)

        saved = await provider.salvage(PRIMARY, SYNC)
        assert saved.orders == ("333",)
        assert saved.path is not None
        rows = _read(saved.path)
        assert saved.rows == len(rows) == 2
        assert {row["table"] for row in rows} == {"users", "orders"}

        assert await provider.rewind(PRIMARY, SYNC) == "rewind"
        async with _session(provider, PRIMARY) as connection:
            users = await connection.fetch("SELECT user_id FROM users ORDER BY user_id")
        assert [row["user_id"] for row in users] == [1, 2]

    with platform.on_this_machine() as world:
        world.run(check)


def _read(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


async def _order_nobody_waits_for(provider: LocalProvider, user_id: int, order_id: int) -> None:
    """A write that the deposed primary keeps but never confirms to its standby's satisfaction."""
    async with _session(provider, PRIMARY) as connection:
        await connection.execute("SET synchronous_commit = local")
        await connection.execute(INSERT_ORDER, user_id, order_id)


def test_a_primary_whose_standby_is_gone_acknowledges_only_when_told_to_wait_for_nobody() -> None:
    async def check(provider: LocalProvider) -> None:
        await platform.provision(provider)
        await provider.inject(Fault("kill", SYNC))
        assert not await _acknowledged(provider, PRIMARY, 1)
        await provider.set_sync(PRIMARY, [])
        assert await _acknowledged(provider, PRIMARY, 2)
        await provider.follow(SYNC, PRIMARY)
        await provider.set_sync(PRIMARY, [SYNC])
        assert await _acknowledged(provider, PRIMARY, 3)
        await provider.promote(SYNC)
        async with _session(provider, SYNC) as connection:
            assert await connection.fetchval("SELECT count(*) FROM users") == 3
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute(INSERT_USER, 3, "3@x")

    with platform.on_this_machine() as world:
        world.run(check)
