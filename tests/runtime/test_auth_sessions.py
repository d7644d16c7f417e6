"""How often one may guess a password, how many sessions one may have, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from runtime import checks, passwords
from runtime.auth import tidy
from runtime.auth.store import forget_revocations
from runtime.clock import SystemClock
from runtime.context import Context
from runtime.routing import Routing
from runtime.shards import Shards, catalog
from tests.runtime.conftest import Platform
from tests.runtime.customers import PASSWORD, log_in, register

pytestmark = pytest.mark.process

EMAIL = "ada@example.org"
# Of a user, so many, so long before their end; the higher the id, the older.
SESSIONS = """
INSERT INTO sessions (user_id, id, client_id, token_hash, created_at, expires_at)
SELECT $1, n, 'public', '', now() - n * interval '1 hour', now() + $3::text::interval
FROM generate_series(1, $2::int) AS n
"""


@pytest.fixture
async def auth(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with platform.service("auth") as client:
        yield client


async def audited(catalog_db: checks.Database) -> list[tuple[str, str]]:
    rows = await catalog_db.fetch("SELECT action, outcome FROM audit_log ORDER BY id")
    return [(row[0], row[1]) for row in rows]


async def test_guessing_a_password_is_slowed_down_also_without_the_cache(
    platform: Platform, auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await register(platform, EMAIL)
    guesses = await asyncio.gather(*[log_in(auth, EMAIL, f"guess number {n}") for n in range(8)])
    assert sorted(guess.status_code for guess in guesses) == [400] * 5 + [429] * 3
    refused = await log_in(auth, EMAIL)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert ("login", "denied") in await audited(catalog_db)
    own = replace(platform.settings("auth"), cache=("127.0.0.1", 1))
    async with platform.service("auth", settings=own) as alone:
        for n in range(5):
            assert (await log_in(alone, EMAIL, f"guess number {n}")).status_code == 400
        assert (await log_in(alone, EMAIL)).status_code == 429


async def test_whoever_logged_in_from_an_address_is_not_kept_out_by_guesses_from_others(
    platform: Platform, auth: httpx.AsyncClient
) -> None:
    await register(platform, EMAIL)

    async def from_address(address: str, password: str = PASSWORD) -> int:
        form = {"grant_type": "password", "username": EMAIL, "password": password}
        headers = {"X-Forwarded-For": address}
        return (await auth.post("/oauth/token", data=form, headers=headers)).status_code

    assert await from_address("192.0.2.1") == 200
    for expected in [400] * 5 + [429]:
        assert await from_address("203.0.113.9", "a guess") == expected
    assert await from_address("198.51.100.7") == 429
    assert await from_address("192.0.2.1") == 200
    for expected in [400] * 5 + [429]:
        assert await from_address("192.0.2.1", "a guess") == expected
    assert await from_address("192.0.2.1") == 429


async def test_a_login_that_nobody_looked_at_counts_as_no_guess(
    platform: Platform, auth: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(platform, EMAIL)
    with monkeypatch.context() as busy:
        busy.setattr(passwords, "WAITING", 0)
        for _ in range(6):
            answer = await log_in(auth, EMAIL)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert (await log_in(auth, EMAIL)).status_code == 200


async def test_a_success_forgives_the_failures_before_it(
    platform: Platform, auth: httpx.AsyncClient
) -> None:
    await register(platform, EMAIL)
    for _ in range(2):
        for n in range(4):
            assert (await log_in(auth, EMAIL, f"guess number {n}")).status_code == 400
        assert (await log_in(auth, EMAIL)).status_code == 200


async def test_the_fifty_first_login_ends_the_oldest_session(
    platform: Platform,
    auth: httpx.AsyncClient,
    shard_db: checks.Database,
    catalog_db: checks.Database,
) -> None:
    user = int(await register(platform, EMAIL))
    await shard_db.execute(SESSIONS, user, 49, "1 day")
    await log_in(auth, EMAIL)
    live = "SELECT count(*) FROM sessions WHERE revoked_at IS NULL"
    assert await shard_db.fetchval(live) == 50
    assert (await log_in(auth, EMAIL)).status_code == 200
    assert await shard_db.fetchval(live) == 50
    # The higher the id, the longer ago.
    ended = await shard_db.fetchval(
        "SELECT array_agg(id) FROM sessions WHERE revoked_at > '-infinity'"
    )
    assert ended == [49]
    assert await catalog_db.fetchval("SELECT array_agg(session_id) FROM revocations") == [49]


async def test_sessions_that_are_over_are_deleted_batch_by_batch_and_others_stay(
    platform: Platform, shard_db: checks.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidy, "BATCH", 3)
    for user, count, left in ((1, 5, "-2 hours"), (2, 5, "-1 minute"), (3, 2, "1 day")):
        await shard_db.execute(SESSIONS, user, count, left)
    await shard_db.execute(
        "UPDATE sessions SET revoked_at = now() - id * interval '20 hours' WHERE user_id = 3"
    )
    settings, clock = platform.settings("auth"), SystemClock()
    routing = Routing(platform.map_file, clock)
    routing.refresh()
    shards = Shards(settings, routing, clock)
    nothing: Any = None
    context = Context(settings, clock, routing, shards, nothing, nothing, nothing)
    assert await tidy.forget_sessions(context, "s1") == 6
    assert await tidy.forget_sessions(context, "s1") == 0
    shards.close()
    left_over = await shard_db.fetch("SELECT user_id, count(*) FROM sessions GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in left_over] == [(2, 5), (3, 1)]


async def test_revocations_are_forgotten_once_their_tokens_have_expired(
    platform: Platform, catalog_db: checks.Database
) -> None:
    await catalog_db.execute(
        "INSERT INTO revocations VALUES (1, now(), now() - interval '1 second'), "
        "(2, now(), now() + interval '1 minute')"
    )
    routing = Routing(platform.map_file, SystemClock())
    routing.refresh()
    shards = Shards(platform.settings("auth"), routing, SystemClock())
    await shards.write(catalog, forget_revocations)
    shards.close()
    assert await catalog_db.fetchval("SELECT array_agg(session_id) FROM revocations") == [2]
