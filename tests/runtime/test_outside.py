"""Calls to external servers: repeated where that is safe, and stopped when they go on failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from runtime.clock import SystemClock, wait_until
from runtime.errors import Unavailable
from runtime.outside import Outside

Answer = Callable[[int], str | None]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers request n with the status line that `answer(n)` gives; None: never."""
    met: list[bytes] = []
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        met.append(head)
        status = answer(len(met))
        if status is None:
            await reader.read()
        else:
            body = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(body.encode())
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield f"http://127.0.0.1:{port}", met
    await asyncio.gather(*(task for task in serving if task))


async def trouble(work: Awaitable[object]) -> str:
    """The text of the problem that `work` ends with."""
    with pytest.raises(Unavailable) as problem:
        await work
    assert problem.value.hint
    return problem.value.detail


async def test_a_safe_call_is_repeated_until_it_is_answered() -> None:
    async with server(lambda n: "503 Busy" if n < 3 else "404 Not Found") as (url, met):
        outside = Outside("peer", url)
        assert (await outside.call("GET", "/x")).status_code == 404
        assert len(met) == 3
        key = {"Idempotency-Key": "one"}
        assert (await outside.call("POST", "/x", json={}, headers=key)).status_code == 404
        await outside.close()
        assert b"idempotency-key: one" in met[3].lower()


async def test_a_call_that_is_not_safe_is_made_once() -> None:
    async with server(lambda n: "500 Oops") as (url, met):
        outside = Outside("peer", url)
        detail = await trouble(outside.call("POST", "/x", json={}))
        assert "500" in detail
        assert len(met) == 1
        await outside.close()


async def test_a_call_without_an_answer_ends_in_time() -> None:
    async with server(lambda n: None) as (url, met):
        outside = Outside("peer", url, timeout=0.05, attempts=2)
        assert "ReadTimeout" in await trouble(outside.call("GET", "/x"))
        assert len(met) == 2
        await outside.close()


async def test_a_server_that_goes_on_failing_is_left_alone_for_a_while() -> None:
    status = "500 Oops"
    async with server(lambda n: status) as (url, met):
        outside = Outside("peer", url, attempts=1, threshold=2, rest=0.4)
        for _ in range(2):
            await trouble(outside.call("GET", "/x"))
        assert "rests" in await trouble(outside.call("GET", "/x"))
        assert len(met) == 2
        status = "200 OK"

        async def answered() -> bool:
            try:
                return (await outside.call("GET", "/x")).is_success
            except Unavailable:
                return False

        await wait_until(SystemClock(), answered, what="the server's rest to end", seconds=30)
        assert len(met) == 3
        await outside.close()


async def test_a_server_without_an_address_is_a_problem_and_no_bug() -> None:
    outside = Outside("peer", "")
    assert "no address" in await trouble(outside.call("GET", "/x"))
