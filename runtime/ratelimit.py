"""How many requests a caller may send: a sliding window, shared by all services of a region.

The window is a list of the times, by the cache server's clock, at which requests were let through;
one script looks, decides and writes. While the cache is away each process keeps windows of its
own, so that a caller may for that time send as many times the limit as there are processes.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from runtime.cache import Cache
from runtime.clock import Clock
from runtime.errors import TooManyRequests
from runtime.identity import Caller

Headers = list[tuple[bytes, bytes]]

MINUTE = 60
LOCAL_WINDOWS = 10_000
ORDERS = "/api/v1/orders"
USERS = "/api/v1/users"

# KEYS: one. ARGV: limit, window in ms. {1 when let through, requests left, ms until one leaves}.
# It drops at most 200 old times a call, so that a long window costs nobody a long wait.
WINDOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest
for _ = 1, 200 do
  oldest = tonumber(redis.call('LINDEX', KEYS[1], 0) or '')
  if not oldest or oldest > now - window then break end
  redis.call('LPOP', KEYS[1])
end
local used = redis.call('LLEN', KEYS[1])
if used >= limit then return {0, 0, (oldest or now) + window - now} end
redis.call('RPUSH', KEYS[1], now)
redis.call('PEXPIRE', KEYS[1], window)
return {1, limit - used - 1, (oldest or now) + window - now}
"""


@dataclass(frozen=True)
class Limit:
    """`name` is what counts together; `by_address` counts clients by where they send from."""

    name: str
    requests: int
    seconds: int = MINUTE
    by_address: bool = False


@dataclass(frozen=True)
class Verdict:
    allowed: bool
    remaining: int
    reset_ms: int


SERVICE = Limit("service", 600_000)
USERS_LIST = Limit("users-list", 100)
USERS_ONE = Limit("users", 300)
REGISTER = Limit("register", 100, by_address=True)
PLACE = Limit("place", 30)
ORDERS_OTHER = Limit("orders", 300)
TOKEN = Limit("token", 60, by_address=True)
PRODUCTS = Limit("products", 300)
# The edge answers from its cache what is asked again; each other query is a search of its own.
PRODUCTS_QUERY = Limit("products-query", 600, by_address=True)
AUDIT = Limit("audit", 300)


def limit_of(method: str, path: str, role: str | None, *, query: bool = False) -> Limit | None:
    """The limit of a request; None for what only the edge's flood guard limits.

    `query`: whether its URL has one.
    """
    path = path.rstrip("/")
    if role == "service":
        return SERVICE
    if path.startswith("/oauth/"):
        return TOKEN if method == "POST" else None
    if path == USERS or path.startswith(USERS + "/"):
        if path == USERS and method == "POST":
            return REGISTER
        return USERS_LIST if path == USERS else USERS_ONE
    if path == ORDERS or path.startswith(ORDERS + "/"):
        return PLACE if path == ORDERS and method == "POST" else ORDERS_OTHER
    if path.startswith("/api/v1/products"):
        if method not in ("GET", "HEAD"):
            return PRODUCTS
        return PRODUCTS_QUERY if query else None
    return AUDIT if path.startswith("/api/v1/audit") else None


def subject_of(limit: Limit, scope: Mapping[str, Any], caller: Caller | None) -> str:
    """Who is counted."""
    if caller is None or limit.by_address:
        return "address:" + address_of(scope)
    if caller.user_id is None:
        return "client:" + caller.client
    return f"user:{caller.user_id}"


def address_of(scope: Mapping[str, Any]) -> str:
    """The last entry of X-Forwarded-For: the one that the platform's own edge wrote."""
    for name, value in reversed(scope["headers"]):
        if name == b"x-forwarded-for":
            last = bytes(value).rpartition(b",")[2].strip()
            return last[:64].decode("latin-1")
    client = scope.get("client")
    return str(client[0]) if client else ""


def headers_of(limit: Limit, verdict: Verdict) -> Headers:
    """Reset: seconds until a request more is free."""
    return [
        (b"ratelimit-limit", b"%d" % limit.requests),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(verdict.reset_ms / 1000)),
    ]


class Limiter:
    """Counts in the region's cache, or here while that is away."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._windows: OrderedDict[str, deque[float]] = OrderedDict()

    async def check(self, scope: Scope, caller: Caller | None) -> None:
        """Counts the request. Raises `TooManyRequests`.

        Leaves in `scope["ratelimit"]` the headers of the answer, also of one that refuses.
        """
        role, query = caller.role if caller else None, bool(scope.get("query_string"))
        limit = limit_of(scope["method"], scope["path"], role, query=query)
        if limit is None:
            return
        verdict = await self.judge(limit, subject_of(limit, scope, caller))
        scope["ratelimit"] = headers_of(limit, verdict)
        if not verdict.allowed:
            wait = max(1, math.ceil(verdict.reset_ms / 1000))
            raise TooManyRequests(
                f"The limit is {limit.requests} requests in {limit.seconds} s.",
                hint=f"Try again in {wait} s.",
                extra={
                    "retryAfter": wait,
                    "limit": limit.requests,
                    "windowSeconds": limit.seconds,
                },
            )

    async def judge(self, limit: Limit, subject: str) -> Verdict:
        """Whether `subject` may send one more request, which then counts."""
        key = f"limit:{limit.name}:{subject}"
        answer = await self._cache.script(WINDOW, [key], [limit.requests, limit.seconds * 1000])
        if answer is None:
            return self._here(limit, key)
        return Verdict(bool(answer[0]), answer[1], answer[2])

    def _here(self, limit: Limit, key: str) -> Verdict:
        now = self._clock.monotonic()
        window = self._windows.setdefault(key, deque())
        self._windows.move_to_end(key)
        while len(self._windows) > LOCAL_WINDOWS:
            self._windows.popitem(last=False)
        while window and window[0] <= now - limit.seconds:
            window.popleft()
        allowed = len(window) < limit.requests
        if allowed:
            window.append(now)
        reset = (window[0] + limit.seconds - now) * 1000
        return Verdict(allowed, limit.requests - len(window), math.ceil(reset))
