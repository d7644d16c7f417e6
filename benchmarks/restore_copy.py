"""A restore beside a plain copy of the same files: a section of benchmarks/RESULTS.md.

    python benchmarks/restore_copy.py [--megabytes N] [--rounds N]

One run, one disk. A database is filled and backed up as the product does it: sealed, into the
object storage of the other region. Rounds alternate between a restore and a copy of the directory
that came of it, each file of which is flushed; the fastest of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import results
from failover import versions

sys.path.insert(0, str(Path(__file__).parent.parent))

from infra.backups import Backup, Target
from infra.local.backups.local import LocalBackups
from infra.local.provider import LocalProvider
from tests.infra import platform
from tests.infra.platform import PRIMARY, REMOTE
from tests.infra.test_backup_restore import archived, one_shard

JSON = dict[str, Any]
TITLE = "A restore beside a plain copy"
BAR = 0.6
ID = "bench"
USERS, ORDERS = 1000, 24
# Keys and digests are random, as real ones are: a backup of them is not smaller than it should be.
FILL = (
    """
    INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at)
    SELECT n, md5(n::text) || '@example.org', 'User ' || n, gen_random_uuid(),
           sha256(n::text::bytea), now()
    FROM generate_series({first}, {last}) AS n
    """,
    """
    INSERT INTO orders (user_id, id, idempotency_key, request_hash, status, currency, total_cents,
                        created_at, keywords)
    SELECT user_id, user_id * 1000 + n, gen_random_uuid(), sha256(gen_random_uuid()::text::bytea),
           'confirmed', 'USD', 500 + n * 100, now() - n * interval '1 day', 'tea pot blue ' || n
    FROM users, generate_series(1, {orders}) AS n WHERE user_id BETWEEN {first} AND {last}
    """,
    """
    INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents, name)
    SELECT user_id, id, 'SKU-' || n, n, 100, 'A thing ' || n
    FROM orders, generate_series(1, 2) AS n WHERE user_id BETWEEN {first} AND {last}
    """,
    """
    INSERT INTO outbox (user_id, event_id, kind, payload, created_at, relayed_at)
    SELECT user_id, id, 'OrderCreated', jsonb_build_object('order_id', id, 'key', idempotency_key),
           now(), now()
    FROM orders WHERE user_id BETWEEN {first} AND {last}
    """,
)
SIZE = "SELECT pg_database_size(current_database())"
POSITION = "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"
CHECKS = "checksums"


@dataclass(frozen=True)
class Restore:
    """`seconds` of each phase and of the whole, from the call to the first answer; `bytes` of the
    data directory that came of it."""

    seconds: Mapping[str, float]
    whole: float
    bytes: int

    @property
    def served(self) -> float:
        """Without the check of every page, which nothing has to wait for."""
        return self.whole - self.seconds[CHECKS]


async def fill(provider: LocalProvider, megabytes: int) -> Backup:
    """A shard of that size at least, with the product's tables and indexes, and its full backup."""
    for region in provider.topology.regions:
        await provider.ensure_region(region.name)
    stores = ["objects.us-east-1a", "objects.us-west-2a"]
    await provider.ensure_running(["link.us-west-2", *stores])
    shard_map = one_shard(provider)
    await provider.create_primary(PRIMARY)
    await provider.publish_map(shard_map)
    await provider.set_epoch(PRIMARY, shard_map, "s1")
    async with provider.monitor.session(PRIMARY) as session:
        await session.execute(
            "SET session_replication_role = replica; SET synchronous_commit = off"
        )
        first = 1
        while await session.fetchval(SIZE) < megabytes << 20:
            for statement in FILL:
                numbers = {"first": first, "last": first + USERS - 1, "orders": ORDERS}
                await session.execute(statement.format(**numbers), timeout=600)
            first += USERS
        await session.execute("VACUUM ANALYZE", timeout=600)
        await session.execute("CHECKPOINT", timeout=600)
        end = await session.fetchval(POSITION)
    await provider.clone(REMOTE, PRIMARY)
    await archived(provider, end)
    return await provider.backups.create("s1", "full", shard_map)


