"""A real PostgreSQL that stands for Aurora's volumes: it has one database for each of them.

All servers of an Aurora database share one volume, and so do the emulated ones here, also those of
another region: copying takes no time. What AWS says of them comes from the emulators.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from infra.aws.sessions import PASSWORDS, Sessions
from infra.aws.site import Site
from tests.runtime.servers import PASSWORD, SUPERUSER, Postgres


@contextmanager
def running() -> Iterator[Postgres]:
    root = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    root.chmod(0o755)
    server = Postgres(root, "volume")
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(root)


def attach(site: Site, server: Postgres) -> Sessions:
    """Sessions whose every address leads to `server`; the passwords are where AWS keeps them."""
    dial = {}
    for database in site.topology.databases:
        name = f"{site.names.stem}-{database}"
        asyncio.run(_create(server, name))
        dial[database] = ("127.0.0.1", server.port, name)
    secrets = site.cloud.client("secretsmanager", site.regions[-1])
    kept: dict[str, dict[str, str]] = {
        PASSWORDS: dict.fromkeys(site.topology.databases, PASSWORD),
        **{service: {"database": "only-here"} for service in site.topology.services},
    }
    for purpose, content in kept.items():
        secrets.create_secret(Name=site.names.secret(purpose), SecretString=json.dumps(content))
    return Sessions(site, bundle=None, user=SUPERUSER, dial=dial)


async def _create(server: Postgres, name: str) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=server.port,
        user=SUPERUSER,
        password=PASSWORD,
        database="postgres",
    )
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
