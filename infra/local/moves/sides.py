"""The two databases of a move as they stand now, and its slots as SQL sees them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from infra.local.monitor import Monitor
from runtime.errors import OperationFailed, Unavailable
from runtime.shardmap import SLOTS, Move, ShardMap

# Every table that has a user's rows. `user_id` leads each primary key, so that a publication may
# filter by it and say which row an UPDATE or DELETE was about.
TABLES = ("users", "orders", "order_items", "outbox", "sessions", "payments", "notifications")
SLOT = f"crc32(int8send(user_id)) % {SLOTS}"

# The servers end a session that holds a lock and says nothing for so long: its control plane may be
# frozen, and whoever takes over waits for that lock.
IDLE_MILLISECONDS = 2000

# Read-only after all; the session was ended as it held a lock and said nothing.
_GONE = ("25006", "25P03")

Direction = Literal["fwd", "rev"]
Ranges = tuple[tuple[int, int], ...]

_WHERE = """
SELECT pg_is_in_recovery() AS standby,
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END AS timeline
"""


@dataclass(frozen=True)
class Side:
    """The primary of one shard, with a connection to it. A failover changes its timeline."""

    shard: str
    instance: str
    timeline: int
    connection: Any


@dataclass(frozen=True)
class Sides:
    move: Move
    source: Side
    target: Side

    @property
    def slots(self) -> range:
        return range(self.move.first, self.move.last + 1)

    def hang_up(self) -> None:
        """Both connections end at once, without a goodbye that would be waited for."""
        self.source.connection.terminate()
        self.target.connection.terminate()

    def flow(self, direction: Direction) -> tuple[Side, Side]:
        """(publisher, subscriber) of the stream."""
        return (self.source, self.target) if direction == "fwd" else (self.target, self.source)


@contextlib.asynccontextmanager
async def opened(monitor: Monitor, move: Move, shard_map: ShardMap) -> AsyncIterator[Sides]:
    """A connection to each primary. Raises `Unavailable` when one is gone or no primary."""
    async with (
        _losses(),
        monitor.session(shard_map.shards[move.source].primary.instance) as source,
        monitor.session(shard_map.shards[move.target].primary.instance) as target,
    ):
        yield Sides(
            move,
            await _side(shard_map, move.source, source),
            await _side(shard_map, move.target, target),
        )


@contextlib.asynccontextmanager
async def _losses() -> AsyncIterator[None]:
    """What a server says when it goes away is `Unavailable`: a failover, after which to repeat."""
    try:
        yield
    except OperationFailed as error:
        state = getattr(error.__cause__, "sqlstate", None) or ""
        if state in _GONE or state[:2] in ("08", "57"):
            raise Unavailable(error.detail, hint="regionctl status", extra=error.extra) from error
        raise


async def _side(shard_map: ShardMap, shard: str, connection: Any) -> Side:
    instance = shard_map.shards[shard].primary.instance
    await limit_idling(connection)
    row = await connection.fetchrow(_WHERE)
    if row["standby"]:
        raise Unavailable(
            f"{instance} is not the primary of {shard} that the map says it is.",
            hint="A failover may be on its way: regionctl status",
        )
    return Side(shard, instance, row["timeline"], connection)


async def limit_idling(connection: Any) -> None:
    await connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")


def ranges_of(slots: Iterable[int]) -> Ranges:
    """The slots as runs (first, last)."""
    runs: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if runs and runs[-1][1] == slot - 1:
            runs[-1] = (runs[-1][0], slot)
        else:
            runs.append((slot, slot))
    return tuple(runs)


def within(ranges: Ranges) -> str:
    """The SQL condition that a row's user is in one of the ranges."""
    return " OR ".join(f"{SLOT} BETWEEN {first} AND {last}" for first, last in ranges) or "false"
