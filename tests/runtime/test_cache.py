"""The cache on a real Valkey: entries, their protocol, stampedes, and a cache that is away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtime import entries
from runtime.cache import Cache
from runtime.clock import SystemClock
from runtime.entries import Found
from tests.runtime.servers import PASSWORD, Valkey

pytestmark = pytest.mark.process


@pytest.fixture
async def cache(queue: Valkey) -> AsyncIterator[Cache]:
    made = Cache(("127.0.0.1", queue.port), PASSWORD, SystemClock())
    await made._ask("FLUSHALL")
    yield made
    await made.close()


class Row:
    """A row of a database, and how often it was read."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.loading = asyncio.Event()

    async def load(self) -> Found:
        self.loads += 1
        self.loading.set()
        found = Found(self.version, b"body %d" % self.version)
        await self.gate.wait()
        return found


async def test_an_entry_is_loaded_once_and_then_found(cache: Cache) -> None:
    row = Row()
    assert await cache.get("k") is None
    for _ in range(3):
        assert await cache.fetch("k", row.load, 60) == Found(1, b"body 1")
    assert row.loads == 1
    assert await cache.get("k") == Found(1, b"body 1")


async def test_nothing_is_kept_of_a_thing_that_is_not_there(cache: Cache) -> None:
    async def nothing() -> None:
        return None

    assert await cache.fetch("k", nothing, 60) is None
    assert await cache.fetch("k", Row().load, 60) == Found(1, b"body 1")


async def test_a_stampede_of_misses_is_one_load(cache: Cache) -> None:
    row = Row()
    row.gate.clear()
    waiting = [asyncio.ensure_future(cache.fetch("k", row.load, 60)) for _ in range(200)]
    await row.loading.wait()
    # These come while the load runs, and its lease is still there.
    waiting += [asyncio.ensure_future(cache.fetch("k", row.load, 60)) for _ in range(50)]
    await cache.get("k")
    row.gate.set()
    assert set(await asyncio.gather(*waiting)) == {Found(1, b"body 1")}
    assert row.loads == 1


async def test_a_stampede_on_a_cache_that_is_away_is_a_load_under_way_and_one_more() -> None:
    cache = Cache(None, "", SystemClock())
    row = Row()
    row.gate.clear()
    waiting = [asyncio.ensure_future(cache.fetch("k", row.load, 60)) for _ in range(100)]
    await row.loading.wait()
    waiting += [asyncio.ensure_future(cache.fetch("k", row.load, 60)) for _ in range(100)]
    await asyncio.sleep(0)
    row.gate.set()
    await asyncio.gather(*waiting)
    assert row.loads == 2


async def test_who_comes_after_a_write_shares_no_load_that_began_before(cache: Cache) -> None:
    row = Row()
    row.gate.clear()
    early = asyncio.ensure_future(cache.fetch("k", row.load, 60))
    await row.loading.wait()
    mark = await cache.forget(["k"])
    row.version = 2
    await cache.lift(["k"], mark)
    late = asyncio.ensure_future(cache.fetch("k", row.load, 60))
    await cache.get("k")
    row.gate.set()
    assert await early == Found(1, b"body 1")
    assert await late == Found(2, b"body 2")


async def test_a_value_read_before_a_write_is_not_put_after_it(cache: Cache) -> None:
    row = Row()
    row.gate.clear()
    early = asyncio.ensure_future(cache.fetch("k", row.load, 60))
    await row.loading.wait()
    mark = await cache.forget(["k"])
    await cache.put("k", 2, b"body 2", 60, mark)
    await cache._ask("DEL", "k")
    row.gate.set()
    assert await early == Found(1, b"body 1")
    assert await cache.get("k") is None


async def test_a_forgotten_entry_is_loaded_by_everybody_until_its_writer_puts_it(
    cache: Cache,
) -> None:
    row = Row()
    await cache.fetch("k", row.load, 60)
    mark = await cache.forget(["k"])
    await cache.fetch("k", row.load, 60)
    assert (row.loads, await cache.get("k")) == (2, None)
    await cache.put("k", 2, b"new", 60, mark)
    assert await cache.fetch("k", row.load, 60) == Found(2, b"new")
    assert row.loads == 2


