"""Rate limits: who is counted as what, and the shared window on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import ratelimit
from runtime.cache import Cache
from runtime.clock import FakeClock, SystemClock
from runtime.errors import TooManyRequests
from runtime.identity import Caller
from runtime.ratelimit import Limit, Limiter, limit_of, subject_of
from tests.runtime.conftest import Platform
from tests.runtime.servers import PASSWORD, Valkey

SOME = Limit("some", 100)
USER = Caller("user", "app", user_id=7)


def scope(method: str = "GET", path: str = "/", forwarded: str | None = None) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded is not None else []
    return {"method": method, "path": path, "headers": headers, "client": ("192.0.2.1", 9)}


@pytest.fixture
async def cache(queue: Valkey) -> AsyncIterator[Cache]:
    made = Cache(("127.0.0.1", queue.port), PASSWORD, SystemClock())
    await made._ask("FLUSHALL")
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("method", "path", "role", "expected"),
    [
        ("GET", "/api/v1/users", "admin", 100),
        ("GET", "/api/v1/users/7", "user", 300),
        ("PATCH", "/api/v1/users/7", "user", 300),
        ("POST", "/api/v1/users", None, 100),
        ("POST", "/api/v1/orders", "user", 30),
        ("POST", "/api/v1/orders/", "user", 30),
        ("GET", "/api/v1/orders", "user", 300),
        ("POST", "/api/v1/orders/7/cancel", "user", 300),
        ("GET", "/api/v1/orders/7/payment", "user", 300),
        ("POST", "/oauth/token", None, 60),
        ("GET", "/api/v1/users", "service", 600_000),
        ("POST", "/api/v1/orders", "service", 600_000),
        ("GET", "/api/v1/products", None, None),
        ("PATCH", "/api/v1/products/MUG", "admin", 300),
        ("POST", "/api/v1/payments/webhook", None, None),
        ("GET", "/health/ready", None, None),
        ("GET", "/metrics", None, None),
    ],
)
def test_every_kind_of_request_has_its_limit(
    method: str, path: str, role: str | None, expected: int | None
) -> None:
    limit = limit_of(method, path, role)
    assert (limit.requests if limit else None) == expected


@given(method=st.text(max_size=8), path=st.text(max_size=40), role=st.sampled_from(["user", None]))
def test_no_request_is_too_strange_to_be_limited(method: str, path: str, role: str | None) -> None:
    limit = limit_of(method, path, role)
    assert limit is None or limit.requests > 0


def test_a_search_of_products_counts_by_address_and_a_plain_read_does_not() -> None:
    for path in ("/api/v1/products", "/api/v1/products/MUG"):
        limit = limit_of("GET", path, "user", query=True)
        assert limit == Limit("products-query", 600, by_address=True)
        assert limit_of("GET", path, None) is None


def test_a_caller_is_counted_by_user_else_client_else_address() -> None:
    assert subject_of(ratelimit.PLACE, scope(), USER) == "user:7"
    assert subject_of(ratelimit.PLACE, scope(), Caller("service", "probe")) == "client:probe"
    assert subject_of(ratelimit.PLACE, scope(), None) == "address:192.0.2.1"
    forwarded = scope(forwarded="10.0.0.1, 203.0.113.9 ")
    assert subject_of(ratelimit.PLACE, forwarded, None) == "address:203.0.113.9"
    assert subject_of(ratelimit.REGISTER, forwarded, USER) == "address:203.0.113.9"
    assert len(subject_of(ratelimit.PLACE, scope(forwarded="x" * 5000), None)) < 100


@pytest.mark.process
async def test_processes_that_share_a_cache_share_the_window_exactly(
    cache: Cache, queue: Valkey
) -> None:
    other = Cache(("127.0.0.1", queue.port), PASSWORD, SystemClock())
    limiters = [Limiter(cache, SystemClock()), Limiter(other, SystemClock())]
    verdicts = await asyncio.gather(*(limiters[n % 2].judge(SOME, "user:7") for n in range(1000)))
    await other.close()
    allowed = [verdict for verdict in verdicts if verdict.allowed]
    assert len(allowed) == SOME.requests
    assert sorted(verdict.remaining for verdict in allowed) == list(range(100))
    assert all(59_000 < verdict.reset_ms <= 60_000 for verdict in verdicts)
    assert (await limiters[0].judge(SOME, "user:8")).allowed


@pytest.mark.process
async def test_the_window_slides_over_the_requests_that_were_let_through(cache: Cache) -> None:
    limiter = Limiter(cache, SystemClock())
    seconds, micros = await cache._ask("TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    await cache._ask("RPUSH", "limit:some:user:7", *([now - 50_000] * 60), *([now] * 40))
    refused = await limiter.judge(SOME, "user:7")
    assert not refused.allowed
    assert 9_000 < refused.reset_ms <= 10_000
    await cache._ask("RPUSH", "limit:some:user:8", *([now - 60_000] * 60), *([now] * 40))
    verdicts = [await limiter.judge(SOME, "user:8") for _ in range(70)]
    assert sum(verdict.allowed for verdict in verdicts) == 60
    assert 1_000 < await cache._ask("PTTL", "limit:some:user:8") <= 60_000


@pytest.mark.process
async def test_a_window_with_very_many_old_times_still_lets_through(cache: Cache) -> None:
    limit = Limit("some", 1000)
    await cache._ask("RPUSH", "limit:some:user:7", *([1] * 1000))
    assert (await Limiter(cache, SystemClock()).judge(limit, "user:7")).allowed


async def test_without_a_cache_each_process_counts_alone() -> None:
    clock = FakeClock()
    limiter = Limiter(Cache(None, "", clock), clock)
    verdicts = [await limiter.judge(SOME, "user:7") for _ in range(150)]
    assert sum(verdict.allowed for verdict in verdicts) == 100
    await clock.sleep(61)
    assert (await limiter.judge(SOME, "user:7")).remaining == 99


async def test_a_refusal_says_when_to_come_again() -> None:
    clock = FakeClock()
    limiter = Limiter(Cache(None, "", clock), clock)
    request = scope("POST", "/api/v1/orders")
    for _ in range(30):
        await limiter.check(request, USER)
    await clock.sleep(20)
    with pytest.raises(TooManyRequests) as caught:
        await limiter.check(request, USER)
    assert caught.value.extra["retryAfter"] == 40
    assert (b"ratelimit-remaining", b"0") in request["ratelimit"]


@pytest.mark.process
async def test_limited_answers_carry_the_headers(platform: Platform) -> None:
    async with platform.service("orders") as client:
        path, forwarded = "/api/v1/orders/1", {"X-Forwarded-For": "203.0.113.9"}
        first = await client.get(path, headers=forwarded)
        assert first.headers["RateLimit-Limit"] == "300"
        assert first.headers["RateLimit-Remaining"] == "299"
        assert 59 <= int(first.headers["RateLimit-Reset"]) <= 60
        answers = await asyncio.gather(*(client.get(path, headers=forwarded) for _ in range(300)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 1
        assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
        assert refused[0].headers["RateLimit-Remaining"] == "0"
        assert refused[0].headers["Content-Type"] == "application/problem+json"
        elsewhere = await client.get(path, headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.1"})
        assert elsewhere.status_code != 429
        assert "RateLimit-Limit" not in (await client.get("/health/live")).headers
