"""Salvage: what only a deposed primary has is exported before it is rewound."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

from infra.local import layout as files
from infra.local import postgres
from infra.local.cluster import CLOCK, Cluster
from infra.local.monitor import LOST, Monitor, connect
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import clean_environment
from infra.provider import Salvage
from runtime import checks
from runtime.clock import wait_until
from runtime.errors import OperationFailed


async def salvage(
    site: Site, monitor: Monitor, cluster: Cluster, instance: str, upstream: str
) -> Salvage:
    """Exports what only the deposed primary has; its own server runs alone, read-only, meanwhile.

    From the catalog these are reserved e-mail addresses and stock movements. Nothing is to be saved
    from a standby or from a directory that is not whole.
    """
    if not site.complete(instance) or postgres.is_standby(site, instance):
        return Salvage(None, 0)
    await cluster.halt(instance)
    async with _isolated(site, instance) as old, monitor.session(upstream) as new:
        found = await checks.orphan_rows(old, new)
        timeline = await old.fetchval("SELECT timeline_id FROM pg_control_checkpoint()")
    if not found:
        return Salvage(None, 0)
    path = site.layout.salvage / f"{instance}.timeline-{timeline}.jsonl"
    files.make_folder(path.parent)
    with files.explain_disk(path):
        files.replace_file(path, "".join(json.dumps(row) + "\n" for row in found))
    orders = tuple(str(row["row"]["id"]) for row in found if row["table"] == "orders")
    return Salvage(str(path), len(found), orders)


@contextlib.asynccontextmanager
async def _isolated(site: Site, instance: str) -> AsyncIterator[Any]:
    """The stopped server, started read-only on a port that nobody else knows, and a session."""
    port = site.port(instance) + 1
    postgres.clear_lock(site.pgdata(instance))
    environment = clean_environment(site.layout.root) | {"REGIONCTL_INSTANCE": instance}
    with site.log(instance).open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(site.postgres_bin / "postgres"), "-D", str(site.pgdata(instance))),
            *("-p", str(port), "-c", "default_transaction_read_only=on", "-c", "autovacuum=off"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd="/",
            start_new_session=True,
            umask=0o077,
            **site.as_user(),
        )
    try:
        connection: Any = None

        async def answers() -> bool:
            nonlocal connection
            if process.returncode is not None:
                raise OperationFailed(
                    f"{instance} could not be started to look for rows that only it has.",
                    hint="Keep a copy of its data directory before regionctl up replaces it.",
                    extra=site.evidence(instance),
                )
            with contextlib.suppress(TimeoutError, *LOST):
                connection = await connect(site, instance, seconds=2, port=port)
            return connection is not None

        await wait_until(CLOCK, answers, what=f"{instance} on {HOST}:{port}", seconds=60)
        yield connection
    finally:
        if connection is not None:
            connection.terminate()
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(60):
                await process.wait()
