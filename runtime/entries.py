"""Entries of the cache: their keys, how they are written down, and the scripts that change them.

What lies under a key is one of

    V<version>:<fresh until, ms>:<load time, ms>:<body>     a value
    L<mark>                                                  a reader is loading it
    T<highest version put>:<mark>,<mark>                     writers are changing it

A reader that finds nothing leaves an L, and its value goes in only where that L still is. A writer
replaces whatever is there by a T with its mark before it commits, and takes the mark away after;
the value of the last one of them is kept. So nothing that was read before a write can be put after
it, and where an L or T was lost nothing is put at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.shardmap import Placement

LEASE_SECONDS = 10.0
TOMBSTONE_SECONDS = 10.0
# Above every version: what is put with it is never kept.
NO_VERSION = 2**53
# A tombstone of so many writers is lifted by time alone.
CROWD = 64

# KEYS: one. ARGV: mark, ms. What is there, or the mark that is there now.
LEASE = """
local there = redis.call('GET', KEYS[1])
if there then return there end
redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', ARGV[2])
return 'L' .. ARGV[1]
"""
# KEYS: one. ARGV: how what is there must begin, new value, ms.
FILL = """
local there = redis.call('GET', KEYS[1])
if not there or string.sub(there, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
# KEYS: any. ARGV: mark, ms, crowd.
FORGET = """
for _, key in ipairs(KEYS) do
  local there = redis.call('GET', key)
  local new = 'T0:' .. ARGV[1]
  if there and string.sub(there, 1, 1) == 'T' then
    local _, marks = string.gsub(there, ',', ',')
    new = there
    if marks < tonumber(ARGV[3]) then new = there .. ',' .. ARGV[1] end
  end
  redis.call('SET', key, new, 'PX', ARGV[2])
end
return #KEYS
"""
# KEYS: one. ARGV: mark, version, value (empty: none), ms.
PUT = """
local there = redis.call('GET', KEYS[1])
if not there then return 0 end
local version = tonumber(ARGV[2])
local kind = string.sub(there, 1, 1)
if kind == 'V' then
  if tonumber(string.match(there, '^V(%d+):')) < version then redis.call('DEL', KEYS[1]) end
  return 0
end
if kind ~= 'T' then
  redis.call('DEL', KEYS[1])
  return 0
end
local highest, marks = string.match(there, '^T(%d+):(.*)$')
local others, mine = {}, false
for mark in string.gmatch(marks, '[^,]+') do
  if mark == ARGV[1] then mine = true else others[#others + 1] = mark end
end
if mine and #others == 0 then
  if ARGV[3] ~= '' and version >= tonumber(highest) then
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
    return 1
  end
  redis.call('DEL', KEYS[1])
  return 0
end
if version > tonumber(highest) then highest = ARGV[2] end
redis.call('SET', KEYS[1], 'T' .. highest .. ':' .. table.concat(others, ','), 'KEEPTTL')
return 0
"""
# KEYS: one. ARGV: version, value, ms.
RENEW = """
local there = redis.call('GET', KEYS[1])
if there and string.sub(there, 1, 1) == 'V'
   and tonumber(string.match(there, '^V(%d+):')) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


@dataclass(frozen=True)
class Found:
    """What is known about one thing. `version` grows with every change of it."""

    version: int
    body: bytes


@dataclass(frozen=True)
class Stored:
    """A value as it lies in the cache; times in milliseconds."""

    found: Found
    fresh_until: int
    load_ms: int


def entry_key(kind: str, place: Placement, id: int | str) -> str:
    """Names shard and epoch, so a failover leaves every entry of the shard behind.

    A writer takes `place` from what `Shards.write` returned, a reader from the map.
    """
    return f"{kind}:{place.shard.name}:{place.epoch}:{id}"


def encode(stored: Stored) -> bytes:
    found = stored.found
    return b"V%d:%d:%d:%b" % (found.version, stored.fresh_until, stored.load_ms, found.body)


def decode(value: bytes | None) -> Stored | None:
    """None for a miss, a lease, a tombstone, and for what nobody here wrote."""
    if not value or value[:1] != b"V":
        return None
    parts = value[1:].split(b":", 3)
    if len(parts) != 4 or not all(part.isdigit() for part in parts[:3]):
        return None
    return Stored(Found(int(parts[0]), parts[3]), int(parts[1]), int(parts[2]))
