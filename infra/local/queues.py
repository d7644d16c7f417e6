"""The queue of a region as an operator sees it: how far consumers are, and what they set aside.

Asked of the queue that the shard map names. What a verb changes, it changes in one script, so
that whoever repeats it meets either all of it or nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from infra.provider import JSON
from runtime.errors import Unavailable
from runtime.events import STREAM
from runtime.shardmap import Endpoint

DEAD = f"{STREAM}.dead"
SHOWN = 1000
SECONDS = 3.0

_FORGET = "return redis.call('XDEL', KEYS[1], unpack(ARGV))"
# The event's own fields go back to the stream, for the group that could not handle it.
_REPLAY = """
local replayed = 0
for _, id in ipairs(ARGV) do
    local found = redis.call('XRANGE', KEYS[1], id, id)[1]
    if found then
        local fields = {}
        for i = 1, #found[2], 2 do
            local name, value = found[2][i], found[2][i + 1]
            if name == 'group' then name = 'only' end
            if name ~= 'reason' and name ~= 'entry' then
                fields[#fields + 1] = name
                fields[#fields + 1] = value
            end
        end
        redis.call('XADD', KEYS[2], '*', unpack(fields))
        redis.call('XDEL', KEYS[1], id)
        replayed = replayed + 1
    end
end
return replayed
"""


@asynccontextmanager
async def _client(endpoint: Endpoint, password: str) -> AsyncIterator[Redis]:
    client = Redis(
        host=endpoint.host,
        port=endpoint.port,
        password=password,
        protocol=2,
        decode_responses=True,
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
        ) from error
    finally:
        await client.aclose()


async def dead_letters(endpoint: Endpoint, password: str) -> list[JSON]:
    async with _client(endpoint, password) as client:
        rows: Any = await client.xrange(DEAD, count=SHOWN)
    return [_letter(id, fields) for id, fields in rows]


def _letter(id: str, fields: Mapping[str, str]) -> JSON:
    try:
        payload = json.loads(fields.get("payload", ""))
    except ValueError:
        payload = fields.get("payload")  # It may be what made the event unreadable.
    at = datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, UTC)
    return {
        "id": id,
        "event": fields.get("id", ""),
        "kind": fields.get("kind", ""),
        "payload": payload,
        "group": fields.get("group", ""),
        "reason": fields.get("reason", ""),
        "entry": fields.get("entry", ""),
        "at": at.isoformat(),
    }


async def replay_dead(endpoint: Endpoint, password: str, ids: Sequence[str]) -> int:
    return await _evaluate(endpoint, password, _REPLAY, (DEAD, STREAM), ids)


async def drop_dead(endpoint: Endpoint, password: str, ids: Sequence[str]) -> int:
    return await _evaluate(endpoint, password, _FORGET, (DEAD,), ids)


async def _evaluate(
    endpoint: Endpoint, password: str, script: str, keys: Sequence[str], ids: Sequence[str]
) -> int:
    if not ids:
        return 0
    async with _client(endpoint, password) as client:
        done: Any = await client.eval(script, len(keys), *keys, *ids)
    return int(done)


async def lag(endpoint: Endpoint, password: str) -> dict[str, dict[str, int]]:
    async with _client(endpoint, password) as client:
        try:
            groups: Any = await client.xinfo_groups(STREAM)
        except ResponseError:
            return {}  # Nothing was ever sent.
    return {
        # Unknown after entries were deleted in the middle: then all that is left counts.
        group["name"]: {"lag": int(group["lag"] or 0), "pending": int(group["pending"])}
        for group in groups
    }
