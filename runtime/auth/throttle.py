"""How often a login failed, by account and by address, counted for the whole region.

An attempt counts as failed before it is made, so that many at once get no more tries than one
after the other; success takes it back. The counts are in the region's cache; while that is away
each process counts for itself.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.auth import rules
from runtime.cache import Cache
from runtime.clock import Clock

KEPT_HERE = 10_000

# ARGV: the attempt, now in seconds, the window in seconds. The times of earlier ones, a key each.
ADD = """
local found = {}
for n, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, 0, ARGV[2] - ARGV[3])
  local pairs = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  found[n] = {}
  for at = 2, #pairs, 2 do table.insert(found[n], pairs[at]) end
  redis.call('ZADD', key, ARGV[2], ARGV[1])
  redis.call('EXPIRE', key, ARGV[3])
end
return found
"""
# ARGV: the attempt, then which of KEYS are to be forgotten as a whole.
REMOVE = """
for n, key in ipairs(KEYS) do
  if ARGV[n + 1] == 'all' then redis.call('DEL', key) else redis.call('ZREM', key, ARGV[1]) end
end
return 1
"""


@dataclass(frozen=True)
class Attempt:
    """`wait`: in how many seconds to try again; 0 when this attempt may go on."""

    id: str
    account: str
    address: str
    wait: float


class Throttle:
    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._here: OrderedDict[str, dict[str, float]] = OrderedDict()

    async def begin(self, account: str, address: str) -> Attempt:
        """Counts an attempt for `account` (an e-mail address) from `address`, and judges it."""
        now = self._clock.now().timestamp()
        id, keys = secrets.token_hex(8), [_key("account", account), _key("address", address)]
        own = [self._add(key, id, now) for key in keys]
        shared = await self._cache.script(ADD, keys, [id, repr(now), rules.WINDOW_SECONDS])
        before = own if shared is None else [[float(at) for at in times] for times in shared]
        wait = max(
            rules.pause(before[0], rules.ACCOUNT_FAILURES, now),
            rules.pause(before[1], rules.ADDRESS_FAILURES, now),
        )
        if wait:
            # Trying in vain does not make the wait longer.
            await self._remove(id, keys, ["one", "one"])
        return Attempt(id, keys[0], keys[1], wait)

    async def withdrawn(self, attempt: Attempt) -> None:
        """As if it had not been made: nobody has learned whether the password was right."""
        await self._remove(attempt.id, [attempt.account, attempt.address], ["one", "one"])

    async def succeeded(self, attempt: Attempt) -> None:
        """The account has no failures any more; the address keeps its others."""
        await self._remove(attempt.id, [attempt.account, attempt.address], ["all", "one"])

    def _add(self, key: str, id: str, now: float) -> list[float]:
        """What this process knows, for when the cache is away."""
        known = self._here.get(key, {})
        recent = {name: at for name, at in known.items() if now - at < rules.WINDOW_SECONDS}
        self._here[key] = recent | {id: now}
        self._here.move_to_end(key)
        while len(self._here) > KEPT_HERE:
            self._here.popitem(last=False)
        return list(recent.values())

    async def _remove(self, id: str, keys: Sequence[str], parts: Sequence[str]) -> None:
        for key, part in zip(keys, parts, strict=True):
            if part == "all":
                self._here.pop(key, None)
            else:
                self._here.get(key, {}).pop(id, None)
        await self._cache.script(REMOVE, keys, [id, *parts])


def _key(kind: str, name: str) -> str:
    """The cache need not know who tried to log in."""
    return f"login:{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"
