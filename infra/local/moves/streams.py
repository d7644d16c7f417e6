"""The two streams of a move: publications, replication slots, subscriptions, and their health.

A replication slot is lost with its primary, and a promoted standby may lack what a subscriber has
already applied. So a slot's name says under which timelines of both sides it was made; a stream
whose name says another one than is there now is broken, however well it runs. The name also has
the attempt, so nobody who wakes up late makes again, at a later position, a slot that is in use.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import asyncpg

from infra.local import layout as files
from infra.local import postgres
from infra.local.cluster import CLOCK
from infra.local.moves.sides import TABLES, Direction, Ranges, Side, Sides, within
from infra.local.postgres import DATABASE, REPLICATION
from infra.local.site import Site
from runtime.clock import wait_until
from runtime.errors import Refused

SLOT_SECONDS = 20.0
# A copy that fails so often does not fail by chance.
COPY_TRIES = 3
HELD = "held"
_SUBSCRIPTION = """
SELECT s.oid, s.subenabled AS enabled, s.subslotname AS slot, s.subconninfo AS conninfo,
       coalesce(obj_description(s.oid, 'pg_subscription'), '') = 'held' AS held,
       (SELECT coalesce(json_object_agg(c.relname, r.srsubstate), '{}')
        FROM pg_subscription_rel r JOIN pg_class c ON c.oid = r.srrelid
        WHERE r.srsubid = s.oid)::text AS states,
       coalesce(row_to_json(t), '{}')::text AS counted
FROM pg_subscription s LEFT JOIN pg_stat_subscription_stats t ON t.subid = s.oid
WHERE s.subname = $1 AND s.subdbid = (SELECT oid FROM pg_database
                                      WHERE datname = current_database())
