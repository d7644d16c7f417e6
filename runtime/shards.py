"""Work on a user's shard or on the catalog, wherever its primary is by now.

A write is begun anew, with the same ids and idempotency key, whenever the primary was lost, was
not the primary, or refused an old epoch; so an unknown outcome of a commit is resolved by the
next attempt. The request waits inside for as long as `BUDGET_SECONDS`. No statement is ever
cancelled: a cancelled wait for the standby would report a success that is none. Giving up on an
attempt cuts its connection instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg

from runtime import tracing
from runtime.clock import Clock
from runtime.errors import NotFound, Unavailable
from runtime.patience import Absences
from runtime.pool import Connection, Pool
from runtime.position import Position
from runtime.routing import Routing
from runtime.settings import DATABASE, Settings
from runtime.shardmap import CATALOG, Endpoint, Placement, ShardMap
from runtime.telemetry import READS, RETRIES
from runtime.transient import LOST_SERVER, STALE, NotOwner, Unreplicated, transient

log = logging.getLogger(__name__)

T = TypeVar("T")
Locate = Callable[[ShardMap], Placement]
Work = Callable[[Connection, Placement], Awaitable[T]]

BUDGET_SECONDS = 8.0
# A map is some 100 ms behind a failover; a position may also be an invention.
NEWER_MAP_SECONDS = 1.0
CONNECT_SECONDS = 1.0
REPLICA_SECONDS = 0.3
REPLICA_REST_SECONDS = 1.0
POOL_SIZE = 8
PAUSES = (0.0, 0.05, 0.1, 0.25)

# While a refused writer waits for a map, it looks for one so often, and asks the database again so
# often and so many times: a fence may be lifted without a new map.
STALE_LOOK_SECONDS = 0.005
STALE_PAUSE_SECONDS = 0.02
STALE_TRIES = 25
# How old may be what a connection knows of its server's slots: so late may a reader notice that a
# slot was handed over, when its map does not say so either.
OWNED_SECONDS = 0.25
FRESH = """
SELECT 1 FROM regionctl.slot_owner
WHERE slot = $1 AND state IN ('owned', 'fencing') AND epoch = $2
  AND $3::text::xid8 < pg_snapshot_xmin(pg_current_snapshot())
