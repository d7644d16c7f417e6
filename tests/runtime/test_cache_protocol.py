"""The entries' protocol on a real Valkey: readers, writers, crashes and losses in any order.

What is promised: a lookup never gives a version older than one whose writer had finished (`put`
or `lift` had returned) when the lookup began; nor than one that was committed then, though its
writer died, unless the cache lost the tombstone before that commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from runtime import entries
from runtime.entries import Found, Stored
from tests.runtime.servers import PASSWORD, Valkey

pytestmark = pytest.mark.process
KEY = "k"
MS = 600_000
# "crash" is a writer that dies after its commit, "abort" one that dies before.
KINDS = ("reader", "refresh", "put", "lift", "crash", "abort", "lose", "ten-seconds")
Steps = Iterator[None]


@dataclass
class Writer:
    version: int = 0
    exposed: bool = False
    ended: bool = False
    done: bool = False


class World:
    """A row, its entry, and who is at work on them. Each `next` of a program is one step."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.row = 1
        self.marks = 0
        self.writers: list[Writer] = []
        client.delete(KEY)

    def program(self, kind: str) -> Steps:
        if kind == "reader":
            return self.reader()
        if kind == "refresh":
            return self.refresh()
        if kind == "lose":
            return self.lose()
        if kind == "ten-seconds":
            return self.ten_seconds()
        return self.writer(kind)

    def reader(self) -> Steps:
        floor = self.floor()
        if self.there()[:1] == b"V":
            return
        yield
        there = self.script(entries.LEASE, self.mark(), MS)
        if stored := entries.decode(there):
            assert stored.found.version >= floor
            return
        yield
        read = self.row
        yield
        if there[:1] == b"L":
            self.script(entries.FILL, there, self.value(read), MS)

    def refresh(self) -> Steps:
        seen = self.there()
        if seen[:1] != b"V":
            return
        yield
        read = self.row
        yield
        self.script(entries.FILL, seen[: seen.index(b":") + 1], self.value(read), MS)

    def writer(self, kind: str) -> Steps:
        writer, mark = Writer(), self.mark()
        self.writers.append(writer)
        self.script(entries.FORGET, mark, MS, entries.CROWD)
        yield
        if kind == "abort" or writer.ended:
            writer.ended = True
            return
        self.row += 1
        writer.version, writer.ended = self.row, True
        yield
        if kind == "put":
            self.script(entries.PUT, mark, writer.version, self.value(writer.version), MS)
        elif kind == "lift":
            self.script(entries.PUT, mark, entries.NO_VERSION, b"", MS)
        writer.done = kind in ("put", "lift")

    def lose(self) -> Steps:
        """The entry is evicted, or the cache was started again."""
        self.client.delete(KEY)
        for writer in self.writers:
            writer.exposed |= not writer.ended
        yield from ()

    def ten_seconds(self) -> Steps:
        """Tombstones end; a writer that has not committed by then never does."""
        for writer in self.writers:
            writer.ended = True
        if self.there()[:1] == b"T":
            self.client.delete(KEY)
        yield from ()

    def floor(self) -> int:
        """No lookup that begins now may give less."""
        return max([1, *(w.version for w in self.writers if w.done or not w.exposed)])

    def check(self) -> None:
        if stored := entries.decode(self.there()):
            assert stored.found.version >= self.floor()

    def there(self) -> bytes:
        return self.client.get(KEY) or b""

    def script(self, source: str, *arguments: object) -> Any:
        return self.client.eval(source, 1, KEY, *arguments)

    def mark(self) -> str:
        self.marks += 1
        return f"{self.marks:012x}"

    def value(self, version: int) -> bytes:
        return entries.encode(Stored(Found(version, b"body"), 0, 0))


@pytest.fixture(scope="module")
def client(queue: Valkey) -> Iterator[Any]:
    made = Redis(port=queue.port, password=PASSWORD, protocol=2)
    yield made
    made.close()


@settings(max_examples=600)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=6),
    turns=st.lists(st.integers(0, 5), min_size=24, max_size=24),
)
def test_no_lookup_gives_what_was_old_when_it_began(
    client: Any, kinds: list[str], turns: list[int]
) -> None:
    world = World(client)
    at_work = [world.program(kind) for kind in kinds]
    for turn in turns:
        if not at_work:
            break
        one = at_work[turn % len(at_work)]
        try:
            next(one)
        except StopIteration:
            at_work.remove(one)
        world.check()
