"""Real PostgreSQL servers that stand for Aurora's volumes, one for each database of the platform.

All servers of an Aurora database share one volume, and so do the emulated ones here, also those of
another region: copying takes no time. What AWS says of them comes from the emulators.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from infra import oauth_clients
from infra.aws.naming import CLIENTS
from infra.aws.sessions import DATABASE, Sessions
from infra.aws.site import Site
from tests.runtime.servers import PASSWORD, SUPERUSER, Postgres

CLIENT_SECRET = "of-a-client"


@contextmanager
def running(databases: Sequence[str]) -> Iterator[Mapping[str, Postgres]]:
    root = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    root.chmod(0o755)
    servers = {name: Postgres(root, name) for name in databases}
    try:
        for server in servers.values():
            server.initialise()
            server.start()
            asyncio.run(_create(server))
        yield servers
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(root)


def attach(site: Site, servers: Mapping[str, Postgres]) -> Sessions:
    """Sessions whose addresses lead to these servers; the passwords are where AWS keeps them."""
    secrets = site.cloud.client("secretsmanager", site.regions[-1])
    kept: dict[str, dict[str, str]] = {
        **{
            site.names.administrator(database): {"password": PASSWORD}
            for database in site.topology.databases
        },
        **{service: {"database": "only-here"} for service in site.topology.services},
        CLIENTS: dict.fromkeys(oauth_clients.ROLES, CLIENT_SECRET),
    }
    for purpose, content in kept.items():
        secrets.create_secret(Name=site.names.secret(purpose), SecretString=json.dumps(content))
    dial = {name: ("127.0.0.1", server.port) for name, server in servers.items()}
    return Sessions(site, bundle=None, user=SUPERUSER, dial=dial)


async def _create(server: Postgres) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=server.port,
        user=SUPERUSER,
        password=PASSWORD,
        database="postgres",
    )
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()
