"""What must hold before a move begins: room, no old transaction, equal tables, empty slots."""

from __future__ import annotations

import asyncio
import shutil

from infra.local.cluster import CLOCK
from infra.local.moves import sizes, streams
from infra.local.moves.sides import TABLES, Side, Sides, ranges_of, within
from infra.local.site import Site
from runtime.errors import Refused, Unavailable
from runtime.shardmap import ShardMap

# A copy is written twice, to the WAL and to the tables, and the WAL waits for the replicas.
ROOM = 3
# Besides, what a database should never have less of.
SPARE_BYTES = 256 * 2**20
OLD_SECONDS = 0.25
OLD_TRIES = 4
_COLUMNS = """
SELECT c.relname AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS required, a.attgenerated::text AS generated
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY($1::text[])
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY 1, 2
"""
_WITHOUT_IDENTITY = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY($1::text[])
  AND NOT (c.relreplident = 'f' OR EXISTS (
      SELECT FROM pg_index i JOIN pg_attribute a
          ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey) AND a.attname = 'user_id'
      WHERE i.indrelid = c.oid
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END))
"""
# Transactions that write or that hold a slot's guard; what only reads holds up nobody.
_OLD = """
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start) AS age, usename
FROM pg_stat_activity a
WHERE xact_start < clock_timestamp() - make_interval(secs => $1) AND pid <> pg_backend_pid()
  AND backend_type = 'client backend'
  AND (backend_xid IS NOT NULL OR EXISTS (
      SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.classid = 7411))
UNION ALL
SELECT 0, extract(epoch FROM clock_timestamp() - prepared), owner FROM pg_prepared_xacts
ORDER BY age DESC LIMIT 1
"""
_SYNC = """
SELECT count(*) FROM pg_stat_replication
WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')
"""
_SETTINGS = """
SELECT current_setting('wal_level') AS level,
       current_setting('max_replication_slots')::int
           - (SELECT count(*) FROM pg_replication_slots) AS slots,
       current_setting('max_active_replication_origins')::int
           - (SELECT count(*) FROM pg_replication_origin) AS origins
"""


async def check(site: Site, sides: Sides, shard_map: ShardMap) -> None:
    """See `Moves.check`. Changes nothing."""
    _placed(sides, shard_map)
    for side in (sides.source, sides.target):
        await _server(side, shard_map)
    await same_tables(sides)
    if (await streams.look(site, sides, "fwd")).problem is None:
        return  # set up already: the rows that are there are the stream's
    await _empty(sides)
    await _room(site, sides)
    for side in (sides.source, sides.target):
        await _no_old_transaction(side)


def _placed(sides: Sides, shard_map: ShardMap) -> None:
    mine = {sides.source.shard, sides.target.shard}
    for slot in sides.slots:
        owner = shard_map.place(slot).shard.name
        if owner not in mine:
            raise Refused(
                f"Slot {slot} belongs to {owner}, not to {sides.source.shard}.",
                hint="Plan again: regionctl shard plan",
            )


async def _server(side: Side, shard_map: ShardMap) -> None:
    found = await side.connection.fetchrow(_SETTINGS)
    if found["level"] != "logical":
        raise Refused(
            f"{side.instance} runs with wal_level {found['level']}; moves need logical.",
            hint="Its settings are older than this version: regionctl down, then regionctl up.",
            extra={"instance": side.instance},
        )
    # Two streams, and a slot and an origin for each of two tables that are copied at a time.
    if min(found["slots"], found["origins"]) < 6:
        raise Refused(
            f"{side.instance} has no free replication slots or origins for another move.",
            hint="Finish a move that rests: regionctl shard finish",
            extra={"instance": side.instance},
        )
    if not shard_map.shards[side.shard].sync or not await side.connection.fetchval(_SYNC):
        raise Unavailable(
            f"{side.shard} has no standby in sync: a failover would lose what is moved.",
            hint="regionctl up brings it back.",
            extra={"shard": side.shard},
        )


async def same_tables(sides: Sides) -> None:
    """Raises `Refused` when a table has other columns on one side: its rows would not arrive, or
    arrive without a column. Also while a move is under way, when somebody may change a schema."""
    ours, theirs = [
        [tuple(row) for row in await side.connection.fetch(_COLUMNS, list(TABLES))]
        for side in (sides.source, sides.target)
    ]
    different = sorted({row[0] for row in set(ours) ^ set(theirs)})
    if different or not ours:
        raise Refused(
            f"{', '.join(different) or 'All tables'} of {sides.source.shard} and "
            f"{sides.target.shard} have not the same columns.",
            hint="regionctl up brings every database to the newest schema.",
        )
    for side in (sides.source, sides.target):
        lacking = await side.connection.fetch(_WITHOUT_IDENTITY, list(TABLES))
        if lacking:
            raise Refused(
                f"{lacking[0][0]} of {side.shard} has no user_id in its replica identity: its "
                "updates would fail.",
                hint="Every primary key begins with user_id.",
            )


async def _empty(sides: Sides) -> None:
    """The target has no row of the slots, and owns none of them."""
    connection = sides.target.connection
    owned = await connection.fetchval(
        "SELECT count(*) FROM regionctl.slot_owner "
        "WHERE slot = ANY($1::int[]) AND state IN ('owned', 'fencing')",
        list(sides.slots),
    )
    if owned:
        return  # the move was under way before: its rows are the stream's
    for table in TABLES:
        condition = within(ranges_of(sides.slots))
        if await connection.fetchval(f"SELECT 1 FROM public.{table} WHERE {condition} LIMIT 1"):  # noqa: S608
            raise Refused(
                f"{sides.target.shard} has rows of these slots in {table} that it does not own.",
                hint="An earlier move left them: regionctl shard finish",
                extra={"shard": sides.target.shard, "table": table},
            )


async def _room(site: Site, sides: Sides) -> None:
    found = await sizes.sizes(sides.source.connection)
    needed = ROOM * sum(found.get(slot, (0, 0))[1] for slot in sides.slots) + SPARE_BYTES
    folder = site.pgdata(sides.target.instance)
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
    if free < needed:
        raise Refused(
            f"{sides.target.instance} has {free >> 20} MB of disk free; the copy needs "
            f"{needed >> 20} MB.",
            hint="Make room on the disk, or move fewer slots.",
            extra={"instance": sides.target.instance, "free": free, "needed": needed},
        )


async def _no_old_transaction(side: Side) -> None:
    row = None
    for _ in range(OLD_TRIES):
        row = await side.connection.fetchrow(_OLD, OLD_SECONDS)
        if row is None:
            return
        await CLOCK.sleep(OLD_SECONDS)
    assert row is not None
    raise Refused(
        f"{side.instance} has a transaction that has been open for {row['age']:.1f} s "
        f"(user {row['usename']}, pid {row['pid']}): no stream can begin and no fence be drained.",
        hint="End it, then repeat the command.",
        extra={"instance": side.instance, "pid": row["pid"]},
    )