"""
OWNED = """
SELECT array_agg(slot) AS slots, array_agg(epoch) AS epochs FROM regionctl.slot_owner
WHERE state IN ('owned', 'fencing')
"""


@dataclass(frozen=True)
class Done(Generic[T]):
    """What the work returned, and where it was done."""

    value: T
    place: Placement
    endpoint: Endpoint


def of_user(user_id: int) -> Locate:
    return lambda shard_map: shard_map.locate(user_id)


def of_slot(slot: int) -> Locate:
    return lambda shard_map: shard_map.place(slot)


def of_shard(name: str) -> Locate:
    """Work on all that a shard owns. Raises `NotFound` where it owns nothing, or is no more."""

    def locate(shard_map: ShardMap) -> Placement:
        slots = shard_map.slots_of(name)
        if not slots:
            raise NotFound(f"Shard {name} owns no slots.")
        return shard_map.place(slots[0].first)

    return locate


def catalog(shard_map: ShardMap) -> Placement:
    """The catalog has one fence row, slot 0."""
    shard = shard_map.shards[CATALOG]
    return Placement(0, shard.epoch, shard)


class Shards:
    """Pools to every server in use. `budget` is how long a request may wait, in seconds."""

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        clock: Clock,
        *,
        budget: float = BUDGET_SECONDS,
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._clock = clock
        self._budget = budget
        self._pools: dict[Endpoint, Pool] = {}
        self._running: dict[asyncio.Task[object], Connection | None] = {}
        self._rest: dict[Endpoint, float] = {}
        self._absences = Absences(budget)
        # Whether a server of the newest map is a primary.
        self._roles: dict[Endpoint, bool] = {}
        routing.subscribe(self._on_map)

    async def write(self, locate: Locate, work: Work[T]) -> Done[T]:
        """Does `work` on the primary, at least once; it must be idempotent.

        Returns only after a commit that the standby has confirmed. Raises `Unavailable` when the
        budget is used up; the outcome is then unknown to the caller, who may ask again with the
        same key.
        """
        began = self._clock.monotonic()
        deadline = began + self._budget
        tries = 0
        while True:
            place, version = await self._locate(locate, deadline)
            deadline = (
                deadline if tries else began + self._absences.patience(place.shard.name, began)
            )
            task = asyncio.ensure_future(self._once(place.shard.primary, place, work))
            try:
                value = await self._outcome(task, deadline)
                self._absences.found(place.shard.name)
                return Done(value, place, place.shard.primary)
            except Exception as error:
                reason = transient(error)
                if reason is None:
                    raise
                await self._pause(place, version, reason, tries, deadline, error)
                tries += 1

    async def read(
        self,
        locate: Locate,
        work: Work[T],
        *,
        position: Position | None = None,
        any_copy: bool = False,
    ) -> Done[T]:
        """Does `work` on a copy that has everything up to `position`, or on the primary.

        Without a position only the primary will do, unless `any_copy` says that old data is
        good enough. Raises `Unavailable` when the budget is used up, and `TooEarly` when no map
        as new as `position` came within `NEWER_MAP_SECONDS`.
        """
        began = self._clock.monotonic()
        deadline = began + self._budget
        newer_by = began + min(self._budget, NEWER_MAP_SECONDS)
        tries = 0
        while True:
            place, version = await self._locate(locate, deadline)
            while position and position.newer_than(self._routing.map):
                left = newer_by - self._clock.monotonic()
                if not await self._routing.wait_for_newer(version, left):
                    raise position.unknown_to(place)
                place, version = await self._locate(locate, deadline)
            replica = self._replica(place)
            if replica and (any_copy or (position and position.epoch == place.epoch)):
                found = await self._from_replica(
                    replica, place, work, None if any_copy else position
                )
                if found is not None:
                    READS.labels("replica").inc()
                    return found
            elsewhere = position is not None and position.epoch != place.epoch
            checked = work if any_copy else self._owned(work, anew=elsewhere)
            deadline = (
                deadline if tries else began + self._absences.patience(place.shard.name, began)
            )
            task = asyncio.ensure_future(self._once(place.shard.primary, place, checked))
            try:
                value = await self._outcome(task, deadline)
                self._absences.found(place.shard.name)
                READS.labels("primary").inc()
                return Done(value, place, place.shard.primary)
            except Exception as error:
                reason = transient(error)
                if reason is None:
                    raise
                await self._pause(place, version, reason, tries, deadline, error)
                tries += 1

    def report(self) -> None:
        for pool in self._pools.values():
            pool.report()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.terminate()
        self._pools.clear()

    def pool(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = Pool(endpoint.instance, lambda: self._connect(endpoint), POOL_SIZE)
            self._pools[endpoint] = pool
        return pool

    async def _locate(self, locate: Locate, deadline: float) -> tuple[Placement, int]:
        if not self._routing.loaded:
            await self._routing.wait_for_newer(-1, deadline - self._clock.monotonic())
        shard_map = self._routing.map
        return locate(shard_map), shard_map.version

    async def _once(self, endpoint: Endpoint, place: Placement, work: Work[T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = None
        connection: Connection | None = None
        pool = self.pool(endpoint)
        try:
            connection = await pool.acquire()
            self._running[task] = connection
            connection.unreplicated = False
            with tracing.span(f"database {place.shard.name}", "client", _traced(endpoint, place)):
                value = await work(connection, place)
            if connection.unreplicated:
                raise Unreplicated
            return value
        except asyncio.CancelledError:
            if connection is not None:
                connection.terminate()
            raise
        finally:
            self._running.pop(task, None)
            if connection is not None:
                pool.release(connection)

    async def _outcome(self, task: asyncio.Task[T], deadline: float) -> T:
        """The task's result. A cancelled caller leaves it running; a late one is cut off."""
        task.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - self._clock.monotonic()))
        if not done:
            self._cut(task)
            raise TimeoutError
        if task.cancelled():
            raise ConnectionAbortedError("the attempt was cut off")
        return task.result()

    def _cut(self, task: asyncio.Task[T]) -> None:
        """Frees an attempt without cancelling what the server does for it."""
        connection = self._running.get(task)
        if connection is None:
            task.cancel()
        else:
            connection.terminate()

    async def _pause(
        self,
        place: Placement,
        version: int,
        reason: str,
        tries: int,
        deadline: float,
        error: Exception,
    ) -> None:
        RETRIES.labels(place.shard.name, reason).inc()
        now = self._clock.monotonic()
        if reason == LOST_SERVER:
            self._absences.lost(place.shard.name, now)
        left = deadline - now
        if left <= 0:
            raise Unavailable(
                f"Database {place.shard.name} did not answer within {self._budget:g} s ({reason}).",
                hint="Try again with the same Idempotency-Key: the request is done at most once.",
                runbook="database-failure",
            ) from error
        pause = PAUSES[min(tries, len(PAUSES) - 1)]
        if reason == STALE and tries < STALE_TRIES:
            pause = min(STALE_PAUSE_SECONDS, left)
            await self._routing.wait_for_newer(version, pause, every=STALE_LOOK_SECONDS)
        elif pause:
            await self._routing.wait_for_newer(version, min(pause, left))
        else:
            self._routing.refresh()

    def _replica(self, place: Placement) -> Endpoint | None:
        """The replica that is nearest: same zone, then same region."""
        now = self._clock.monotonic()
        near = [
            end
            for end in place.shard.replicas
            if end.region == self._settings.region and self._rest.get(end, 0.0) <= now
        ]
        return min(near, key=lambda end: end.zone != self._settings.zone, default=None)

    async def _from_replica(
        self, endpoint: Endpoint, place: Placement, work: Work[T], position: Position | None
    ) -> Done[T] | None:
        """What the replica says, or None when it is behind, gone or slow."""

        async def check_then_work(connection: Connection, place: Placement) -> Done[T] | None:
            if position is not None and not await connection.fetchval(
                FRESH, place.slot, place.epoch, str(position.xid)
            ):
                return None
            return Done(await work(connection, place), place, endpoint)

        task = asyncio.ensure_future(self._once(endpoint, place, check_then_work))
        try:
            return await self._outcome(task, self._clock.monotonic() + REPLICA_SECONDS)
        except Exception as error:
            if transient(error) is None:
                raise
            self._rest[endpoint] = self._clock.monotonic() + REPLICA_REST_SECONDS
            return None

    def _owned(self, work: Work[T], *, anew: bool) -> Work[T]:
        """`work`, on a server whose fence agrees with the map; `anew`: asked in any case.

        Without a lock, so what was handed over in the last `OWNED_SECONDS` may still be read here.
        """

        async def checked(connection: Connection, place: Placement) -> T:
            now = self._clock.monotonic()
            old = connection.owned_at is None or now - connection.owned_at > OWNED_SECONDS
            if anew or old or connection.owned.get(place.slot) != place.epoch:
                row = await connection.fetchrow(OWNED)
                assert row is not None
                slots, epochs = row["slots"] or (), row["epochs"] or ()
                connection.owned = dict(zip(slots, epochs, strict=True))
                connection.owned_at = now
            if connection.owned.get(place.slot) != place.epoch:
                raise NotOwner
            return await work(connection, place)

        return checked

    def _on_map(self, shard_map: ShardMap) -> None:
        """Cuts the pools of servers that are not what they were: their requests start anew."""
        roles: dict[Endpoint, bool] = {}
        for shard in shard_map.shards.values():
            roles.update(dict.fromkeys(shard.replicas, False))
            roles[shard.primary] = True
        before, self._roles = self._roles, roles
        for endpoint in list(self._pools):
            if endpoint not in roles or roles[endpoint] != before.get(endpoint):
                self._pools.pop(endpoint).terminate()
        self._rest.clear()

    async def _connect(self, endpoint: Endpoint) -> Connection:
        connection = await asyncpg.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=self._settings.service,
            password=self._settings.database_password,
            database=DATABASE,
            ssl=self._settings.trust or False,
            timeout=CONNECT_SECONDS,
            connection_class=Connection,
            server_settings={"application_name": self._settings.instance},
        )
        connection.add_log_listener(Connection.watch)
        return connection


def _traced(endpoint: Endpoint, place: Placement) -> tracing.Attributes:
    return {
        "db.system.name": "postgresql",
        "db.namespace": place.shard.name,
        "server.address": endpoint.instance,
        "regionctl.epoch": place.epoch,
    }


def _retrieve(task: asyncio.Task[T]) -> None:
    """Nobody may be left to look at the outcome; that is no news for the log."""
    if not task.cancelled():
        task.exception()