"""
_SLOT = """
SELECT pg_current_wal_lsn() - confirmed_flush_lsn AS lag, wal_status, invalidation_reason
FROM pg_replication_slots WHERE slot_name = $1
"""
_COVERED = """
SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = $1
"""
# Slots of this stream, and those of a table's first copy whose subscription is gone.
_SLOTS = """
SELECT slot_name, active_pid FROM pg_replication_slots
WHERE slot_name LIKE $1 OR slot_name ~ $2
"""
# Rows that the subscriber lacked or had already: what `disable_on_error` does not stop at.
_SILENT = ("confl_update_missing", "confl_delete_missing")


@dataclass(frozen=True)
class Stream:
    """One direction as it is. `states` is table → state of its copy; `r` means that it follows.

    `problem` is None while nothing is wrong. `conflict`: the subscriber had other rows than it
    should, and both sides were left as they are. `interrupted`: it stopped for another reason (a
    connection that was cut), and can go on.
    """

    problem: str | None
    states: dict[str, str]
    lag_bytes: int | None = None
    covered: Ranges = ()
    held: bool = False
    interrupted: bool = False
    conflict: bool = False

    @property
    def ready(self) -> bool:
        return self.problem is None and set(self.states.values()) == {"r"}


def name_of(sides: Sides, direction: Direction) -> str:
    return f"move_{sides.move.id}_{direction}"


def slot_name(sides: Sides, direction: Direction, attempt: int) -> str:
    publisher, subscriber = sides.flow(direction)
    return f"{name_of(sides, direction)}_{attempt}_{publisher.timeline}_{subscriber.timeline}"


def conninfo(site: Site, sides: Sides, direction: Direction) -> str:
    """How the subscriber's server reaches the publisher. The password is in a file of its data
    directory, which is also the folder that it works in."""
    publisher, subscriber = sides.flow(direction)
    return (
        f"{postgres.dial(site, subscriber.instance, publisher.instance)} dbname={DATABASE} "
        f"user={REPLICATION} passfile=pgpass application_name={name_of(sides, direction)} "
        "connect_timeout=3 keepalives_idle=5 keepalives_interval=2 keepalives_count=3"
    )


def write_passfile(site: Site, instance: str) -> None:
    """The same file that a standby has."""
    text = f"*:*:*:{REPLICATION}:{site.secrets.replication}\n"
    files.replace_file(site.pgdata(instance) / "pgpass", text, owner=site.user)


async def look(site: Site, sides: Sides, direction: Direction) -> Stream:
    """The stream as both sides show it now."""
    publisher, subscriber = sides.flow(direction)
    row = await subscriber.connection.fetchrow(_SUBSCRIPTION, name_of(sides, direction))
    text = await publisher.connection.fetchval(_COVERED, name_of(sides, direction))
    if row is None or text is None:
        return Stream("the stream is not set up", {})
    states = json.loads(row["states"])
    slot = await publisher.connection.fetchrow(_SLOT, row["slot"])
    covered = tuple((first, last) for first, last in json.loads(text))
    lag = None if slot is None or slot["lag"] is None else max(0, int(slot["lag"]))
    lost = _lost(sides, direction, row, slot)
    stopped, conflict = _stopped(sides, direction, row)
    return Stream(
        lost or stopped,
        states,
        lag,
        covered,
        bool(row["held"]),
        interrupted=not lost and stopped is not None and not conflict,
        conflict=not lost and conflict,
    )


def _stopped(sides: Sides, direction: Direction, row: Any) -> tuple[str | None, bool]:
    """Why it does not go on by itself, and whether that is a conflict."""
    _, subscriber = sides.flow(direction)
    counted = json.loads(row["counted"])
    conflicts = [
        f"{name.removeprefix('confl_')} {count}"
        for name, count in counted.items()
        if name.startswith("confl_") and count
    ]
    errors = counted.get("apply_error_count", 0) + counted.get("sync_error_count", 0)
    if not row["enabled"] and not row["held"]:
        if counted.get("sync_error_count", 0) >= COPY_TRIES:
            conflicts.append("the copy of a table failed again and again, see its log")
        if conflicts:
            said = ", ".join(conflicts)
            return f"conflict: the stream to {subscriber.instance} stopped: {said}", True
        return f"the stream to {subscriber.instance} was interrupted (errors: {errors})", False
    if any(counted.get(name) for name in _SILENT):
        return f"conflict: rows are missing on {subscriber.instance} ({', '.join(conflicts)})", True
    return None, False


def _lost(sides: Sides, direction: Direction, row: Any, slot: Any) -> str | None:
    """Why the stream can never go on from where it was."""
    publisher, subscriber = sides.flow(direction)
    made = re.fullmatch(rf"{name_of(sides, direction)}_\d+_(\d+)_(\d+)", row["slot"] or "")
    if made is None or (int(made[1]), int(made[2])) != (publisher.timeline, subscriber.timeline):
        return "another primary has taken over since the stream began"
    if slot is None or slot["wal_status"] == "lost" or slot["invalidation_reason"]:
        return f"{publisher.instance} no longer keeps what the stream still needs"
    return None


async def publish(sides: Sides, direction: Direction, ranges: Ranges) -> None:
    """The publication shows the rows of `ranges`, also when it showed others before."""
    publisher, _ = sides.flow(direction)
    name, connection = name_of(sides, direction), publisher.connection
    tables = ", ".join(
        (
            *(f"public.{table} WHERE ({within(ranges)})" for table in TABLES),
            f"regionctl.fence WHERE (move_id = {sides.move.id})",
        )
    )
    async with connection.transaction():
        if await connection.fetchval("SELECT 1 FROM pg_publication WHERE pubname = $1", name):
            await connection.execute(f"ALTER PUBLICATION {name} SET TABLE {tables}")
        else:
            await connection.execute(
                f"CREATE PUBLICATION {name} FOR TABLE {tables} "
                "WITH (publish = 'insert,update,delete')"
            )
        await connection.execute(f"COMMENT ON PUBLICATION {name} IS '{json.dumps(ranges)}'")


async def grant(side: Side) -> None:
    """The role that streams may read what is published."""
    readable = "SELECT has_table_privilege($1, 'regionctl.fence', 'SELECT')"
    if not await side.connection.fetchval(readable, REPLICATION):
        tables = ", ".join(f"public.{table}" for table in TABLES)
        async with side.connection.transaction():
            await side.connection.execute(f"GRANT USAGE ON SCHEMA regionctl TO {REPLICATION}")
            await side.connection.execute(
                f"GRANT SELECT ON {tables}, regionctl.fence TO {REPLICATION}"
            )


async def make_slot(sides: Sides, direction: Direction, attempt: int) -> None:
    """The publisher keeps its WAL for the stream from here on.

    Raises `Refused` when a transaction that writes does not end: a slot begins behind all of them.
    """
    publisher, _ = sides.flow(direction)
    name = slot_name(sides, direction, attempt)
    try:
        await publisher.connection.execute(
            f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')",
            timeout=SLOT_SECONDS,
        )
    except TimeoutError as error:
        raise Refused(
            f"{publisher.instance} has a transaction that did not end in {SLOT_SECONDS:g} s: "
            "no stream can begin.",
            hint="End it (pg_stat_activity), then repeat the command.",
            extra={"instance": publisher.instance},
        ) from error


async def subscribe(
    site: Site, sides: Sides, direction: Direction, attempt: int, *, copy: bool
) -> None:
    """The subscriber follows, after a copy of all that is published when `copy` says so.

    Its commits wait for nobody, which keeps it quick. The new owner's commit does wait, and by
    then the standby has every row before it; and the publisher keeps what is not yet on disk.
    """
    _, subscriber = sides.flow(direction)
    name = name_of(sides, direction)
    await subscriber.connection.execute(
        f"CREATE SUBSCRIPTION {name} CONNECTION '{conninfo(site, sides, direction)}' "
        f"PUBLICATION {name} WITH (create_slot = false, "
        f"slot_name = '{slot_name(sides, direction, attempt)}', "
        f"copy_data = {'true' if copy else 'false'}, origin = none, binary = true, "
        "streaming = off, disable_on_error = true, synchronous_commit = 'off')"
    )


async def go_on(site: Site, sides: Sides, direction: Direction) -> None:
    """The subscription dials where the publisher is now, and runs again if it was interrupted."""
    _, subscriber = sides.flow(direction)
    row = await subscriber.connection.fetchrow(_SUBSCRIPTION, name_of(sides, direction))
    wanted = conninfo(site, sides, direction)
    if row["conninfo"] != wanted:
        await subscriber.connection.execute(
            f"ALTER SUBSCRIPTION {name_of(sides, direction)} CONNECTION '{wanted}'"
        )
    if not row["enabled"] and not row["held"]:
        await subscriber.connection.execute(
            f"ALTER SUBSCRIPTION {name_of(sides, direction)} ENABLE"
        )


async def hold(sides: Sides, direction: Direction, *, on: bool) -> None:
    """The subscription stops for a while; a table whose first copy runs is copied to its end."""
    _, subscriber = sides.flow(direction)
    name, connection = name_of(sides, direction), subscriber.connection
    async with connection.transaction():
        note = f"'{HELD}'" if on else "NULL"
        await connection.execute(f"COMMENT ON SUBSCRIPTION {name} IS {note}")
        await connection.execute(f"ALTER SUBSCRIPTION {name} {'DISABLE' if on else 'ENABLE'}")


async def drop(sides: Sides, direction: Direction) -> None:
    """Nothing of this direction is left on either side. The rows stay."""
    publisher, subscriber = sides.flow(direction)
    name = name_of(sides, direction)
    row = await subscriber.connection.fetchrow(_SUBSCRIPTION, name)
    if row is not None:
        # Without its slot's name it is dropped whatever became of the publisher.
        await subscriber.connection.execute(f"ALTER SUBSCRIPTION {name} DISABLE")
        await subscriber.connection.execute(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
        await subscriber.connection.execute(f"DROP SUBSCRIPTION {name}")
    await _drop_slots(publisher, subscriber, name)
    await publisher.connection.execute(f"DROP PUBLICATION IF EXISTS {name}")


async def _drop_slots(publisher: Side, subscriber: Side, name: str) -> None:
    system = await subscriber.connection.fetchval(
        "SELECT system_identifier FROM pg_control_system()"
    )
    # Slots first: a subscription is there before its slots are.
    copies = rf"^pg_\d+_sync_\d+_{system}$"
    pattern = name.replace("_", r"\_") + r"\_%"
    found = await publisher.connection.fetch(_SLOTS, pattern, copies)
    living = {
        row["oid"] for row in await subscriber.connection.fetch("SELECT oid FROM pg_subscription")
    }
    for row in found:
        slot = row["slot_name"]
        if slot.startswith("pg_") and int(slot.split("_")[1]) in living:
            continue
        await _drop_slot(publisher, slot)


async def _drop_slot(publisher: Side, slot: str) -> None:
    """Whoever still reads from it is ended first."""

    async def gone() -> bool:
        try:
            await publisher.connection.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = $1 AND active_pid IS NOT NULL",
                slot,
            )
            await publisher.connection.execute("SELECT pg_drop_replication_slot($1)", slot)
        except asyncpg.ObjectInUseError:
            return False
        except asyncpg.UndefinedObjectError:
            pass
        return True

    await wait_until(CLOCK, gone, what=f"replication slot {slot} to be free", seconds=10)
