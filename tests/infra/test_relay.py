"""The relay between two regions, as the real process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from infra.local import relay
from infra.local.relay import Route
from tests.ports import free_ports

pytestmark = pytest.mark.process

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class World:
    """`said` is what the relay writes to its log."""

    table: Path
    route: Route
    said: asyncio.StreamReader | None = None

    def set(self, **changes: object) -> None:
        relay.write_table(self.table, [replace(self.route, **changes)])  # type: ignore[arg-type]

    async def connect(self, seconds: float = 5.0) -> Streams:
        """A connection that answers, tried until it does."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.route.listen)
                writer.write(b"?")
                if await reader.readexactly(1) == b"?":
                    return reader, writer
            except (OSError, asyncio.IncompleteReadError):
                assert time.monotonic() < deadline, "the relay does not answer"
            await asyncio.sleep(0.02)

    async def refused(self, seconds: float = 5.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.route.listen)
            except ConnectionRefusedError:
                return True
            writer.transport.abort()
            await asyncio.sleep(0.02)
        return False


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    target, listen = free_ports(2)
    server = await asyncio.start_server(echo, "127.0.0.1", target)
    world = World(tmp_path / "link.json", Route(listen, ("127.0.0.1", target)))
    world.set()
    command = [sys.executable, "-m", "infra.local.relay", str(world.table)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    world.said = process.stderr
    yield world
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 30) == 0
    server.close()


async def test_bytes_go_through_both_ways(world: World) -> None:
    reader, writer = await world.connect()
    sent = bytes(range(256)) * 4096
    writer.write(sent)
    writer.write_eof()
    assert await reader.read(-1) == sent
    writer.close()


async def test_a_cut_ends_connections_and_refuses_new_ones_until_it_is_healed(world: World) -> None:
    reader, writer = await world.connect()
    world.set(cut=True)
    assert await ends(reader)
    assert await world.refused()
    world.set()
    _, again = await world.connect()
    again.close()
    writer.close()


async def test_a_cut_heals_by_itself(world: World) -> None:
    (await world.connect())[1].close()
    world.set(cut=True, expires_at=time.time() + 0.6)
    assert await world.refused()
    (await world.connect())[1].close()


async def test_a_delay_holds_back_and_keeps_order_and_throughput(world: World) -> None:
    (await world.connect())[1].close()
    world.set(delay_seconds=0.2)
    reader, writer = await slow_connection(world)
    began = time.monotonic()
    sent = b"".join(number.to_bytes(4, "big") for number in range(1 << 18))
    writer.write(sent)
    assert await reader.readexactly(len(sent)) == sent
    took = time.monotonic() - began
    assert 0.4 <= took < 1.5, "two delays, not two for each chunk"
    writer.close()


async def slow_connection(world: World) -> Streams:
    """A connection on which an answer takes as long as the delay demands."""
    while True:
        reader, writer = await world.connect()
        began = time.monotonic()
        writer.write(b"!")
        await reader.readexactly(1)
        if time.monotonic() - began >= 0.4:
            return reader, writer
        writer.close()


async def test_who_sends_much_over_a_distance_is_not_held_up(world: World) -> None:
    """Small pieces are gathered for a moment; a copy of a database comes in large ones."""
    world.set(latency_seconds=0.03)
    reader, writer = await world.connect()
    pieces = 1024
    began = time.monotonic()
    sending = asyncio.create_task(send(writer, bytes(relay.CHUNK), pieces))
    for _ in range(pieces):
        await reader.readexactly(relay.CHUNK)
    assert time.monotonic() - began < pieces * relay.GATHER_SECONDS / 2
    await sending
    writer.close()


async def send(writer: asyncio.StreamWriter, piece: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(piece)
        await writer.drain()


async def test_a_delay_ends_by_itself(world: World) -> None:
    reader, writer = await world.connect()
    world.set(delay_seconds=0.3, expires_at=time.time() + 0.5)
    await asyncio.wait_for(until_quick(reader, writer), 30)
    writer.close()


async def until_quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask until an answer was slow, then until one is quick again."""
    for slow in (True, False):
        while True:
            began = time.monotonic()
            writer.write(b"!")
            await reader.readexactly(1)
            if (time.monotonic() - began >= 0.25) == slow:
                break


async def test_a_route_that_changes_its_target_takes_its_connections_off(world: World) -> None:
    reader, writer = await world.connect()
    (elsewhere,) = free_ports(1)
    server = await asyncio.start_server(shout, "127.0.0.1", elsewhere)
    world.set(target=("127.0.0.1", elsewhere))
    assert await ends(reader)
    reader, other = await asyncio.open_connection("127.0.0.1", world.route.listen)
    assert await reader.readexactly(5) == b"other"
    for each in (writer, other, server):
        each.close()


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"other")
    await reader.read(1)
    writer.close()


async def test_a_table_that_cannot_be_read_leaves_the_routes(world: World) -> None:
    (await world.connect())[1].close()
    temporary = world.table.with_suffix(".bad")
    temporary.write_text('{"routes": [{"listen"')
    temporary.replace(world.table)
    assert world.said
    async with asyncio.timeout(30):
        said = [line async for line in until(world.said, b"keeping the former routes")]
    assert said
    (await world.connect())[1].close()


async def until(reader: asyncio.StreamReader, word: bytes) -> AsyncIterator[bytes]:
    """The first line with `word` in it; nothing when the end comes before."""
    async for line in reader:
        if word in line:
            yield line
            return


async def ends(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(-1), 30) == b""
    except ConnectionResetError:
        return True


def test_a_table_reads_as_it_was_written(tmp_path: Path) -> None:
    routes = (Route(1, ("127.0.0.1", 2)), Route(3, ("127.0.0.1", 4), 0.5, True, 1.5))
    relay.write_table(tmp_path / "table.json", routes)
    assert relay.read_table(tmp_path / "table.json") == routes


def test_a_fault_holds_until_it_expires() -> None:
    route = Route(1, ("127.0.0.1", 2), 0.5, True, expires_at=100.0)
    assert route.at(99.9) == route
    assert route.at(100.0) == Route(1, ("127.0.0.1", 2))


def test_a_document_of_another_shape_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"routes": [{"listen": 1}]}))
    with pytest.raises(ValueError, match="not a table"):
        relay.read_table(path)
