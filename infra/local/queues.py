"""The queue of a region as an operator sees it: how far consumers are, and what they set aside.

Asked of the queue that the shard map names.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from infra.provider import JSON
from runtime import deadletters
from runtime.deadletters import Letter
from runtime.errors import Unavailable
from runtime.events import STREAM
from runtime.shardmap import Endpoint

SHOWN = 1000
SECONDS = 3.0


@asynccontextmanager
async def _client(endpoint: Endpoint, password: str) -> AsyncIterator[Redis]:
    client = Redis(
        host=endpoint.host,
        port=endpoint.port,
        password=password,
        protocol=2,
        socket_timeout=SECONDS,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"The queue {endpoint.instance} does not answer: {error}.",
            hint="regionctl status; then try again.",
            runbook="queue-lost",
        ) from error
    finally:
        await client.aclose()


async def dead_letters(endpoint: Endpoint, password: str) -> list[JSON]:
    async with _client(endpoint, password) as client:
        found = await deadletters.letters(client, STREAM, limit=SHOWN)
    return [_document(letter) for letter in found]


def _document(letter: Letter) -> JSON:
    text = letter.fields.get("payload", "")
    try:
        payload = json.loads(text)
    except ValueError:
        payload = text  # It may be what made the event unreadable.
    buried = datetime.fromtimestamp(int(letter.id.partition("-")[0]) / 1000, UTC)
    return {
        "id": letter.id,
        "event": letter.fields.get("id", ""),
        "kind": letter.fields.get("kind", ""),
        "payload": payload,
        "group": letter.group,
        "reason": letter.reason,
        "entry": letter.entry,
        "at": letter.failed_at or buried.isoformat(),
    }


async def replay_dead(endpoint: Endpoint, password: str, ids: Sequence[str]) -> int:
    async with _client(endpoint, password) as client:
        return await deadletters.replay(client, STREAM, ids)


async def drop_dead(endpoint: Endpoint, password: str, ids: Sequence[str]) -> int:
    async with _client(endpoint, password) as client:
        return await deadletters.drop(client, STREAM, ids)


async def lag(endpoint: Endpoint, password: str) -> dict[str, dict[str, int]]:
    async with _client(endpoint, password) as client:
        try:
            groups: Any = await client.xinfo_groups(STREAM)
        except ResponseError:
            return {}  # Nothing was ever sent.
    return {
        # Valkey does not know it when entries ahead of the group were trimmed away.
        group["name"].decode(): {"lag": int(group["lag"] or 0), "pending": int(group["pending"])}
        for group in groups
    }
