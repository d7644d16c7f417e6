"""Sessions with the databases themselves, which no API of AWS gives: from inside the network only.

The administrator's password comes from Secrets Manager and is asked for anew each time, so a
rotation needs no restart. Connections are encrypted, and the server proves who it is by Amazon's
certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import asyncpg

from infra.aws.site import Site
from infra.provider import Observed, Signal, Signals
from runtime import migrations
from runtime.errors import NotFound, OperationFailed, Refused, Unavailable
from runtime.migrations import roles
from runtime.shardmap import CATALOG

ADMINISTRATOR, DATABASE = "regionctl", "app"
# https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem; the image has it.
BUNDLE = Path("/etc/ssl/certs/rds-global-bundle.pem")
LOOK_SECONDS = 2.0
EPOCH = "SELECT max(epoch) FROM regionctl.slot_owner"
POSITION = """
SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn AS position,
       to_regclass('regionctl.slot_owner') IS NOT NULL AS fenced
"""
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass
class Sessions:
    """`addresses` are those of the last look: a server's own, or, of the one that writes, its
    cluster's, which follows what Aurora does by itself. `dial` has (host, port) of databases that
    are reached in another way."""

    site: Site
    bundle: Path | None = BUNDLE
    user: str = ADMINISTRATOR
    dial: dict[str, tuple[str, int]] = field(default_factory=dict)
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)

    def learn(self, observed: Observed) -> None:
        for id, view in observed.instances.items():
            if view.address and ":" in view.address:
                host, _, port = view.address.rpartition(":")
                self.addresses[id] = (host, int(port))

    def address(self, instance: str) -> tuple[str, int]:
        """Raises `Unavailable` before the first look at it."""
        known = self.addresses.get(instance)
        if known is None:
            raise Unavailable(
                f"AWS has not said where {instance} listens.", hint="regionctl status; then again"
            )
        return known

    @contextlib.asynccontextmanager
    async def session(
        self, instance: str, *, seconds: float = 5.0, at: tuple[str, int] | None = None
    ) -> AsyncIterator[Any]:
        """An asyncpg connection of the administrator, to the (host, port) `at` if that is given.

        Raises `Unavailable`, `OperationFailed`.
        """
        database = self.site.spec(instance, "postgres").component
        host, port = self._dialled(database, instance, at)
        try:
            async with asyncio.timeout(seconds):
                connection = await asyncpg.connect(
                    host=host,
                    port=port,
                    user=self.user,
                    password=await self._password(database),
                    database=DATABASE,
                    ssl=self._trust(),
                    server_settings={"application_name": "regionctl"},
                )
        except (TimeoutError, *LOST) as error:
            raise self._silent(instance, error) from error
        try:
            yield connection
        except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
            raise self._silent(instance, error) from error
        except asyncpg.PostgresError as error:
            raise OperationFailed(f"{instance} said: {error}.") from error
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await connection.close()
            connection.terminate()

    async def probe(self, instance: str, seconds: float) -> Signals:
        """A TCP connection and a query. Never raises."""
        try:
            host, port = self._dialled(instance.partition(".")[0], instance)
        except Unavailable:
            return Signals("timeout", "timeout")
        tcp = await _knock(host, port, seconds)
        try:
            async with asyncio.timeout(seconds), self.session(instance, seconds=seconds) as session:
                await session.fetchval("SELECT 1")
        except TimeoutError:
            return Signals(tcp, "timeout")
        except Exception as error:
            silent = isinstance(error.__cause__, TimeoutError)
            return Signals(tcp, "timeout" if silent else "refused")
        return Signals("ok", "ok")

    async def look(self, instance: str) -> tuple[int | None, int] | None:
        """The highest epoch of its fence rows, and its position (LSN, bytes); None when it does not
        say. No epoch: it has no fence rows yet."""
        try:
            async with self.session(instance, seconds=LOOK_SECONDS) as session:
                row = await session.fetchrow(POSITION)
                epoch = await session.fetchval(EPOCH) if row["fenced"] else None
        except (Unavailable, OperationFailed, Refused, NotFound):
            return None
        return epoch, int(row["position"])

    async def prepare(self, instance: str) -> None:
        """The database of the writer `instance` has its roles and the newest schema.

        Grants name every role: that of a service which the topology leaves out gets a password that
        nobody knows.
        """
        database = self.site.spec(instance, "postgres").component
        passwords = {role: token_urlsafe(32) for role in roles.ROLES}
        for service in self.site.topology.services:
            passwords[service] = (await self.secret(service))["database"]
        async with self.session(instance) as session:
            await roles.create(session, passwords)
        host, port = self._dialled(database, instance)
        await migrations.upgrade(
            "catalog" if database == CATALOG else "shard",
            host=host,
            port=port,
            user=self.user,
            password=await self._password(database),
            database=DATABASE,
            ssl=self._trust(),
        )

    def _dialled(
        self, database: str, instance: str, at: tuple[str, int] | None = None
    ) -> tuple[str, int]:
        return self.dial.get(database) or at or self.address(instance)

    async def _password(self, database: str) -> str:
        """Of the administrator: rotated by AWS, so read anew."""
        secret = await self.secret(self.site.names.administrator(database))
        return secret["password"]

    async def secret(self, purpose: str) -> dict[str, str]:
        """Of the same name in each region: the first that answers. Raises `Unavailable`."""
        for region in reversed(self.site.regions):
            with contextlib.suppress(Unavailable):
                answer = await self.site.cloud.call(
                    "secretsmanager",
                    region,
                    "get_secret_value",
                    SecretId=self.site.names.secret(purpose),
                )
                found: dict[str, str] = json.loads(answer["SecretString"])
                return found
        raise Unavailable("No region's Secrets Manager answers.", hint="Try again.")

    def _trust(self) -> ssl.SSLContext | bool:
        if self.bundle is None:
            return False
        if not self.bundle.exists():
            raise Refused(
                f"{self.bundle} is missing: no database could prove who it is.",
                hint="Run in the platform's image, or fetch Amazon's global-bundle.pem.",
            )
        return ssl.create_default_context(cafile=self.bundle)

    def _silent(self, instance: str, error: BaseException) -> Unavailable:
        return Unavailable(
            f"{instance} does not answer: {error or 'silence'}.",
            hint="The control plane must stand inside the platform's network; regionctl status",
        )


async def _knock(host: str, port: int, seconds: float) -> Signal:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "timeout"
    except OSError:
        return "refused"
    writer.close()
    return "ok"
