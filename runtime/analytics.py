"""Every event, kept for analysis: gzipped JSON lines in object storage, by day and hour.

    analytics/day=YYYY-MM-DD/hour=HH/<first>-<last>.jsonl.gz     ids of the stream's entries

One line an entry: {"stream_id", "at", "id", "kind", "payload"}; `payload` is a text when it is no
JSON. An object's name says which entries it holds, so a repetition overwrites itself; after a
reader has died an entry may be in two objects, which its `stream_id` tells. Entries are
acknowledged when the storage has them: while it is away, they wait in the queue.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from runtime.context import Context
from runtime.deadletters import ONLY
from runtime.errors import Problem
from runtime.events import STREAM
from runtime.objects import ANALYTICS, Objects

log = logging.getLogger(__name__)

GROUP = "analytics"
BATCH = 1000
FLUSH_SECONDS = 5.0
# An entry that its reader has had for so long belongs to a reader that died.
ORPHAN_SECONDS = 60.0
PAUSES = (1.0, 2.0, 5.0)

Entry = tuple[bytes, Mapping[bytes, bytes]]


def object_key(entries: Sequence[Entry]) -> str:
    """The name of an object that holds `entries`, which are all of one hour."""
    first, last = entries[0][0].decode(), entries[-1][0].decode()
    at = _time(entries[0][0])
    return f"day={at:%Y-%m-%d}/hour={at:%H}/{first}-{last}.jsonl.gz"


def by_hour(entries: Sequence[Entry]) -> list[list[Entry]]:
    """`entries` in the stream's order, in runs of one hour (UTC) each."""
    runs: list[list[Entry]] = []
    for entry in sorted(entries, key=lambda each: _position(each[0])):
        hour = _position(entry[0])[0] // 3_600_000
        if runs and _position(runs[-1][0][0])[0] // 3_600_000 == hour:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def lines(entries: Sequence[Entry]) -> bytes:
    """The object's bytes; the same entries are the same bytes."""
    text = "".join(
        json.dumps(_document(entry), separators=(",", ":"), ensure_ascii=False) + "\n"
        for entry in entries
    )
    return gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)


def _document(entry: Entry) -> dict[str, Any]:
    fields = {name.decode(errors="replace"): value for name, value in entry[1].items()}
    payload: Any = fields.get("payload", b"").decode(errors="replace")
    with suppress(ValueError):
        payload = json.loads(payload)
    return {
        "stream_id": entry[0].decode(),
        "at": _time(entry[0]).isoformat(timespec="milliseconds"),
        "id": fields.get("id", b"").decode(errors="replace"),
        "kind": fields.get("kind", b"").decode(errors="replace"),
        "payload": payload,
    }


def _position(id: bytes) -> tuple[int, int]:
    milliseconds, _, number = id.partition(b"-")
    return int(milliseconds), int(number)


def _time(id: bytes) -> datetime:
    return datetime.fromtimestamp(_position(id)[0] / 1000, UTC)


async def consume(context: Context, objects: Objects) -> None:
    """Keeps events until cancelled: every 5 s, or sooner when there are 1000."""
    clock = context.clock
    archive = Archive(context.settings.instance, objects)
    failures = 0
    while True:
        try:
            client, _ = await context.streams.queue()
            kept = await archive.turn(client)
            failures = 0
            if kept < BATCH:
                await clock.sleep(FLUSH_SECONDS)
        except (RedisError, OSError, Problem) as error:
            log.warning("analytics wait", extra={"data": {"reason": repr(error)}})
            await clock.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1


class Archive:
    """One reader of the group. `name` is its own, and the same after a restart."""

    def __init__(self, name: str, objects: Objects, orphan_seconds: float = ORPHAN_SECONDS) -> None:
        self._name = name
        self._objects = objects
        self._orphan_milliseconds = int(orphan_seconds * 1000)

    async def turn(self, client: Redis) -> int:
        """Keeps one batch and returns how many entries that was.

        What this reader left unfinished comes first, as the same batch; then what a dead reader
        left; then what is new. Raises `RedisError`, `OSError` or `Unavailable`: the batch waits.
        """
        await self._ensure_group(client)
        entries = await self._read(client, "0") or await self._orphans(client)
        entries = entries or await self._read(client, ">")
        if entries:
            await self._keep(client, entries)
        return len(entries)

    async def _ensure_group(self, client: Redis) -> None:
        try:
            await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _read(self, client: Redis, after: str) -> list[Entry]:
        answer: Any = await client.xreadgroup(GROUP, self._name, {STREAM: after}, count=BATCH)
        return [entry for _, entries in answer or [] for entry in entries]

    async def _orphans(self, client: Redis) -> list[Entry]:
        answer: Any = await client.xautoclaim(
            STREAM, GROUP, self._name, min_idle_time=self._orphan_milliseconds, count=BATCH
        )
        return list(answer[1])

    async def _keep(self, client: Redis, entries: Sequence[Entry]) -> None:
        # An entry that the stream has cut off has no fields; one sent again for a single group
        # was kept when it came first.
        whole = [entry for entry in entries if entry[1] and ONLY not in entry[1]]
        for run in by_hour(whole):
            await self._objects.put(ANALYTICS, object_key(run), lines(run), "application/gzip")
        await client.xack(STREAM, GROUP, *[entry[0] for entry in entries])
