"""The archiver of a region: it keeps the WAL of databases that are at home elsewhere.

`python -m infra.local.backups.archiver CONFIG.json` reads the region's shard map, receives the WAL
of each such database into its spool (`receive`), and puts what is complete, and every few seconds
what is not, sealed into the region's object store (`stream`). It needs no control plane. What it
knows it writes to `status.json` each second.

Until there is something to keep it loads nothing but the standard library: it starts with its
region, and what comes up then needs the processors more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.shardmap import ShardMap

if TYPE_CHECKING:
    from infra.local.backups.receive import Tools
    from infra.local.backups.store import Vault
    from infra.local.backups.stream import Stream

STATUS = "status.json"
TICK_SECONDS = 1.0
SWEEP_SECONDS = 30.0

log = logging.getLogger("archiver")


@dataclass(frozen=True)
class Config:
    """What the archiver is told. `dial` has the port by which it reaches each database node,
    `alone` says that there is no other region, so that it keeps its own databases' WAL. On a
    fresh platform it waits `settle_seconds` after the first map."""

    region: str
    folder: Path
    shard_map: Path
    secrets: Path
    passfile: Path
    bin: Path
    objects: str
    spool_bytes: int
    settle_seconds: float
    alone: bool
    dial: Mapping[str, int]

    @staticmethod
    def read(path: Path) -> Config:
        """Raises `OSError`, `ValueError`, `KeyError` when it is no configuration."""
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Config(
            raw["region"],
            Path(raw["folder"]),
            Path(raw["shardMap"]),
            Path(raw["secrets"]),
            Path(raw["passfile"]),
            Path(raw["bin"]),
            raw["objects"],
            raw["spoolBytes"],
            raw["settleSeconds"],
            raw["alone"],
            raw["dial"],
        )


def wanted(config: Config, shard_map: ShardMap) -> dict[str, str]:
    """database → the primary from which this archiver receives."""
    return {
        name: shard.primary.instance
        for name, shard in shard_map.shards.items()
        if (config.alone or shard.home != config.region) and shard.primary.instance in config.dial
    }


@dataclass
class Bench:
    """What the streams are made of, and the streams. Made when there is something to keep."""

    tools: Tools
    vault: Vault
    streams: dict[str, Stream] = field(default_factory=dict)

    @staticmethod
    def make(config: Config) -> Bench:
        from infra.local.backups.receive import Tools, slot_name
        from infra.local.backups.seal import Key
        from infra.local.backups.store import Store, Vault

        secrets = json.loads(config.secrets.read_text(encoding="utf-8"))
        key, secret = secrets["objectsKey"], secrets["objectsSecret"]
        store = Store(config.region, config.objects, key, secret)
        return Bench(
            Tools(config.bin, config.passfile, slot_name(config.region)),
            Vault(store, Key.from_hex(secrets["backupKey"])),
        )

    def stream(self, config: Config, database: str) -> Stream:
        if database not in self.streams:
            from infra.local.backups.stream import Stream

            folder = config.folder / database
            self.streams[database] = Stream(database, folder, self.tools, self.vault)
        return self.streams[database]


class Archiver:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = Config.read(path)
        self._stamps: dict[Path, tuple[int, int] | None] = {}
        self._map: ShardMap | None = None
        self._mapped_at: float | None = None
        self._fresh = not (self._config.folder / STATUS).exists()
        self._bench: Bench | None = None
        self._swept: dict[str, float] = {}
        self._alarmed = False

    @property
    def _streams(self) -> dict[str, Stream]:
        return self._bench.streams if self._bench else {}

    async def run(self, stop: asyncio.Event) -> None:
        """Archives until `stop` is set."""
        try:
            while not stop.is_set():
                self._look()
                if self._map is not None and self._settled():
                    self._bench = self._bench or Bench.make(self._config)
                    await self._follow(self._bench, self._map)
                    self._keep_bound()
                self._write_status()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), TICK_SECONDS)
        finally:
            await asyncio.gather(*(stream.stop() for stream in self._streams.values()))

    def _settled(self) -> bool:
        if self._mapped_at is None:
            self._mapped_at = time.monotonic()
        waited = time.monotonic() - self._mapped_at
        return not self._fresh or waited >= self._config.settle_seconds

    def _look(self) -> None:
        """Configuration and map as they are now; the former ones while a new one is unreadable."""
        try:
            if self._changed(self._path):
                self._config = Config.read(self._path)
            if self._changed(self._config.shard_map):
                document = json.loads(self._config.shard_map.read_text(encoding="utf-8"))
                self._map = ShardMap.from_json(document)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("keeping the former map: %r", error)

    def _changed(self, path: Path) -> bool:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        stamp = (stat.st_mtime_ns, stat.st_ino)
        changed = self._stamps.get(path) != stamp
        self._stamps[path] = stamp
        return changed

    async def _follow(self, bench: Bench, shard_map: ShardMap) -> None:
        """A stream for each database that is ours to keep, from the primary that it has now."""
        sources = wanted(self._config, shard_map)
        for name in set(bench.streams) - set(sources):
            log.info("%s: its WAL is no longer ours to keep", name)
            await bench.streams.pop(name).stop()
        for name in _folders(self._config.folder) - set(shard_map.shards):
            log.info("%s: it is gone; so is what was kept for its archive", name)
            await asyncio.to_thread(shutil.rmtree, self._config.folder / name, ignore_errors=True)
        for name, instance in sources.items():
            stream = bench.stream(self._config, name)
            await stream.follow(instance, self._config.dial[instance])
        await self._sweep(bench, shard_map, set(sources.values()))

    async def _sweep(self, bench: Bench, shard_map: ShardMap, sources: set[str]) -> None:
        """No other node keeps WAL for us, such as a primary that was deposed."""
        from infra.local.backups.receive import LOST

        for shard in shard_map.shards.values():
            for node in (shard.primary, *shard.replicas):
                due = self._swept.get(node.instance, 0.0)
                port = self._config.dial.get(node.instance)
                if node.instance in sources:
                    self._swept.pop(node.instance, None)
                elif port is not None and time.monotonic() >= due:
                    self._swept[node.instance] = time.monotonic() + SWEEP_SECONDS
                    with contextlib.suppress(*LOST):
                        await bench.tools.drop_slot(port)

    def _keep_bound(self) -> None:
        from infra.local.backups.spool import Bound

        bound = Bound(self._config.spool_bytes)
        waiting = {name: stream.waiting for name, stream in self._streams.items()}
        total = sum(waiting.values())
        if bound.alarms(total) != self._alarmed:
            self._alarmed = not self._alarmed
            level = logging.ERROR if self._alarmed else logging.INFO
            log.log(level, "%d of %d bytes wait for the object storage", total, bound.limit)
        receiving = {name: size for name, size in waiting.items() if not self._streams[name].held}
        full = bound.gives_up(receiving, total)
        for name, stream in self._streams.items():
            if name == full:
                stream.hold()
            elif stream.held and bound.resumes(total):
                stream.release()

    def _write_status(self) -> None:
        document = {
            "region": self._config.region,
            "monotonic": time.monotonic(),
            "pid": os.getpid(),
            "mapVersion": self._map.version if self._map else None,
            "alarm": self._alarmed,
            "databases": {name: stream.status() for name, stream in self._streams.items()},
        }
        path = self._config.folder / STATUS
        temporary = path.with_name(f".{STATUS}")
        try:
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            log.error("cannot write %s: %s", path, error.strerror)


def _folders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def _alone(folder: Path) -> int:
    """Waits until no other archiver works in `folder`; returns the lock's descriptor."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


async def _main(path: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Archiver(path).run(stop)


if __name__ == "__main__":
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _alone(Config.read(Path(sys.argv[1])).folder)
    asyncio.run(_main(Path(sys.argv[1])))
