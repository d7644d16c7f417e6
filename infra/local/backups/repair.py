"""Restored servers of this machine, read through and compared: see `infra.repair`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from infra.backups import Backups, Restored
from infra.local.backups import copies
from infra.local.cluster import Cluster
from infra.local.monitor import LOST, Monitor, connect
from infra.local.site import Site
from infra.repair import Change, Difference, Inspected
from runtime.errors import Invalid, Refused, Unavailable
from runtime.shardmap import CATALOG


class LocalRepairs:
    """See `infra.repair.Repairs` for what each verb promises."""

    def __init__(self, site: Site, monitor: Monitor, cluster: Cluster, backups: Backups) -> None:
        self._site = site
        self._monitor = monitor
        self._cluster = cluster
        self._backups = backups

    async def differences(self, id: str, instance: str) -> Sequence[Difference]:
        restored = await self._backups.restored(id)
        if restored.database == CATALOG:
            return []
        async with self._copy(restored) as then, self._monitor.session(instance) as now:
            return await copies.differences(then, now)

    async def repair(self, instance: str, changes: Sequence[Change]) -> int:
        async with self._monitor.session(instance) as connection:
            return await copies.apply(connection, changes)

    async def inspect(self, id: str, orders: Sequence[str], users: Sequence[str]) -> Inspected:
        restored = await self._backups.restored(id)
        async with self._copy(restored) as copy:
            if restored.database == CATALOG:
                return await copies.inspect_catalog(copy)
            return await copies.inspect_shard(copy, orders, users)

    async def noticed(self, database: str, kind: str) -> str | None:
        from infra.local.backups import damage
        from infra.local.backups.parts import Parts

        if kind not in damage.KINDS:
            raise Invalid(
                f"There is no damage {kind!r}.", hint=f"One of: {', '.join(damage.KINDS)}"
            )
        chained = [
            each.id
            for each in await self._backups.list()
            if each.database == database and each.parent
        ]
        if not chained:
            raise Refused(
                f"{database} has no incremental backup.",
                hint=f"regionctl backup create {database} --kind incremental",
            )
        parts = Parts(self._site, self._monitor, self._cluster)
        found = await damage.check(parts, chained[-1], kind)
        return str(found["how"]) if found["caught"] else None

    @contextlib.asynccontextmanager
    async def _copy(self, restored: Restored) -> AsyncIterator[Any]:
        """A session of the restored server that writes nothing."""
        try:
            connection = await connect(self._site, restored.id, seconds=5.0, port=restored.port)
        except (TimeoutError, *LOST) as error:
            raise Unavailable(
                f"The restored server {restored.id} does not answer on port {restored.port}: "
                f"{error or 'silence'}.",
                hint="regionctl backup list",
            ) from error
        try:
            await connection.execute("SET default_transaction_read_only = on")
            yield connection
        finally:
            connection.terminate()
