"""Two shards of real servers, and writers that follow the map as the services do."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg

from infra.local import layout, leftovers
from infra.local.moves import LocalMoves
from infra.local.provider import LocalProvider
from infra.topology import load
from runtime.clock import SystemClock, wait_until
from runtime.errors import Refused
from runtime.shardmap import Move, Shard, ShardMap, SlotRange, slot_of
from tests.ports import free_offset

S1, S1B, S2, S2B = "s1.us-east-1a", "s1.us-east-1b", "s2.us-east-1a", "s2.us-east-1b"
FIRST, LAST = 512, 575
BATCH = 16
BUDGET = 0.25
_serials = itertools.count(1)
INSERT_USER = (
    "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at) "
    "VALUES ($1, $2, 'Test', 'key', '', clock_timestamp())"
)
INSERT_ORDER = (
    "INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency, "
    "total_cents, created_at, keywords) VALUES ($1, $2, $3, '', 'placed', 'USD', 0, "
    "clock_timestamp(), 'tea pot') ON CONFLICT DO NOTHING"
)


def users_of(first: int, last: int, count: int) -> list[int]:
    """The first `count` user ids whose slot is in the range."""
    found: list[int] = []
    user = 1
    while len(found) < count:
        if first <= slot_of(user) <= last:
            found.append(user)
        user += 1
    return found


@dataclass
class Pair:
    """s1 and s2, each with a standby in sync; s1 owns everything at first."""

    provider: LocalProvider
    moves: LocalMoves
    map: ShardMap

    def connect(self, instance: str, role: str = "regionctl") -> Any:
        secrets = self.provider.site.secrets
        known = {"regionctl": secrets.superuser, **secrets.databases()}
        return asyncpg.connect(
            host="127.0.0.1",
            port=self.provider.site.port(instance),
            user=role,
            password=known[role],
            database="app",
            ssl=False,
            timeout=5,
        )

    def primary(self, shard: str) -> str:
        return self.map.shards[shard].primary.instance

    async def ask(self, instance: str, query: str, *arguments: Any) -> Any:
        connection = await self.connect(instance)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            connection.terminate()

    async def run(self, instance: str, query: str, *arguments: Any) -> None:
        await self.ask(instance, query, *arguments)

    def begin(self, first: int = FIRST, last: int = LAST) -> Move:
        move = Move(self.map.version + 1, "s1", "s2", first, last)
        self.map = self.map.with_move(move)
        return move

    async def ready(self, move: Move, seconds: float = 60) -> None:
        """Both directions follow. A stream that was merely interrupted is told to go on."""

        async def copied() -> bool:
            found = await self.moves.progress(move, self.map)
            if not found.healthy:
                print(found.problem, *self.provider.site.tail(self.primary("s2"), 20), sep="\n")
                assert "interrupted" in (found.problem or "")
                await self.moves.start(move, self.map)
            return found.ready

        await wait_until(SystemClock(), copied, what="copy", seconds=seconds)

    async def owners(self, slots: range) -> dict[str, set[int]]:
        """state of each slot by shard: which slots are owned where."""
        found = {}
        for shard in ("s1", "s2"):
            rows = await self.ask(
                self.primary(shard),
                "SELECT array_agg(slot) FROM regionctl.slot_owner "
                "WHERE state = 'owned' AND slot = ANY($1::int[])",
                list(slots),
            )
            found[shard] = set(rows or ())
        return found

    async def left_behind(self, instance: str) -> dict[str, int]:
        """Everything of moves that a server could still have."""
        counts = {}
        for table in (
            "pg_publication",
            "pg_subscription",
            "pg_replication_slots WHERE slot_type = 'logical'",
            "pg_replication_origin",
            "regionctl.fence",
        ):
            counts[table] = await self.ask(instance, f"SELECT count(*) FROM {table}")
        return counts


Run = Callable[[Callable[[Pair], Coroutine[Any, Any, Any]]], Any]


@contextmanager
def pair() -> Iterator[Run]:
    """Runs functions on a pair; the map and the servers live on between them."""
    folder = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    folder.chmod(0o711)
    root = folder / "state"
    topology = replace(load("two-regions"), shards=("s1", "s2"), services=("orders",))
    kept: dict[str, ShardMap] = {}
    try:
        offset = free_offset()
        layout.create(root, topology=topology.name, document="", port_offset=offset)

        def run(work: Callable[[Pair], Coroutine[Any, Any, Any]]) -> Any:
            async def main() -> Any:
                provider = LocalProvider(topology, root)
                moves = LocalMoves(provider.site, provider.monitor, provider.cluster)
                if "map" not in kept:
                    kept["map"] = await _provision(provider)
                used = Pair(provider, moves, kept["map"])
                try:
                    return await work(used)
                finally:
                    kept["map"] = used.map
                    await moves.close()
                    await provider.close()

            return asyncio.run(main())

        yield run
    finally:
        leftovers.end(root)
        shutil.rmtree(folder)


async def _provision(provider: LocalProvider) -> ShardMap:
    await provider.ensure_region("us-east-1")
    shards = {}
    for name, primary, standby in (("s1", S1, S1B), ("s2", S2, S2B)):
        end, other = provider.endpoint(primary), provider.endpoint(standby)
        shards[name] = Shard(name, 1, "us-east-1", end, (other,), (standby,))
    shard_map = ShardMap(1, (SlotRange(0, 1023, "s1", 1),), shards, {})
    for name, primary, standby in (("s1", S1, S1B), ("s2", S2, S2B)):
        await provider.create_primary(primary)
        await provider.set_epoch(primary, shard_map, name)
        await provider.clone(standby, primary)
        await provider.set_sync(primary, [standby])
    return shard_map


def batches() -> Iterator[range]:
    for first in range(FIRST, LAST + 1, BATCH):
        yield range(first, first + BATCH)


async def seed(pair: Pair, users: Sequence[int]) -> None:
    for user in users:
        await pair.run(
            pair.primary("s1"), f"{INSERT_USER} ON CONFLICT DO NOTHING", user, f"{user}@x"
        )


async def hand_over(pair: Pair, move: Move, slots: range, *, back: bool = False) -> float:
    """Hands over as the step does it, tried again when refused; returns the pause in seconds."""
    for left in itertools.count(5, -1):
        try:
            done = await pair.moves.hand_over(
                move, pair.map, slots, budget_seconds=BUDGET, back=back
            )
            break
        except Refused:
            if not left:
                raise
    shard = "s1" if back else "s2"
    pair.map = pair.map.with_slots(slots[0], slots[-1], shard, done.epoch)
    return done.pause.seconds if done.pause else 0.0


async def check_equal(pair: Pair, move: Move, slots: range) -> None:
    compared = await pair.moves.compare(move, pair.map, slots)
    assert compared.equal, compared


@asynccontextmanager
async def under_way(pair: Pair) -> AsyncIterator[Move]:
    """A move that is set up, and at the end taken back and finished."""
    move = pair.begin()
    await pair.moves.start(move, pair.map)
    await pair.ready(move)
    yield move
    for slots in batches():
        if (await pair.owners(slots))["s2"]:
            await hand_over(pair, move, slots, back=True)
    await end_move(pair, move)


async def end_move(pair: Pair, move: Move) -> None:
    await pair.moves.finish(move, pair.map)
    pair.map = pair.map.without_move(move.id)
    for shard in ("s1", "s2"):
        left = await pair.left_behind(pair.primary(shard))
        assert set(left.values()) == {0}, left
    assert await pair.ask(pair.primary("s2"), "SELECT count(*) FROM users") == 0


@dataclass
class Writers:
    """`count` clients that place and change orders, and try again inside a request when a shard
    refuses them. They learn of a new map `delay` seconds late."""

    pair: Pair
    users: list[int]
    count: int = 8
    delay: float = 0.03
    pace: float = 0.01
    acknowledged: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    retries: int = 0
    slowest: float = 0.0
    _stop: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _map: ShardMap | None = None

    async def __aenter__(self) -> Writers:
        self._map = self.pair.map
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(self.count)]
        self._tasks.append(asyncio.create_task(self._follow()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def more(self, rows: int) -> None:
        """Until so many more writes are acknowledged."""
        wanted = len(self.acknowledged) + rows

        async def enough() -> bool:
            return len(self.acknowledged) >= wanted or bool(self.failed)

        await wait_until(SystemClock(), enough, what=f"{rows} writes", seconds=60)

    async def _follow(self) -> None:
        while not self._stop:
            newest = self.pair.map
            await asyncio.sleep(self.delay)
            self._map = newest

    async def _write(self, number: int) -> None:
        connections: dict[str, Any] = {}
        serial = 0
        try:
            while not self._stop:
                serial += 1
                user = self.users[(number + serial * self.count) % len(self.users)]
                id = next(_serials) << 22
                began = time.monotonic()
                while not await self._attempt(connections, user, id):
                    self.retries += 1
                    if time.monotonic() - began > 8:
                        self.failed.append(f"order {id} of user {user}")
                        return
                    await asyncio.sleep(0.005)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.acknowledged.add(id)
                await asyncio.sleep(self.pace)
        finally:
            for connection in connections.values():
                connection.terminate()

    async def _attempt(self, connections: dict[str, Any], user: int, id: int) -> bool:
        assert self._map is not None
        place = self._map.locate(user)
        instance = place.shard.primary.instance
        try:
            if instance not in connections:
                connections[instance] = await self.pair.connect(instance, "orders")
            connection = connections[instance]
            async with connection.transaction():
                await connection.execute("SELECT regionctl.guard($1, $2)", place.slot, place.epoch)
                await connection.execute(INSERT_ORDER, user, id, str(id))
                await connection.execute(
                    "UPDATE orders SET version = version + 1 WHERE user_id = $1 AND id = $2",
                    user,
                    id,
                )
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            state = getattr(error, "sqlstate", None) or "08000"
            if state not in ("RG001", "25006") and state[:2] not in ("08", "57"):
                self.failed.append(f"{state} {error}")
            if state != "RG001" and instance in connections:
                connections.pop(instance).terminate()
            return False
        return True

    async def check(self) -> None:
        """Every acknowledged order is there once, with the shard that owns it."""
        assert self.failed == []
        found: list[int] = []
        for shard in ("s1", "s2"):
            owned = {
                slot
                for each in self.pair.map.slots_of(shard)
                for slot in range(each.first, each.last + 1)
            }
            connection = await self.pair.connect(self.pair.primary(shard))
            try:
                rows = await connection.fetch("SELECT user_id, id FROM orders")
            finally:
                connection.terminate()
            found += [row["id"] for row in rows if slot_of(row["user_id"]) in owned]
        assert len(found) == len(set(found))
        assert self.acknowledged - set(found) == set()
