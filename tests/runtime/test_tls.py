"""With authorities to trust, a service asks by TLS, and nobody but whom they vouch for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.local import certificates
from runtime.errors import Invalid
from runtime.settings import Settings
from runtime.valkey import Valkey


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    certificates.ensure(folder)
    return folder


def settings(ca: str) -> Settings:
    return Settings("orders", "o", "r", "a", Path("map"), "", "", tls_ca=ca)


@asynccontextmanager
async def pong(authority: Path) -> AsyncIterator[tuple[str, int]]:
    """A server that answers every command with PONG, by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "edge.pem", authority / "edge.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            writer.write(b"+PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[:2]


async def test_a_cache_is_asked_by_tls_when_there_is_somebody_to_trust(authority: Path) -> None:
    trust = settings(str(authority / "ca.pem")).trust
    async with pong(authority) as address:
        valkey = Valkey(address, "", 10.0, trust)
        assert await valkey.call("PING") == b"PONG"
        await valkey.close()


async def test_a_cache_that_nobody_vouches_for_is_not_asked(
    authority: Path, tmp_path: Path
) -> None:
    certificates.ensure(tmp_path)
    trust = settings(str(tmp_path / "ca.pem")).trust
    async with pong(authority) as address:
        valkey = Valkey(address, "", 10.0, trust)
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            await valkey.call("PING")
        await valkey.close()


def test_without_authorities_there_is_no_tls_and_a_missing_file_is_told(tmp_path: Path) -> None:
    assert settings("").trust is None
    with pytest.raises(Invalid, match="REGIONCTL_TLS_CA"):
        _ = settings(str(tmp_path / "none.pem")).trust
