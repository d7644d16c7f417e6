"""Asks the edge directly whether customers are served, without the control plane."""

from __future__ import annotations

import asyncio
import ssl

from cli.find import Platform

TIMEOUT_SECONDS = 2.0


async def ask(platform: Platform) -> str | None:
    """What the edge of a platform on this machine answers: see `ask_at`."""
    return await ask_at("127.0.0.1", platform.edge_port)


async def ask_at(host: str, port: int) -> str | None:
    """The edge's status line for a read of the catalog, such as "HTTP/1.1 200 OK"; None: silent.

    Only whether it answers is wanted, so the certificate is not checked.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                asked = (
                    f"GET /api/v1/products HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                )
                writer.write(asked.encode())
                await writer.drain()
                return (await reader.readline()).decode("latin-1").strip() or None
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
