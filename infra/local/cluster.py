"""The verbs on one database server: start, stop, promote, follow, copy, rewind.

Positions are bytes since the start of the WAL. A history is a list of (timeline, where it ended);
a standby may follow a server only when all that the standby has lies on that server's history.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg

from infra.local import postgres
from infra.local.monitor import LOST, Monitor, connect
from infra.local.postgres import DATABASE, REPLICATION
from infra.local.site import Site
from infra.lsn import parse_history
from infra.provider import JSON
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, Problem, Refused, TimedOut, Unavailable
from runtime.migrations import roles

CLOCK = SystemClock()
START_SECONDS = 60.0
STREAM_SECONDS = 15.0

_POSITION = """
SELECT pg_is_in_recovery() AS standby,
       CASE WHEN pg_is_in_recovery()
            THEN greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'),
                          coalesce(pg_last_wal_replay_lsn(), '0/0'))
            ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn AS position,
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT ('x' || substr(max(name), 1, 8))::bit(32)::int
                           FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END AS timeline
"""


class Cluster:
    def __init__(self, site: Site, monitor: Monitor) -> None:
        self._site = site
        self._monitor = monitor

    async def create_primary(self, instance: str) -> None:
        """An empty cluster with the roles and the database, running."""
        site = self._site
        if not site.complete(instance):
            await postgres.initialise(site, instance)
        elif postgres.is_standby(site, instance):
            raise Refused(
                f"{instance} holds a standby's data; it is not made a primary of its own.",
                hint="regionctl failover plan, or regionctl switchover plan.",
            )
        await self.start(instance, database="postgres")
        async with self._session(instance, "postgres") as connection:
            # The server's log is to show no password, whatever fails.
            await connection.execute("SET log_statement = none")
            await connection.execute("SET log_min_error_statement = panic")
            known = "SELECT 1 FROM pg_roles WHERE rolname = $1"
            if not await connection.fetchval(known, REPLICATION):
                secret = site.secrets.replication
                await connection.execute(
                    f"CREATE ROLE {REPLICATION} LOGIN REPLICATION PASSWORD '{secret}'"
                )
            await roles.create(connection, site.secrets.databases())
            known = "SELECT 1 FROM pg_database WHERE datname = $1"
            if not await connection.fetchval(known, DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} STRATEGY wal_log")

    def _session(self, instance: str, database: str = DATABASE) -> Any:
        return self._monitor.session(instance, database=database)

    async def start(self, instance: str, *, database: str = DATABASE) -> None:
        """Runs and answers. Raises `OperationFailed` at once when it ends instead."""
        site = self._site
        if not site.complete(instance):
            raise OperationFailed(
                f"The data directory of {instance} is missing or was left half made.",
                hint="regionctl up makes it again as a fresh copy of its primary.",
                extra=site.evidence(instance),
            )
        if site.postmaster(instance) is None:
            postgres.clear_lock(site.pgdata(instance))
            await site.supervisor(instance).start_program(instance)
        began = CLOCK.monotonic()

        async def answers() -> bool:
            try:
                await self._ask(instance, database)
            except (TimeoutError, *LOST):
                if CLOCK.monotonic() - began > 1 and site.postmaster(instance) is None:
                    raise OperationFailed(
                        f"{instance} ended while it started.",
                        hint="Its log says why; a full disk and a taken port are the usual causes.",
                        extra=site.evidence(instance),
                    ) from None
                return False
            return True

        await self._wait(answers, f"{instance} to answer", START_SECONDS, instance)

    async def _ask(self, instance: str, database: str) -> None:
        if database == DATABASE:
            await self._monitor.row(instance, "SELECT 1", seconds=2)
        else:
            connection = await connect(self._site, instance, seconds=2, database=database)
            connection.terminate()

    async def stop(self, instance: str) -> int:
        """Stopped cleanly. Returns a position that only a server with everything has reached."""
        site = self._site
        pid = site.postmaster(instance)
        if pid is not None:
            await site.supervisor(instance).stop_program(instance, seconds=70)
            if site.postmaster(instance) == pid:
                await site.run(
                    *("pg_ctl", "stop", "-m", "fast", "-D", str(site.pgdata(instance))),
                    instance=instance,
                )
        if not site.complete(instance):
            raise OperationFailed(f"{instance} has no data.", extra=site.evidence(instance))
        data = await postgres.control_data(site, instance)
        standby = postgres.is_standby(site, instance)
        return postgres.final_position(instance, data, standby=standby)

    async def set_sync(self, instance: str, standbys: Sequence[str]) -> None:
        """In the file, in force, and proven to be in force."""
        config = replace(postgres.read_config(self._site, instance), sync_names=tuple(standbys))
        wanted = postgres.render_sync(config.sync_names)
        if (
            not standbys  # who waits is proven below, also after a crash between file and proof
            and await self._setting(instance) == wanted
            and config == postgres.read_config(self._site, instance)
        ):
            return
        postgres.write_config(self._site, instance, config)
        async with self._session(instance) as connection:
            await connection.execute("SELECT pg_reload_conf()")

            async def taken() -> bool:
                show = await connection.fetchval("SHOW synchronous_standby_names")
                return bool(show == wanted)

            what = f"{instance} to take its synchronous standbys"
            await self._wait(taken, what, 10, instance, every=0.01)
            if standbys:
                # Commits begin to wait when the checkpointer has read the file; it reads it
                # before it serves this request.
                await connection.execute("CHECKPOINT")

    async def _setting(self, instance: str) -> str:
        try:
            query = "SELECT current_setting('synchronous_standby_names') AS names"
            return str((await self._monitor.row(instance, query, seconds=2))["names"])
        except (TimeoutError, *LOST) as error:
            raise self._silent(instance, error) from error

    async def promote(self, instance: str) -> JSON:
        """A primary that waits for nobody; also when it was one before."""
        site = self._site
        if not (await self.where(instance))["standby"]:
            return await self._promoted(instance)
        config = postgres.read_config(site, instance)
        if config.sync_names:
            await self.set_sync(instance, ())
        async with self._session(instance) as connection:
            await connection.execute("SELECT pg_promote(false)")

            async def writes() -> bool:
                return not await connection.fetchval("SELECT pg_is_in_recovery()")

            await self._wait(writes, f"{instance} to be promoted", 30, instance, every=0.005)
        postgres.write_config(site, instance, postgres.Config())
        return await self._promoted(instance)

    async def _promoted(self, instance: str) -> JSON:
        history = await self.history(instance)
        timeline = (await self.where(instance))["timeline"]
        return {"timeline": timeline, "lsn": history[-1][1] if history else 0}

    async def where(self, instance: str) -> Any:
        """Row(standby, position, timeline). Raises `Unavailable`."""
        try:
            return await self._monitor.row(instance, _POSITION, seconds=3)
        except (TimeoutError, *LOST) as error:
            raise self._silent(instance, error) from error

    async def history(self, instance: str) -> list[tuple[int, int]]:
        """The earlier timelines of a running server and where each ended."""
        timeline = (await self.where(instance))["timeline"]
        if timeline == 1:
            return []
        async with self._session(instance) as connection:
            text = await connection.fetchval(
                "SELECT pg_read_file($1)", f"pg_wal/{timeline:08X}.history"
            )
        return list(parse_history(text))

    async def check_history(self, instance: str, upstream: str) -> None:
        """Raises `Refused` when `instance` has something that is not on `upstream`'s history."""
        timeline, position = await self._extent(instance)
        source = await self.where(upstream)
        if timeline == source["timeline"]:
            diverged = position > source["position"]
        else:
            ends = dict(await self.history(upstream))
            diverged = timeline not in ends or position > ends[timeline]
        if diverged:
            raise Refused(
                f"{instance} has a history of its own (timeline {timeline}, position {position}) "
                f"that {upstream} (timeline {source['timeline']}) does not share.",
                hint="It must be rewound or copied: regionctl up plans that.",
                extra={"instance": instance, "upstream": upstream},
            )

    async def _extent(self, instance: str) -> tuple[int, int]:
        """The timeline and the end of what a server has. Raises `Refused` when unknowable."""
        if self._site.postmaster(instance) is not None:
            row = await self.where(instance)
            if not row["standby"]:
                raise Refused(
                    f"{instance} runs as a primary.", hint="It must be stopped or fenced first."
                )
            return row["timeline"], row["position"]
        data = await postgres.control_data(self._site, instance)
        if not data.clean and not postgres.is_standby(self._site, instance):
            raise Refused(
                f"{instance} was a primary and was not stopped cleanly.",
                hint="It must be rewound or copied: regionctl up plans that.",
            )
        return data.timeline, data.checkpoint + 1

    async def follow(self, instance: str, upstream: str) -> None:
        """Streams from `upstream`. See the Provider for when this is refused."""
        site = self._site
        if not site.complete(instance):
            raise Refused(
                f"The data directory of {instance} is missing or was left half made.",
                hint="It must be copied: regionctl up plans that.",
            )
        if await self.streams(instance, upstream):
            return
        await self.check_history(instance, upstream)
        running = site.postmaster(instance) is not None
        postgres.make_standby(site, instance, upstream)
        if running:
            async with self._session(instance) as connection:
                await connection.execute("SELECT pg_reload_conf()")
        else:
            await self.start(instance)
        await self.await_streaming(instance, upstream)

    async def streams(self, instance: str, upstream: str) -> bool:
        """`upstream` sees `instance` stream, and `instance` receives the timeline of `upstream`.

        A standby that went further on an old timeline than its upstream did also connects, again
        and again, and is seen to stream for a moment each time; it never gets anywhere.
        """
        sender = (
            "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int "
            "AS timeline FROM pg_stat_replication "
            "WHERE application_name = $1 AND state = 'streaming'"
        )
        receiver = "SELECT received_tli AS timeline FROM pg_stat_wal_receiver"
        try:
            if postgres.read_config(self._site, instance).upstream != upstream:
                return False
            if self._site.postmaster(instance) is None:
                return False
            sent = await self._monitor.row(upstream, sender, instance, seconds=2)
            received = await self._monitor.row(instance, receiver, seconds=2)
        except (OSError, TimeoutError, *LOST):
            return False
        return bool(sent and received and sent["timeline"] == received["timeline"])

    async def await_streaming(self, instance: str, upstream: str) -> None:
        """Raises `Refused` when it turns out that the histories differ."""
        asked = CLOCK.monotonic()

        async def streaming() -> bool:
            nonlocal asked
            if await self.streams(instance, upstream):
                return True
            if CLOCK.monotonic() - asked > 0.5:
                asked = CLOCK.monotonic()
                await self.check_history(instance, upstream)
            return False

        what = f"{instance} to stream from {upstream}"
        await self._wait(streaming, what, STREAM_SECONDS, instance)

    async def clone(self, instance: str, upstream: str) -> None:
        site = self._site
        if site.complete(instance) and await self.streams(instance, upstream):
            return
        await self.where(upstream)  # what is here is not wiped while its source does not answer
        await self.halt(instance)
        await postgres.copy(site, instance, upstream)
        await self.start(instance)
        await self.await_streaming(instance, upstream)

    async def rewind(self, instance: str, upstream: str) -> str:
        """By pg_rewind; by a fresh copy when that fails or the directory is not whole."""
        site = self._site
        if site.complete(instance) and await self.streams(instance, upstream):
            return "rewind"
        if site.complete(instance) and postgres.is_standby(site, instance):
            # It also becomes stoppable in good order, which pg_rewind asks for.
            with contextlib.suppress(Problem):
                await self.follow(instance, upstream)
                return "rewind"
        await self.halt(instance)
        if site.complete(instance):
            with contextlib.suppress(Problem, TimeoutError):
                await postgres.rewind(site, instance, upstream)
                await self.start(instance)
                await self.await_streaming(instance, upstream)
                return "rewind"
        await self.clone(instance, upstream)
        return "copy"

    async def halt(self, instance: str) -> None:
        """Not running, its directory about to be replaced or led back."""
        if self._site.postmaster(instance) is not None:
            await self._site.supervisor(instance).stop_program(instance, seconds=70)
            if self._site.postmaster(instance) is not None:
                await self._site.run(
                    *("pg_ctl", "stop", "-m", "fast", "-D", str(self._site.pgdata(instance))),
                    instance=instance,
                )

    async def remove(self, instance: str) -> None:
        """Its folder is gone. Raises `Refused` while it runs."""
        if self._site.postmaster(instance) is not None:
            raise Refused(f"{instance} runs: its data stays.", hint="regionctl status")
        folder = self._site.layout.data(self._site.spec(instance).region, instance)
        self._site.mark(instance, complete=False)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _wait(
        self, condition: Any, what: str, seconds: float, instance: str, every: float = 0.03
    ) -> None:
        try:
            await wait_until(CLOCK, condition, what=what, seconds=seconds, every=every)
        except TimedOut as error:
            error.hint = f"regionctl logs {instance}"
            error.extra = self._site.evidence(instance)
            raise
        except asyncpg.PostgresError as error:
            raise self._silent(instance, error) from error

    def _silent(self, instance: str, error: BaseException) -> Unavailable:
        return Unavailable(
            f"{instance} does not answer: {error or 'silence'}.",
            hint=f"regionctl status; regionctl logs {instance}",
            extra=self._site.evidence(instance),
        )