async def restore(provider: LocalProvider) -> Restore:
    """Beside the platform, to everything archived; it stays until it has been copied."""
    began = time.monotonic()
    made = await provider.backups.restore_aside(ID, "s1", Target())
    whole = time.monotonic() - began
    return Restore(made.seconds, whole, size(folder(provider)))


def folder(provider: LocalProvider) -> Path:
    backups = provider.backups
    assert isinstance(backups, LocalBackups)
    return backups.parts.restored / ID / "pgdata"


def size(root: Path) -> int:
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())


def copy(source: Path, target: Path) -> float:
    """Seconds of a copy, file by file, each of them and each folder flushed."""
    began = time.monotonic()
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    took = time.monotonic() - began
    shutil.rmtree(target)
    return took


async def measure(provider: LocalProvider, rounds: int) -> tuple[list[Restore], list[float]]:
    """What is removed leaves its memory to the next: no round has a colder start than another."""
    restores, copies = [], []
    for number in range(rounds):
        restores.append(await restore(provider))
        source = folder(provider)
        copies.append(await asyncio.to_thread(copy, source, source.with_name("copy")))
        await provider.backups.discard(ID)
        print(
            f"round {number + 1}: restored in {restores[-1].whole:.2f} s, "
            f"copied in {copies[-1]:.2f} s",
            file=sys.stderr,
        )
    return restores, copies


def document(backup: Backup, restores: Sequence[Restore], copies: Sequence[float]) -> str:
    best = min(restores, key=lambda each: each.whole)
    served = min(restores, key=lambda each: each.served)
    megabytes = best.bytes / 1e6
    plain = min(copies)
    rest = best.whole - sum(best.seconds.values())
    lines = [
        "| way | seconds (best; all) | MB/s | ratio |",
        "|---|---|---|---|",
        row("restore, to the first answer", [each.whole for each in restores], megabytes, plain),
        row("the same without the page checks", [e.served for e in restores], megabytes, plain),
        row("plain copy, flushed", copies, megabytes, plain),
        "",
        f"Restore: {plain / best.whole:.2f} x plain copy with every page checked, "
        f"{plain / served.served:.2f} x without (bar: {BAR}).",
        "",
        "| phase of the fastest restore | seconds | what |",
        "|---|---|---|",
        *(f"| {name} | {took:.2f} | {PHASES[name]} |" for name, took in best.seconds.items()),
        f"| serve | {rest:.2f} | the server starts, read-only, and answers |",
    ]
    table = "\n".join(lines)
    return f"""\
Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}. A shard of {megabytes:.0f} MB, its full
backup of {backup.stored / 1e6:.0f} MB in {backup.pieces} pieces; {len(restores)} rounds.

{table}

## Method

{METHOD}

{versions()}
"""


def row(name: str, seconds: Sequence[float], megabytes: float, plain: float) -> str:
    best = min(seconds)
    every = ", ".join(f"{each:.2f}" for each in seconds)
    return f"| {name} | {best:.2f} ({every}) | {megabytes / best:.0f} | {plain / best:.2f} |"


PHASES = {
    "download": "the target proven; pieces and WAL fetched, authenticated, unsealed, written",
    "verify": "pg_verifybackup, by the backup's own manifest",
    "combine": "pg_combinebackup, by hard links",
    "recover": "the server flushes the rest, replays, is promoted where the archive ends, stops",
    "checksums": "pg_checksums, every page",
}
METHOD = """\
The database has the product's tables, indexes and rows of a real size with random keys. It is
backed up as the product does it, from the replica, into the other region's object storage (a
server of its own on this machine, over HTTP). The restore is that of `regionctl backup restore
--to new`, to everything archived. The copy is Python's `shutil.copytree` of the directory that came
of it, then each file and folder flushed; its source is in memory, as the stored objects are. MB are
those of that directory, for both. Decryption, decompression, verification, recovery and page checks
are all in the restore's figure."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    with platform.on_this_machine(platform.PAYING) as world:
        backup = world.run(lambda provider: fill(provider, asked.megabytes))
        restores, copies = world.run(lambda provider: measure(provider, asked.rounds))
    text = document(backup, restores, copies)
    results.replace(TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
