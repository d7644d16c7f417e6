"""The client when the control plane goes away, and what importing it costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from control_plane import client as module
from control_plane.client import Client
from runtime.errors import Exit, Unavailable
from tests.control_plane.served import TOKEN, served, state_dir


async def test_nobody_there_is_unavailable_with_exit_code_6_and_a_hint(tmp_path: Path) -> None:
    async with served(state_dir(tmp_path / "state")) as address:
        pass
    async with Client(address, token=TOKEN) as client:
        with pytest.raises(Unavailable) as gone:
            await client.status()
    assert gone.value.exit is Exit.UNREACHABLE
    assert "regionctl up" in (gone.value.hint or "")


async def test_no_platform_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Client("http://127.0.0.1:1", state_dir=tmp_path)


async def test_two_who_follow_see_the_same_across_a_restart_of_the_control_plane(
    tmp_path: Path,
) -> None:
    """The platform in memory is lost by the restart, so the operation may fail: it must end."""
    folder = state_dir(tmp_path / "state")
    async with AsyncExitStack() as stack:
        async with served(folder) as address:
            clients = [
                await stack.enter_async_context(Client(address, token=TOKEN)) for _ in range(2)
            ]
            operation = await clients[0].start("provision", {})
            streams = [client.follow(operation["id"]) for client in clients]
            firsts = [await anext(stream) for stream in streams]
        port = urlparse(address).port
        assert port is not None
        async with served(folder, port):
            one, other = await asyncio.gather(*map(_rest, streams))
            seen = [firsts[0], *one]
            assert [firsts[1], *other] == seen
    sequences = [event["sequence"] for event in seen]
    assert sequences == sorted(set(sequences))
    assert seen[-1]["kind"] in module.FINAL


async def _rest(stream: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in stream]


async def test_following_gives_up_after_its_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.3)
    async with served(state_dir(tmp_path / "state")) as address:
        pass
    async with Client(address, token=TOKEN) as client:
        with pytest.raises(Unavailable):
            [event async for event in client.follow("op-1")]


def test_the_client_and_the_schemas_import_no_server_code() -> None:
    program = (
        "import sys, control_plane.client, control_plane.schemas;"
        "heavy = {'fastapi', 'sqlalchemy', 'uvicorn', 'asyncpg', 'psutil'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
