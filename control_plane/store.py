"""What the control plane knows for good: operations, shard maps, failovers, reports, events.

The newest shard map is the one record of who is primary, who is in sync and under which epoch;
every other copy (the services' files, the fence rows) is made from it. Its version is never
lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from control_plane import records, rows
from control_plane.access import Asked
from control_plane.database import connect
from control_plane.events import Event
from control_plane.operation_log import OperationLog
from runtime.clock import Clock
from runtime.errors import NotFound, Refused
from runtime.shardmap import ShardMap

JSON = dict[str, Any]
_NEWEST_MAP = (
    select(records.shard_map.c.document).order_by(records.shard_map.c.version.desc()).limit(1)
)


class FailoverRecord(TypedDict):
    """`acknowledged`: an operator has seen it, so the next automatic one need not wait."""

    database: str
    kind: str
    operation: str
    at: datetime
    acknowledged: bool


class Store(OperationLog):
    async def shard_map(self) -> ShardMap | None:
        """The newest map; None before the first `provision`."""
        async with self.database.read() as connection:
            return await _newest_map(connection)

    async def maps_since(self, version: int) -> list[ShardMap]:
        """The maps from `version` on, oldest first, and the one that was the newest before it."""
        table = records.shard_map
        first = select(func.max(table.c.version)).where(table.c.version <= version)
        query = (
            select(table.c.document)
            .where(table.c.version >= func.coalesce(first.scalar_subquery(), version))
            .order_by(table.c.version)
        )
        async with self.database.read() as connection:
            return [ShardMap.from_json(each) for each in await connection.scalars(query)]

    async def save_map(self, map: ShardMap, reason: str) -> ShardMap:
        """Makes `map` the newest; the map that is the newest already is left as it is.

        Raises `Refused` when another map of this or a higher version exists: then it was made
        from an old one. `update_map` cannot meet that.
        """

        def change(current: ShardMap | None) -> ShardMap:
            if current is not None and current != map and map.version <= current.version:
                raise Refused(
                    f"Shard map version {map.version} was made from an old map; "
                    f"the newest has version {current.version}.",
                    hint="Resume the operation: it starts from the newest map.",
                )
            return map

        return await self._replace_map(change, reason)

    async def update_map(self, change: Callable[[ShardMap], ShardMap], reason: str) -> ShardMap:
        """Saves and returns `change(newest map)`; nothing else can save a map in between.

        Operations on different databases run at the same time, so a step changes the map by this
        and not by `shard_map` and `save_map`. A change that returns the map itself saves nothing.
        Raises `Refused` before the first map.
        """

        def changed(current: ShardMap | None) -> ShardMap:
            if current is None:
                raise Refused("There is no shard map yet.", hint="regionctl up makes the first.")
            return change(current)

        return await self._replace_map(changed, reason)

    async def _replace_map(
        self, change: Callable[[ShardMap | None], ShardMap], reason: str
    ) -> ShardMap:
        def replace(connection: Connection) -> tuple[ShardMap, bool]:
            document = connection.scalar(_NEWEST_MAP)
            current = None if document is None else ShardMap.from_json(document)
            changed = change(current)
            if changed == current:
                return changed, False
            if current is not None and changed.version <= current.version:
                raise ValueError("a changed map must have a higher version")
            connection.execute(
                insert(records.shard_map).values(
                    version=changed.version,
                    document=changed.to_json(),
                    reason=reason,
                    saved_at=self.clock.now().isoformat(),
                )
            )
            data = {"version": changed.version, "reason": reason}
            connection.execute(self._event(None, "shard-map-saved", data))
            return changed, True

        shard_map, new = await self.database.write_at_once(replace)
        if new:
            self._changed()
        return shard_map

    async def record_failover(self, database: str, kind: str, operation_id: str) -> None:
        """`kind` is the verb that moved the primary. Recorded once an operation and database."""
        table = records.failover
        key = (table.c.database == database, table.c.operation_id == operation_id)
        async with self.database.write() as connection:
            if await connection.scalar(select(func.count()).where(*key, table.c.kind == kind)):
                return
            await connection.execute(
                insert(table).values(
                    database=database,
                    kind=kind,
                    operation_id=operation_id,
                    at=self.clock.now().isoformat(),
                )
            )

    async def failovers(self, database: str | None = None) -> list[FailoverRecord]:
        """Newest first."""
        table = records.failover
        query = select(table).order_by(table.c.id.desc())
        if database is not None:
            query = query.where(table.c.database == database)
        async with self.database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            FailoverRecord(
                database=row["database"],
                kind=row["kind"],
                operation=row["operation_id"],
                at=datetime.fromisoformat(row["at"]),
                acknowledged=row["acknowledged_at"] is not None,
            )
            for row in rows
        ]

    async def last_event(self, operation_id: str, kinds: Collection[str]) -> Event | None:
        """The newest event of these kinds that was told about the operation."""
        table = records.event
        query = select(table).where(table.c.operation_id == operation_id, table.c.kind.in_(kinds))
        async with self.database.read() as connection:
            found = await connection.execute(query.order_by(table.c.sequence.desc()).limit(1))
            row = found.mappings().first()
        return None if row is None else rows.event_of(row)

    async def reshard_paused(self, operation_id: str) -> bool:
        """Whether an operator has paused the operation, and nobody has resumed it since."""
        kinds = ("reshard-paused", "reshard-resumed")
        event = await self.last_event(operation_id, kinds)
        return event is not None and event.kind == kinds[0]

    async def abort_requested(self, operation_id: str) -> bool:
        """Whether the operation shall stop when its step in flight has ended."""
        table = records.operation
        query = select(table.c.abort_requested).where(table.c.id == operation_id)
        async with self.database.read() as connection:
            return bool(await connection.scalar(query))

    async def acknowledge(self, database: str, reason: str, by: Asked | None = None) -> int:
        """An operator has seen the failovers of `database`. Returns how many were open."""
        table = records.failover
        async with self.database.write() as connection:
            result = await connection.execute(
                update(table)
                .where(table.c.database == database, table.c.acknowledged_at.is_(None))
                .values(acknowledged_at=self.clock.now().isoformat(), acknowledge_reason=reason)
            )
            data = {"database": database, "reason": reason}
            await self._tell(connection, None, "failover-acknowledged", data)
            await self._record(connection, by, None)
        self._changed()
        return result.rowcount

    async def save_report(self, document: JSON) -> str:
        """Stores a report under its operation's id (`document["operation"]`) and returns it."""
        id = str(document["operation"])
        table = records.report
        values = {"saved_at": self.clock.now().isoformat(), "document": document}
        async with self.database.write() as connection:
            result = await connection.execute(
                update(table).where(table.c.id == id).values(**values)
            )
            if result.rowcount == 0:
                await connection.execute(insert(table).values(id=id, **values))
            await self._tell(connection, id, "report-saved", {"report": id})
        self._changed()
        return id

    async def reports(self, limit: int | None = None) -> list[JSON]:
        """Newest first."""
        query = select(records.report.c.document).order_by(records.report.c.saved_at.desc())
        if limit is not None:
            query = query.limit(limit)
        async with self.database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def report(self, id: str) -> JSON:
        """Raises `NotFound`."""
        query = select(records.report.c.document).where(records.report.c.id == id)
        async with self.database.read() as connection:
            document: JSON | None = await connection.scalar(query)
        if document is None:
            raise NotFound(f"There is no report {id!r}.", hint="regionctl drill history")
        return document

    async def save_topology(self, digest: str, name: str, document: JSON) -> None:
        """Keeps what the topology was, under the digest that reports quote."""
        table = records.topology
        async with self.database.write() as connection:
            if await connection.scalar(select(table.c.digest).where(table.c.digest == digest)):
                return
            values = {"digest": digest, "name": name, "document": document}
            at = self.clock.now().isoformat()
            await connection.execute(insert(table).values(**values, saved_at=at))


async def _newest_map(connection: AsyncConnection) -> ShardMap | None:
    document = await connection.scalar(_NEWEST_MAP)
    return None if document is None else ShardMap.from_json(document)


async def open_store(url: str, clock: Clock, *, durable: bool = True) -> Store:
    """The store at `url`, its tables made. `durable=False` skips fsync: for tests only."""
    database = connect(url, durable=durable)
    await database.prepare()
    return Store(database, clock)
