"""A tiny HTTP server that notes each POST it has received: PORT JOURNAL.

Every answer is one write, 5 ms after the request. A line of the journal is the request's
x-attempt header, written before the answer.
"""

from __future__ import annotations

import asyncio
import os
import sys


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            await reader.readexactly(int(headers.get("content-length", 0)))
            if lines[0].startswith("POST"):
                os.write(JOURNAL, f"{headers.get('x-attempt')}\n".encode())
            if "/health/" not in lines[0]:
                await asyncio.sleep(0.3 if "/slow" in lines[0] else 0.005)
            name = str(PORT).encode()
            request = headers.get("x-request-id", "").encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nserver: tiny\r\n"
                b"x-saw-request: %b\r\n\r\n%b" % (len(name), request, name)
            )
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", PORT)
    await server.serve_forever()


if __name__ == "__main__":
    PORT = int(sys.argv[1])
    JOURNAL = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    asyncio.run(main())