async def test_of_two_writers_the_last_to_finish_leaves_the_highest_version(cache: Cache) -> None:
    one, two = await cache.forget(["k"]), await cache.forget(["k"])
    await cache.put("k", 2, b"two", 60, one)
    assert await cache.get("k") is None
    await cache.put("k", 3, b"three", 60, two)
    assert await cache.get("k") == Found(3, b"three")
    one, two = await cache.forget(["k"]), await cache.forget(["k"])
    await cache.put("k", 5, b"five", 60, two)
    await cache.put("k", 4, b"four", 60, one)
    assert await cache.get("k") is None


async def test_an_entry_near_its_end_is_given_while_one_loads_it_again(cache: Cache) -> None:
    row = Row()
    dear = entries.Stored(Found(1, b"body 1"), fresh_until=0, load_ms=1000)
    await cache._ask("SET", "k", entries.encode(dear), "PX", 60_000)
    answers = await asyncio.gather(*(cache.fetch("k", row.load, 60) for _ in range(100)))
    assert set(answers) == {Found(1, b"body 1")}
    await asyncio.gather(*cache._tasks)
    assert row.loads == 1
    stored = entries.decode(await cache._ask("GET", "k"))
    assert stored is not None
    assert stored.fresh_until > 0


async def test_a_load_that_fails_fails_all_who_share_it_and_is_tried_again(cache: Cache) -> None:
    async def broken() -> Found:
        raise ValueError("database")

    answers = await asyncio.gather(
        *(cache.fetch("k", broken, 60) for _ in range(5)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [ValueError] * 5
    assert await cache.fetch("k", Row().load, 60) == Found(1, b"body 1")


async def test_a_cache_away_is_a_miss_and_what_was_to_be_forgotten_is_when_it_is_back(
    server_root: Path,
) -> None:
    server = Valkey(server_root, "frozen-cache")
    server.start()
    cache = Cache(("127.0.0.1", server.port), PASSWORD, SystemClock())
    other = Cache(("127.0.0.1", server.port), PASSWORD, SystemClock())
    row = Row()
    try:
        await cache.fetch("k", row.load, 60)
        assert server.process
        server.process.send_signal(signal.SIGSTOP)
        mark = await cache.forget(["k"])
        row.version = 2
        began = asyncio.get_running_loop().time()
        assert await cache.fetch("k", row.load, 60) == Found(2, b"body 2")
        await cache.put("k", 2, b"body 2", 60, mark)
        for _ in range(20):
            assert await cache.get_many(["k"]) == [None]
        assert asyncio.get_running_loop().time() - began < 1.0
        server.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            await asyncio.gather(*cache._tasks)
        assert await other.fetch("k", row.load, 60) == Found(2, b"body 2")
    finally:
        await cache.close()
        await other.close()
        server.stop()


async def test_commands_of_one_turn_of_the_loop_share_a_write(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.get("warm")
    assert cache._valkey is not None
    wire = cache._valkey._wire
    assert wire is not None
    sent: list[int] = []
    send = wire.send

    def counted(commands: list[Any]) -> None:
        sent.append(len(commands))
        send(commands)

    monkeypatch.setattr(wire, "send", counted)
    await asyncio.gather(*(cache.get(f"k{n}") for n in range(64)))
    assert sent == [64]


async def test_a_lost_connection_is_made_again(cache: Cache) -> None:
    await cache.put_many({"k": b"1"}, 60)
    assert cache._valkey is not None
    assert cache._valkey._wire is not None
    cache._valkey._wire.lose(ConnectionResetError("test"))
    assert await cache.get_many(["k"]) == [b"1"]


async def test_an_error_of_the_server_is_a_miss(cache: Cache) -> None:
    await cache._ask("RPUSH", "list", "x")
    assert await cache.get("list") is None
    assert await cache.get_many(["list"]) == [None]
