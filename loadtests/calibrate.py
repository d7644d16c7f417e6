"""How many requests a second a load worker of this machine can send at all.

    python -m loadtests.calibrate [--seconds 3]

A worker is shot at a server that answers everything with the same few bytes, each on a processor of
its own if there are two: `FULL` greenlets, each sending as soon as it has its answer. That is the
one use of a closed model here: it finds the generator's end, not a target's. A plan should stay
below half of it (`loadtests.run --calibrate` refuses more). Prints {"requestsPerSecond", "half",
"cpus"}.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Sequence

from loadtests.arrivals import Plan

FULL = 32
BODY = b'{"products":[{"sku":"tea"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
END_OF_HEAD = b"\r\n\r\n"
SHARE = 0.5
# Requests of each journey, when its payment is settled at once.
REQUESTS = {"checkout": 5, "refresh": 2, "search": 2, "cancel": 2, "browse": 1}


def too_much(plan: Plan, ceiling: float, workers: int) -> str:
    """Why so many workers of this ceiling (requests a second) cannot be trusted to keep the plan;
    empty when they can."""
    weights = sum(plan.mix.values())
    each = sum(REQUESTS[name] * weight for name, weight in plan.mix.items()) / weights
    wanted, most = plan.peak * each, ceiling * workers * SHARE
    if wanted <= most:
        return ""
    return (
        f"the plan asks for {wanted:.0f} requests/s; {workers} load worker(s) of this machine can "
        f"be trusted with {most:.0f}/s, half of what they can send at all"
    )


def serve(listener: socket.socket) -> None:
    """Answers until it is ended. Requests have no bodies."""
    import asyncio

    class Null(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            for _ in range(data.count(END_OF_HEAD)):
                self.transport.write(ANSWER)  # type: ignore[attr-defined]

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(Null, sock=listener)
        await server.serve_forever()

    asyncio.run(forever())


def measure(url: str, seconds: float) -> float:
    """Requests a second, sent and recorded as a load test does it."""
    import gevent
    from locust import events

    from loadtests import journeys, profiles
    from loadtests.recorder import Recorder
    from loadtests.shopper import Access, Guest, monotonic_since, session

    recorder = Recorder(profiles.named("smoke", 1.0, None, 1))
    http = session(url, None, 10.0, FULL, events)
    access, begin = Access(http, None), time.monotonic()
    now = monotonic_since(begin)
    visit = journeys.Visit("1", "tea", 1, "key")

    def send() -> None:
        while now() < seconds:
            guest = Guest(http, recorder, access, now, "browse", now())
            journeys.browse(guest, visit)

    gevent.joinall([gevent.spawn(send) for _ in range(FULL)], raise_error=True)
    return recorder.tally.ok / now()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.calibrate", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args(arguments)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = multiprocessing.get_context("fork").Process(
        target=serve, args=(listener,), daemon=True
    )
    server.start()
    try:
        rate = measure(url, asked.seconds)
    finally:
        server.kill()
    found = {"requestsPerSecond": round(rate), "half": round(rate / 2), "cpus": os.cpu_count()}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
