"""A platform of two databases and a queue, as the services meet it, for process tests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.types import ASGIApp

from runtime import checks, migrations, owners
from runtime.app import build
from runtime.migrations import roles
from runtime.settings import Settings
from runtime.shardmap import CATALOG, Endpoint, Shard, ShardMap, SlotRange, even_ranges
from tests.runtime.payment_peer import PaymentPeer, payment_peer
from tests.runtime.servers import PASSWORD, Postgres, Valkey, binaries

REGION = "us-east-1"
TOKEN_KEY = "the secret that seals the signing keys of tests"
FENCE_OF_CATALOG = (SlotRange(0, 0, CATALOG, 1),)


def endpoint(server: Postgres | Valkey, zone: str = "a") -> Endpoint:
    return Endpoint(f"{server.name}.{REGION}{zone}", REGION, zone, "127.0.0.1", server.port)


@dataclass
class Platform:
    """Shard s1 and the catalog, each one primary without standbys, one queue, and the map file."""

    root: Path
    s1: Postgres
    catalog: Postgres
    queue: Valkey
    map_file: Path = field(init=False)
    shard_map: ShardMap = field(init=False)

    def __post_init__(self) -> None:
        self.map_file = self.root / "shardmap.json"

    def publish(self, shard_map: ShardMap) -> None:
        self.shard_map = shard_map
        fresh = self.map_file.with_suffix(".new")
        fresh.write_text(json.dumps(shard_map.to_json()))
        fresh.rename(self.map_file)

    def first_map(self, epoch: int = 1, version: int = 1) -> ShardMap:
        return ShardMap(
            version=version,
            ranges=even_ranges(["s1"], epoch),
            shards={
                "s1": Shard("s1", epoch, REGION, endpoint(self.s1)),
                CATALOG: Shard(CATALOG, 1, REGION, endpoint(self.catalog)),
            },
            queues={REGION: endpoint(self.queue)},
        )

    def settings(self, service: str, zone: str = "a") -> Settings:
        return Settings(
            service=service,
            instance=f"{service}.{REGION}{zone}",
            region=REGION,
            zone=zone,
            shard_map=self.map_file,
            database_password=PASSWORD,
            valkey_password=PASSWORD,
            cache=("127.0.0.1", self.queue.port),
            secrets={"tokenKey": TOKEN_KEY},
        )

    @asynccontextmanager
    async def service(
        self, name: str, zone: str = "a", *, settings: Settings | None = None
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client of one service, which runs inside this process."""
        app = build(settings or self.settings(name, zone))
        async with running(app):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://service", timeout=20
            ) as client:
                yield client


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """The application between its start-up and its shutdown."""
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    scope: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, inbox.get, outbox.put))  # type: ignore[arg-type]
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await task


@pytest.fixture(scope="session")
def server_root() -> Iterator[Path]:
    """A folder that an unprivileged user can reach."""
    root = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    root.chmod(0o755)
    old = os.umask(0o022)
    yield root
    os.umask(old)
    shutil.rmtree(root)


async def prepare(server: Postgres, kind: migrations.Kind, *, owns: bool = True) -> None:
    """Roles and the newest schema; a shard `owns` all slots, or none."""
    connection = await asyncpg.connect(**server.dsn(database="postgres"))
    await roles.create(connection, dict.fromkeys(roles.ROLES, PASSWORD))
    await connection.execute("CREATE DATABASE app")
    await connection.close()
    dsn = server.dsn()
    del dsn["ssl"]
    await migrations.upgrade(kind, **dsn)
    connection = await asyncpg.connect(**server.dsn())
    if kind == "catalog":
        await checks.seed(connection)
        await owners.set_epochs(connection, FENCE_OF_CATALOG)
    elif owns:
        await owners.set_epochs(connection, even_ranges(["s1"], 1))
    await connection.close()


@pytest.fixture(scope="session")
def databases(server_root: Path) -> Iterator[tuple[Postgres, Postgres]]:
    """The shard and the catalog, migrated and seeded."""
    servers = Postgres(server_root, "s1"), Postgres(server_root, "catalog")

    def make(server: Postgres) -> None:
        server.initialise()
        server.start()

    binaries(server_root)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(make, servers))

        async def both() -> None:
            await asyncio.gather(prepare(servers[0], "shard"), prepare(servers[1], "catalog"))

        # A thread, because the session's fixture may be asked for inside a running loop.
        thread = threading.Thread(target=lambda: asyncio.run(both()))
        thread.start()
        thread.join()
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="session")
def queue(server_root: Path) -> Iterator[Valkey]:
    server = Valkey(server_root, "queue")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def platform(databases: tuple[Postgres, Postgres], queue: Valkey, tmp_path: Path) -> Platform:
    """Empty tables, epoch 1 everywhere, an empty queue, and the map published."""
    s1, catalog = databases
    made = Platform(tmp_path, s1, catalog, queue)
    made.publish(made.first_map())
    connection = await asyncpg.connect(**s1.dsn())
    await connection.execute(
        "TRUNCATE users, sessions, orders, order_items, payments, notifications, outbox"
    )
    await connection.execute("UPDATE regionctl.slot_owner SET epoch = 1, state = 'owned'")
    await connection.close()
    connection = await asyncpg.connect(**catalog.dsn())
    # The audit log refuses changes, but not those of replication.
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(
        "TRUNCATE emails, stock_movements, outbox, oauth_clients, signing_keys, revocations, "
        "audit_log"
    )
    await connection.execute("UPDATE products SET stock = initial_stock")
    await connection.close()
    _, writer = await asyncio.open_connection("127.0.0.1", queue.port)
    writer.write(f"AUTH {PASSWORD}\r\nFLUSHALL\r\n".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    return made


@pytest.fixture
async def shard_db(platform: Platform) -> AsyncIterator[checks.Database]:
    connection = await asyncpg.connect(**platform.s1.dsn())
    yield connection
    await connection.close()


@pytest.fixture
async def catalog_db(platform: Platform) -> AsyncIterator[checks.Database]:
    connection = await asyncpg.connect(**platform.catalog.dsn())
    yield connection
    await connection.close()


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[PaymentPeer]:
    async with payment_peer(tmp_path) as made:
        yield made
