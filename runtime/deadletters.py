"""Events that a group could not handle, set aside in `<stream>.dead` until a person decides.

A letter has the fields of the event as it stood in the stream, and beside them

    group      who failed; a replay is for that group only
    reason     why, in one line
    entry      the id that it had in the stream
    failed_at  when it failed first, ISO 8601, UTC

Everything here takes a plain client of a queue, and may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

# A field of a stream's entry: the one group that it is for.
ONLY = b"only"
GROUP, REASON, ENTRY, FAILED_AT = b"group", b"reason", b"entry", b"failed_at"
ABOUT = (GROUP, REASON, ENTRY, FAILED_AT)

# KEYS: the letters, the stream. ARGV: names of ONLY and GROUP, how many names of ABOUT follow,
# these, then the ids.
_REPLAY = """
local about, sent = {}, 0
for i = 4, 3 + ARGV[3] do about[ARGV[i]] = true end
for i = 4 + ARGV[3], #ARGV do
    local letter = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
    if letter then
        local event = {}
        for n = 1, #letter[2], 2 do
            local name, value = letter[2][n], letter[2][n + 1]
            if name == ARGV[2] then
                event[#event + 1] = ARGV[1]
                event[#event + 1] = value
            elseif not about[name] then
                event[#event + 1] = name
                event[#event + 1] = value
            end
        end
        redis.call('XADD', KEYS[2], '*', unpack(event))
        redis.call('XDEL', KEYS[1], ARGV[i])
        sent = sent + 1
    end
end
return sent
"""


@dataclass(frozen=True)
class Letter:
    """`fields` are those of the event, `payload` among them as the JSON text that came."""

    id: str
    group: str
    reason: str
    entry: str
    failed_at: str
    fields: Mapping[str, str]


async def bury(
    client: Redis,
    stream: str,
    group: str,
    entry: tuple[bytes, Mapping[bytes, bytes]],
    reason: str,
    failed_at: str,
    *,
    keep: int,
) -> None:
    """The entry is a dead letter, and acknowledged: both or neither."""
    fields: Any = {name: value for name, value in entry[1].items() if name != ONLY}
    fields |= {GROUP: group, REASON: reason, ENTRY: entry[0], FAILED_AT: failed_at}
    async with client.pipeline(transaction=True) as pipe:
        pipe.xadd(f"{stream}.dead", fields, maxlen=keep, approximate=True)
        pipe.xack(stream, group, entry[0])
        await pipe.execute()


async def count(client: Redis, stream: str) -> int:
    return int(await client.xlen(f"{stream}.dead"))


async def letters(client: Redis, stream: str, *, after: str = "", limit: int = 100) -> list[Letter]:
    """Oldest first, those behind the letter `after`."""
    first = f"({after}" if after else "-"
    found: Any = await client.xrange(f"{stream}.dead", min=first, max="+", count=limit)
    return [_letter(*entry) for entry in found]


async def find(client: Redis, stream: str, id: str) -> Letter | None:
    found: Any = await client.xrange(f"{stream}.dead", min=id, max=id, count=1)
    return _letter(*found[0]) if found else None


async def replay(client: Redis, stream: str, ids: Sequence[str]) -> int:
    """The letters are events of the stream again, for the group that failed. Returns how many.

    Two that replay the same letter at the same time send it once.
    """
    if not ids:
        return 0
    about = [name.decode() for name in ABOUT]
    arguments = [ONLY.decode(), GROUP.decode(), str(len(about)), *about, *ids]
    return int(await client.eval(_REPLAY, 2, f"{stream}.dead", stream, *arguments))


async def drop(client: Redis, stream: str, ids: Sequence[str]) -> int:
    """The letters are gone for good. Returns how many were there."""
    return int(await client.xdel(f"{stream}.dead", *ids)) if ids else 0


def _letter(id: bytes, fields: Mapping[bytes, bytes]) -> Letter:
    text = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in fields.items()
    }
    group, reason, entry, failed_at = (text.pop(name.decode(), "") for name in ABOUT)
    return Letter(id.decode(), group, reason, entry, failed_at, text)
