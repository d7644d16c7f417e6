"""One kept connection to each database, for watching and for the verbs of the provider.

A probe on a kept connection costs a fraction of a millisecond, and its loss is the quickest sign
that a server died. Nothing here waits longer than it was told to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from infra.local.ports import HOST
from infra.local.postgres import DATABASE, SUPERUSER
from infra.local.site import Site
from infra.provider import Signal, Signals
from runtime.errors import OperationFailed, Unavailable

Connection = asyncpg.Connection
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Monitor:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._kept: dict[str, tuple[Any, asyncio.AbstractEventLoop]] = {}
        self._locks: dict[tuple[str, asyncio.AbstractEventLoop], asyncio.Lock] = {}

    async def row(self, instance: str, query: str, *arguments: Any, seconds: float) -> Any:
        """The first row of `query`.

        Raises `TimeoutError` for silence, one of `LOST` when the server is gone or says no.
        """
        loop = asyncio.get_running_loop()
        lock = self._locks.setdefault((instance, loop), asyncio.Lock())
        async with asyncio.timeout(seconds), lock:
            kept = self._usable(instance, loop)
            if kept is not None:
                # The server may have been started anew since: then ask again on a new connection.
                with contextlib.suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                    return await self._fetch(instance, kept, query, arguments)
            fresh = await connect(self._site, instance, seconds=30)
            self._kept[instance] = (fresh, loop)
            return await self._fetch(instance, fresh, query, arguments)

    async def _fetch(
        self, instance: str, connection: Any, query: str, arguments: tuple[Any, ...]
    ) -> Any:
        try:
            return await connection.fetchrow(query, *arguments)
        except BaseException:
            self._kept.pop(instance, None)
            connection.terminate()
            raise

    def _usable(self, instance: str, loop: asyncio.AbstractEventLoop) -> Any:
        kept = self._kept.get(instance)
        if kept is not None and kept[1] is loop and not kept[0].is_closed():
            return kept[0]
        return None

    @contextlib.asynccontextmanager
    async def session(
        self, instance: str, *, database: str = DATABASE, seconds: float = 5.0
    ) -> AsyncIterator[Any]:
        """A connection of one's own. Raises `Unavailable` when there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                connection = await connect(self._site, instance, seconds=seconds, database=database)
        except (TimeoutError, *LOST) as error:
            raise self._silent(instance, error) from error
        try:
            yield connection
        except (
            OSError,
            TimeoutError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # of a connection that died while it reported an error
        ) as error:
            raise self._silent(instance, error) from error
        except asyncpg.PostgresError as error:
            raise OperationFailed(
                f"{instance} said: {error}.", extra=self._site.evidence(instance)
            ) from error
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await connection.close()
            connection.terminate()

    def _silent(self, instance: str, error: BaseException) -> Unavailable:
        return Unavailable(
            f"{instance} does not answer on port {self._site.port(instance)}: "
            f"{error or 'silence'}.",
            hint=f"regionctl status; regionctl logs {instance}",
            extra=self._site.evidence(instance),
        )

    async def probe(self, instance: str, seconds: float) -> Signals:
        """A query, and a fresh TCP connection unless the query is answered at once."""
        query = asyncio.ensure_future(self._query(instance, seconds))
        done, _ = await asyncio.wait({query}, timeout=min(0.05, seconds / 4))
        if done and query.result() == "ok":
            return Signals("ok", "ok")
        tcp, sql = await asyncio.gather(knock(self._site.port(instance), seconds), query)
        return Signals("ok" if sql == "ok" else tcp, sql)

    async def _query(self, instance: str, seconds: float) -> Signal:
        try:
            await self.row(instance, "SELECT 1", seconds=seconds)
        except TimeoutError:
            return "timeout"
        except LOST:
            return "refused"
        return "ok"

    async def close(self) -> None:
        for connection, _ in self._kept.values():
            connection.terminate()
        self._kept.clear()


async def connect(
    site: Site, instance: str, *, seconds: float, port: int | None = None, database: str = DATABASE
) -> Any:
    return await asyncpg.connect(
        host=HOST,
        port=port or site.port(instance),
        user=SUPERUSER,
        password=site.secrets.superuser,
        database=database,
        timeout=seconds,
        ssl=False,
        command_timeout=120,
        statement_cache_size=20,
        server_settings={"application_name": "regionctl"},
    )


async def knock(port: int, seconds: float) -> Signal:
    """Whether a TCP connection opens."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(HOST, port)
    except TimeoutError:
        return "timeout"
    except OSError:
        return "refused"
    writer.close()
    return "ok"
