"""How often a login failed, by account and by address, counted for the whole region.

An attempt counts as failed before it is made, so that many at once get no more tries than one
after the other; success takes it back. An address from which the account was logged in to is known
for a month, and has a count of its own. All that is in the region's cache; while that is away each
process counts for itself, and knows no address.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from runtime.auth import rules
from runtime.cache import Cache
from runtime.clock import Clock

KEPT_HERE = 10_000

# KEYS: account, address, pair, whether the pair is known. ARGV: the attempt, now in seconds, the
# window in seconds. {whether it is known, times of the account or else the pair, of the address}.
ADD = """
local known = redis.call('EXISTS', KEYS[4])
local found = {}
for n, key in ipairs({known == 1 and KEYS[3] or KEYS[1], KEYS[2]}) do
  redis.call('ZREMRANGEBYSCORE', key, 0, ARGV[2] - ARGV[3])
  local pairs = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  found[n] = {}
  for at = 2, #pairs, 2 do table.insert(found[n], pairs[at]) end
  redis.call('ZADD', key, ARGV[2], ARGV[1])
  redis.call('EXPIRE', key, ARGV[3])
end
return {known, found[1], found[2]}
"""
# KEYS: any. ARGV: the attempt.
REMOVE = """
for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end
return 1
"""
# KEYS: the count that is forgotten, the address, what makes the pair known. ARGV: the attempt, for
# how many seconds it is.
SUCCEED = """
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SET', KEYS[3], '1', 'EX', ARGV[2])
return 1
"""


@dataclass(frozen=True)
class Attempt:
    """`wait`: in how many seconds to try again; 0 when this attempt may go on.

    `counted`: the key of the account's or the pair's count. `known`: what makes the pair known.
    """

    id: str
    account: str
    counted: str
    address: str
    known: str
    wait: float


class Throttle:
    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._here: OrderedDict[str, dict[str, float]] = OrderedDict()

    async def begin(self, account: str, address: str) -> Attempt:
        """Counts an attempt for `account` (an e-mail address) from `address`, and judges it."""
        now = self._clock.now().timestamp()
        id, pair = secrets.token_hex(8), f"{account} {address}"
        keys = [
            _key("account", account), _key("address", address),
            _key("pair", pair), _key("known", pair),
        ]  # fmt: skip
        here = rules.Failures(*(self._add(key, id, now) for key in keys[:2]))
        shared = await self._cache.script(ADD, keys, [id, repr(now), rules.WINDOW_SECONDS])
        failures = here if shared is None else _failures(shared)
        counted = keys[0] if failures.pair is None else keys[2]
        wait = rules.login_pause(failures, now)
        attempt = Attempt(id, keys[0], counted, keys[1], keys[3], wait)
        if attempt.wait:
            # Trying in vain does not make the wait longer.
            await self.withdrawn(attempt)
        return attempt

    async def withdrawn(self, attempt: Attempt) -> None:
        """As if it had not been made: nobody has learned whether the password was right."""
        for key in (attempt.account, attempt.address):
            self._here.get(key, {}).pop(attempt.id, None)
        await self._cache.script(REMOVE, [attempt.counted, attempt.address], [attempt.id])

    async def succeeded(self, attempt: Attempt) -> None:
        """The count has no failures any more, the address keeps its others; the pair is known."""
        self._here.pop(attempt.account, None)
        self._here.get(attempt.address, {}).pop(attempt.id, None)
        keys = [attempt.counted, attempt.address, attempt.known]
        await self._cache.script(SUCCEED, keys, [attempt.id, rules.KNOWN_SECONDS])

    def _add(self, key: str, id: str, now: float) -> list[float]:
        """What this process knows, for when the cache is away."""
        known = self._here.get(key, {})
        recent = {name: at for name, at in known.items() if now - at < rules.WINDOW_SECONDS}
        self._here[key] = recent | {id: now}
        self._here.move_to_end(key)
        while len(self._here) > KEPT_HERE:
            self._here.popitem(last=False)
        return list(recent.values())


def _failures(answer: Any) -> rules.Failures:
    """What `ADD` found."""
    counted, address = ([float(at) for at in times] for times in answer[1:])
    if answer[0]:
        return rules.Failures([], address, counted)
    return rules.Failures(counted, address)


def _key(kind: str, name: str) -> str:
    """The cache need not know who tried to log in."""
    return f"login:{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"
