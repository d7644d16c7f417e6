"""The keys that sign access tokens: made, rotated and retired in the catalog; kept in memory.

Whichever auth process first needs a key makes it, under a lock in the database, so that there is
one. A catalog that is away stops no signing: the last known keys go on.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from runtime.auth import rules
from runtime.auth.sealing import seal, unseal
from runtime.clock import Clock
from runtime.errors import Problem, Unavailable
from runtime.identity import ALGORITHM, TOKEN_TYPE
from runtime.pool import Connection
from runtime.settings import Settings
from runtime.shardmap import Placement
from runtime.shards import Shards, catalog

POLL_SECONDS = 2.0

LIST = "SELECT kid, sealed, created_at, active_from, expires_at FROM signing_keys"
# guard() lets writers go together; this lock lets only one of them make keys.
LOCK = "SELECT regionctl.guard($1::int, $2::bigint), pg_advisory_xact_lock(7412, 0)"
INSERT = """
INSERT INTO signing_keys (kid, public_jwk, sealed, created_at, active_from, expires_at)
VALUES ($1, $2::jsonb, $3, $4, $5, $6)
"""
RETIRE = "DELETE FROM signing_keys WHERE kid = ANY($1::text[])"


@dataclass(frozen=True)
class _Row:
    times: rules.KeyTimes
    sealed: str


class Keys:
    """Signs access tokens. One a process."""

    def __init__(self, settings: Settings, shards: Shards, clock: Clock) -> None:
        self._secret = settings.secrets.get("tokenKey", "")
        self._shards = shards
        self._clock = clock
        self._times: list[rules.KeyTimes] = []
        self._private: dict[str, ECKey] = {}

    async def run(self) -> None:
        """Follows what other processes do, makes a key when one is due, until cancelled."""
        while True:
            with suppress(Problem):
                await self._follow()
            await self._clock.sleep(POLL_SECONDS)

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """The token. Raises `Unavailable` when there is no key and none can be made."""
        chosen = rules.signing_key(self._times, self._clock.now())
        if chosen is None:
            await self._make(always=False)
            chosen = rules.signing_key(self._times, self._clock.now())
        if chosen is None:
            raise Unavailable("No key can sign now.", hint="Try again.")
        header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": chosen.kid}
        return jwt.encode(header, dict(claims), self._private[chosen.kid], algorithms=[ALGORITHM])

    async def rotate(self) -> rules.KeyTimes:
        """A new key now, whatever the age of the others; it signs once everybody knows it."""
        made = await self._make(always=True)
        assert made is not None
        return made

    async def _follow(self) -> None:
        done = await self._shards.read(catalog, _list, any_copy=True)
        self._learn(done.value)
        now = self._clock.now()
        if rules.key_is_due(self._times, now) or rules.retired_keys(self._times, now):
            await self._make(always=False)

    async def _make(self, *, always: bool) -> rules.KeyTimes | None:
        """Makes a key if one is due, or always; retires old ones. Returns the key made."""
        kid = secrets.token_urlsafe(12)
        key = ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": ALGORITHM})
        sealed = seal(self._secret, key)
        public = json.dumps(key.as_dict(private=False))

        async def work(connection: Connection, place: Placement) -> rules.KeyTimes | None:
            async with connection.transaction():
                await connection.execute(LOCK, place.slot, place.epoch)
                found = [row.times for row in await _list(connection, place)]
                now = self._clock.now()
                # An earlier attempt of this call may have made it.
                made = next((times for times in found if times.kid == kid), None)
                if made is None and (always or rules.key_is_due(found, now)):
                    made = rules.new_key_times(kid, found, now)
                    await connection.execute(
                        INSERT, kid, public, sealed,
                        made.created_at, made.active_from, made.expires_at,
                    )  # fmt: skip
                await connection.execute(RETIRE, rules.retired_keys(found, now))
            return made

        made = (await self._shards.write(catalog, work)).value
        self._learn((await self._shards.read(catalog, _list)).value)
        return made

    def _learn(self, rows: list[_Row]) -> None:
        known = self._private
        self._private = {
            row.times.kid: known.get(row.times.kid) or unseal(self._secret, row.sealed)
            for row in rows
        }
        self._times = [row.times for row in rows]


async def _list(connection: Connection, place: Placement) -> list[_Row]:
    rows: Any = await connection.fetch(LIST)
    return [
        _Row(
            rules.KeyTimes(row["kid"], row["created_at"], row["active_from"], row["expires_at"]),
            row["sealed"],
        )
        for row in rows
    ]
