"""A database, its standby, an object store, and the archiver of another region, all real."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from infra.local.backups.seal import Key
from infra.local.backups.store import Store, Vault
from runtime.errors import NotFound
from runtime.shardmap import Endpoint, Shard, ShardMap, even_ranges
from tests.runtime.seaweed import KEY, SECRET, Seaweed
from tests.runtime.servers import PASSWORD, Postgres, binaries

HOME, ELSEWHERE = "us-east-1", "us-west-2"
SLOT = "archive_us_west_2"
BACKUP_KEY = "0f" * 32
CONF = (
    "wal_keep_size = 96MB\nmax_wal_size = 64MB\nmin_wal_size = 32MB\nmax_replication_slots = 5\n"
    "max_slot_wal_keep_size = 256MB\nwal_sender_timeout = 10s\nhot_standby = on\n"
)


@dataclass
class World:
    root: Path
    primary: Postgres
    standby: Postgres
    objects: Seaweed
    spool_bytes: int = 1 << 30
    process: subprocess.Popen[bytes] | None = None
    version: int = 0

    @property
    def folder(self) -> Path:
        return self.root / "archiver"

    @property
    def spool(self) -> Path:
        return self.folder / "s1"

    @property
    def vault(self) -> Vault:
        """A client of its own for each event loop."""
        return Vault(Store(ELSEWHERE, self.objects.url, KEY, SECRET), Key.from_hex(BACKUP_KEY))

    def configure(self) -> None:
        secrets = {"backupKey": BACKUP_KEY, "objectsKey": KEY, "objectsSecret": SECRET}
        (self.root / "secrets.json").write_text(json.dumps(secrets))
        passfile = self.root / "passfile"
        passfile.write_text(f"*:*:*:replicator:{PASSWORD}\n")
        passfile.chmod(0o600)
        config = {
            "region": ELSEWHERE,
            "folder": str(self.folder),
            "shardMap": str(self.root / "map.json"),
            "secrets": str(self.root / "secrets.json"),
            "passfile": str(passfile),
            "bin": str(binaries(self.root) / "bin"),
            "objects": self.objects.url,
            "spoolBytes": self.spool_bytes,
            "settleSeconds": 0.0,
            "alone": False,
            "dial": {server.name: server.port for server in (self.primary, self.standby)},
        }
        _replace(self.root / "archiver.json", config)

    def publish(self, primary: Postgres, home: str = HOME) -> None:
        """The region's map names this primary of s1."""
        self.version += 1
        ends = {
            server.name: Endpoint(server.name, home, "a", "127.0.0.1", server.port)
            for server in (self.primary, self.standby)
        }
        first = ends.pop(primary.name)
        shard = Shard("s1", self.version, home, first, tuple(ends.values()))
        shard_map = ShardMap(self.version, even_ranges(["s1"], self.version), {"s1": shard}, {})
        _replace(self.root / "map.json", shard_map.to_json())

    def start(self) -> None:
        with (self.root / "archiver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "infra.local.backups.archiver"),
                    str(self.root / "archiver.json"),
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(20)

    def end(self) -> None:
        self.kill(signal.SIGTERM)
        status = self.status()
        if status.get("pid"):
            with suppress(ProcessLookupError):
                os.kill(status["pid"], signal.SIGKILL)
        self.objects.stop()
        for server in (self.standby, self.primary):
            server.stop()

    def status(self) -> dict[str, Any]:
        """What the archiver says of s1."""
        try:
            document = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        found: dict[str, Any] = document["databases"].get("s1", {})
        return found

    def log(self) -> str:
        return (self.root / "archiver.log").read_text()

    def eventually(self, what: str, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what}: {self.status()}\n{self.log()[-3000:]}")
            time.sleep(0.05)
        return found

    def sql(self, query: str, server: Postgres | None = None) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(**(server or self.primary).dsn(database="postgres"))
            try:
                return await connection.fetchval(query)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def write(self, rows: int = 1, server: Postgres | None = None) -> int:
        """Commits rows; where the server's WAL then ends, as LSN in bytes."""
        query = f"INSERT INTO t SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, {rows}) g"
        self.sql(query, server)
        return int(self.sql("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint", server))

    def switch(self, server: Postgres | None = None) -> str:
        """The segment that is written now becomes whole; its name."""
        self.write(10, server)
        name = self.sql("SELECT pg_walfile_name(pg_current_wal_lsn())", server)
        self.sql("SELECT pg_switch_wal()", server)
        self.write(1, server)
        return str(name)

    def await_received(self, position: int, seconds: float = 20.0) -> None:
        def received() -> bool:
            return (self.status().get("received") or 0) >= position

        self.eventually(f"received {position}", received, seconds)

    def archived(self) -> dict[str, bytes]:
        """What the object store has of s1, by name of file, opened and checked."""

        async def fetch() -> dict[str, bytes]:
            vault = self.vault
            found = {}
            for each in await vault.store.list("s1/wal"):
                with suppress(NotFound):  # a partial segment that became a whole one meanwhile
                    found[each.name.rpartition("/")[2]] = await vault.get(each.name)
            return found

        return asyncio.run(fetch())

    def names(self) -> set[str]:
        async def ask() -> set[str]:
            return {s.name.rpartition("/")[2] for s in await self.vault.store.list("s1/wal")}

        return asyncio.run(ask())

    def await_archived(self, name: str, seconds: float = 30.0) -> None:
        self.eventually(f"archived {name}", lambda: name in self.names(), seconds)

    def list_full(self, start: int) -> None:
        """The store lists a full backup that began there."""
        document = {"backup": {"id": f"s1-{start}", "kind": "full", "start": start}}

        async def put() -> None:
            name = f"s1/s1-20260101T000000Z-full-{start}/backup.json"
            await self.vault.put(name, json.dumps(document).encode())

        asyncio.run(put())

    def remake(self) -> None:
        """Another database in the place of s1, of which the store has nothing."""

        async def forget() -> None:
            store = self.vault.store
            await store.delete([each.name for each in await store.list("s1/")])

        asyncio.run(forget())
        self.standby.stop()
        self.primary.stop()
        shutil.rmtree(self.primary.data)
        self.make_primary()
        self.publish(self.primary)

    def make_primary(self) -> None:
        self.primary.initialise()
        with (self.primary.data / "postgresql.conf").open("a") as conf:
            conf.write(CONF)
        self.primary.start()
        self.sql(f"CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{PASSWORD}'")
        self.sql("CREATE TABLE t(id int, what text)")

    def on_server(self, name: str, server: Postgres | None = None) -> bytes:
        return ((server or self.primary).data / "pg_wal" / name).read_bytes()


def _replace(path: Path, document: Any) -> None:
    path.with_suffix(".new").write_text(json.dumps(document))
    path.with_suffix(".new").replace(path)


@contextmanager
def world(**options: Any) -> Iterator[World]:
    """A running primary and object store; neither standby nor archiver is started."""
    root = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    root.chmod(0o755)
    old = os.umask(0o022)
    made = World(root, Postgres(root, "a"), Postgres(root, "b"), Seaweed(root / "o"), **options)
    try:
        made.make_primary()
        made.objects.start()
        made.configure()
        made.publish(made.primary)
        yield made
    finally:
        os.umask(old)
        made.end()
        shutil.rmtree(root, ignore_errors=True)
