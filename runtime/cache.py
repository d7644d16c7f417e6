"""The region's cache: an answer, or a miss. Never an error, never a long wait.

Every failure is a miss. After three failures in a row nobody asks for a second, so a frozen cache
costs a request 50 ms only now and then.

What `fetch` and `get` return is never older than a write whose `put` (or `lift`) had returned when
they were called, provided that writers `forget` first and commit within `TOMBSTONE_SECONDS`, that
`load` reads the primary, and that the writer could reach the cache. A write that committed but
whose writer died before its `put` is seen too, from its commit on. Three things bound what is left:

- the cache lost the tombstone *and* then the writer died between commit and put: the entry's TTL;
- the writer cannot reach a cache that readers can: until it can again (it keeps trying);
- a process that has an old shard map: until it reads the new one.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime import entries
from runtime.clock import Clock
from runtime.entries import Found, Stored
from runtime.telemetry import CACHE
from runtime.valkey import Argument, ServerError, Valkey

TIMEOUT_SECONDS = 0.05
FAILURES = 3
REST_SECONDS = 1.0
DEBT_SECONDS = 0.1
DEBT_LIMIT = 10_000

Load = Callable[[], Awaitable[Found | None]]
FAILED = (OSError, TimeoutError, ServerError)


@dataclass
class _Flight:
    """One load under way. Whoever began before it did, or saw its lease, may share it."""

    began: float
    lease: bytes | None = None
    task: asyncio.Task[Found | None] = field(init=False)


class Cache:
    """`address` None is a cache that has nothing."""

    def __init__(
        self,
        address: tuple[str, int] | None,
        password: str,
        clock: Clock,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0
        self._valkey = Valkey(address, password, TIMEOUT_SECONDS, trust) if address else None
        self._flights: dict[str, _Flight] = {}
        self._owed: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._digests: dict[str, str] = {}

    # Plain values: whatever was put last.

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """One value or None a key, in order."""
        if not keys:
            return []
        answer = await self._ask("MGET", *keys)
        if answer is None:
            return [None] * len(keys)
        found: list[bytes | None] = answer
        hits = sum(value is not None for value in found)
        CACHE.labels("hit").inc(hits)
        CACHE.labels("miss").inc(len(keys) - hits)
        return found

    async def put_many(self, values: Mapping[str, bytes], seconds: float) -> None:
        """Keeps `values` for `seconds`, if it can."""
        milliseconds = int(seconds * 1000)
        await asyncio.gather(
            *(self._ask("SET", key, value, "PX", milliseconds) for key, value in values.items())
        )

    async def script(self, source: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """What a Lua script returns; None when the cache is away."""
        digest = self._digests.get(source)
        if digest is None:
            digest = self._digests[source] = hashlib.sha1(
                source.encode(), usedforsecurity=False
            ).hexdigest()
        rest = (len(keys), *keys, *arguments)
        return await self._ask("EVALSHA", digest, *rest, instead=("EVAL", source, *rest))

    # Entries: values with versions, kept true while they change.

    async def get(self, key: str) -> Found | None:
        """The entry, if it is there."""
        stored = entries.decode(await self._look(key))
        return stored.found if stored else None

    async def fetch(self, key: str, load: Load, seconds: float) -> Found | None:
        """The entry, else what `load` reads from the primary, which is then kept for `seconds`.

        Many misses at once are one `load` a process. An entry about to expire is loaded again
        by one request, while the others get what is there.
        """
        began = self._clock.monotonic()
        value = await self._look(key)
        stored = entries.decode(value)
        if stored is None:
            return await self._shared(key, began, value, load, seconds)
        if key not in self._flights and self._due(stored):
            self._fly(key, load, seconds, stored)
        return stored.found

    async def forget(self, keys: Iterable[str]) -> str:
        """Before a commit: nobody is given the entries until the mark returned is taken away.

        That is `put` or `lift` with it, or ten seconds. Cheap; may be called for nothing.
        """
        mark = secrets.token_hex(6)
        names = list(keys)
        if names and not await self._forget(names, mark):
            self._owe(names)
        return mark

    async def put(self, key: str, version: int, body: bytes, seconds: float, mark: str) -> None:
        """After the commit: the entry as it is now. `mark` is what `forget` returned.

        `key` is that of the place where the write was done, even when it was not forgotten.
        """
        value = encoded(self._clock, Found(version, body), seconds, 0.0)
        await self._finish(key, mark, version, value, seconds)

    async def lift(self, keys: Iterable[str], mark: str) -> None:
        """After the commit, by a writer that has no body at hand: the next reader loads."""
        await asyncio.gather(
            *(self._finish(key, mark, entries.NO_VERSION, b"", 1.0) for key in keys)
        )

    def add(self, key: str, version: int, body: bytes, seconds: float) -> None:
        """Right after the commit that made the thing: its first entry, unless there is one.

        Nobody knew its key before, so there is nothing to forget; waits for nothing.
        """
        value = encoded(self._clock, Found(version, body), seconds, 0.0)
        self._spawn(self._ask("SET", key, value, "PX", int(seconds * 1000), "NX"))

    async def renew(self, key: str, version: int, body: bytes, seconds: float) -> None:
        """The entry, unless a higher version is there. For what may be old for a moment: nobody
        `forget`s such an entry."""
        value = encoded(self._clock, Found(version, body), seconds, 0.0)
        arguments: list[Argument] = [version, value, int(seconds * 1000)]
        await self.script(entries.RENEW, [key], arguments)

    async def close(self) -> None:
        for task in [*self._tasks]:
            task.cancel()
        if self._valkey:
            await self._valkey.close()

    async def _look(self, key: str) -> bytes | None:
        value: bytes | None = await self._ask("GET", key)
        CACHE.labels("hit" if value and value[:1] == b"V" else "miss").inc()
        return value

    async def _shared(
        self, key: str, began: float, seen: bytes | None, load: Load, seconds: float
    ) -> Found | None:
        """A load that began no earlier than this lookup, or whose lease shows no write since."""
        flight = self._flights.get(key)
        while flight and flight.began < began and (seen is None or seen != flight.lease):
            # What it read may be too old: wait, then share the next one.
            await asyncio.wait({flight.task})
            if flight.task.cancelled() or flight.task.exception():
                break
            flight = self._flights.get(key)
        if flight is None:
            flight = self._fly(key, load, seconds, None)
        return await asyncio.shield(flight.task)

    def _fly(self, key: str, load: Load, seconds: float, old: Stored | None) -> _Flight:
        flight = _Flight(math.inf)
        flight.task = self._spawn(self._load(key, flight, load, seconds, old))
        self._flights[key] = flight
        return flight

    async def _load(
        self, key: str, flight: _Flight, load: Load, seconds: float, old: Stored | None
    ) -> Found | None:
        """Loads, and puts in place of `old`, or of a lease when that is None."""
        over = b"V%d:" % old.found.version if old else None
        try:
            if over is None:
                mark = secrets.token_hex(6)
                milliseconds = int(entries.LEASE_SECONDS * 1000)
                there = await self.script(entries.LEASE, [key], [mark, milliseconds])
                if known := entries.decode(there):
                    return known.found
                over = flight.lease = there if there and there[:1] == b"L" else None
            began = flight.began = self._clock.monotonic()
            found = await load()
            older = found and old and found.version < old.found.version
            if found is not None and over is not None and not older:
                took = self._clock.monotonic() - began
                value = encoded(self._clock, found, seconds, took)
                await self.script(entries.FILL, [key], [over, value, int(seconds * 1000)])
            return found
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _due(self, stored: Stored) -> bool:
        """XFetch: the nearer the end and the dearer the load, the likelier."""
        lead = stored.load_ms * -math.log(1.0 - random.random())  # noqa: S311
        return now_ms(self._clock) + lead >= stored.fresh_until

    async def _forget(self, keys: Sequence[str], mark: str) -> bool:
        milliseconds = int(entries.TOMBSTONE_SECONDS * 1000)
        arguments: list[Argument] = [mark, milliseconds, entries.CROWD]
        return await self.script(entries.FORGET, keys, arguments) is not None

    async def _finish(
        self, key: str, mark: str, version: int, value: bytes, seconds: float
    ) -> None:
        arguments: list[Argument] = [mark, version, value, int(seconds * 1000)]
        if await self.script(entries.PUT, [key], arguments) is None:
            self._owe([key])

    def _owe(self, keys: Iterable[str]) -> None:
        """What others may still be given must go as soon as the cache can be reached."""
        if self._valkey is None:
            return
        idle = not self._owed
        self._owed.update(keys)
        while len(self._owed) > DEBT_LIMIT:
            self._owed.pop()
        if idle:
            self._spawn(self._pay())

    async def _pay(self) -> None:
        while self._owed:
            keys = list(self._owed)[:200]
            if await self._forget(keys, "debt"):
                self._owed.difference_update(keys)
            else:
                await self._clock.sleep(DEBT_SECONDS)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _ask(self, *command: Argument, instead: Sequence[Argument] = ()) -> Any:
        """The answer; None when there is none. `instead` is asked when a script is not known."""
        if self._valkey is None or self._clock.monotonic() < self._closed_until:
            return None
        try:
            try:
                answer = await self._valkey.call(*command)
            except ServerError as error:
                if not instead or not str(error).startswith("NOSCRIPT"):
                    raise
                answer = await self._valkey.call(*instead)
        except FAILED:
            self._failed()
            return None
        self._failures = 0
        return answer

    def _failed(self) -> None:
        CACHE.labels("failed").inc()
        self._failures += 1
        if self._failures >= FAILURES:
            self._failures = 0
            self._closed_until = self._clock.monotonic() + REST_SECONDS


def now_ms(clock: Clock) -> int:
    return int(clock.now().timestamp() * 1000)


def encoded(clock: Clock, found: Found, seconds: float, took: float) -> bytes:
    """The value as it is kept: for `seconds`, `took` seconds having been spent to load it."""
    until = now_ms(clock) + int(seconds * 1000)
    return entries.encode(Stored(found, until, math.ceil(took * 1000)))
