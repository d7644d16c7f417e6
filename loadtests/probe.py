"""A client that never stops asking, and writes down every attempt: the drill's ledger.

    python -m loadtests.probe --url https://127.0.0.1:18001 --ca ca.pem --client probe.json \
        --journal J --stop S

Open model: arrivals are planned ahead (Poisson, seeded) and leave at their planned time whether or
not earlier ones were answered, so an outage cannot hide by slowing its clients down. Every attempt
is made once, never retried, with an idempotency key of its own. It ends when the stop file
appears or after `--max-seconds`, needs no controller while it runs, and journals an outcome for
everything that it sent.

It is an OAuth client of its own (`--client`), whose token is fetched before the first arrival and
renewed beside them. No secret is ever in its arguments or its journal.

Outcomes: ok is a 2xx; failed is a refusal that proves that nothing was done (4xx, or no
connection); unknown is all else (timeout, reset, 5xx), which may or may not have been carried out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import ssl
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from loadtests.access import Access, Client, password
from loadtests.journal import SCHEMA, Journal, cents

JSON = dict[str, Any]
TIMEOUT_SECONDS = 10.0
TOKEN_SECONDS = 12.0
STOP_CHECK_SECONDS = 0.2
CLIENTS = 16
SHARE_OF_READS = 0.15
SHARE_OF_USERS = 0.10


@dataclass
class Known:
    """What the probe has learnt: users it may order for, products, and orders to read again."""

    users: list[str] = field(default_factory=list)
    skus: list[str] = field(default_factory=list)
    orders: list[tuple[str, str, str | None]] = field(default_factory=list)


class Probe:
    """`clients` take turns: a pool of connections looks at all of its connections at each request,
    so one pool with the hundreds of hung requests of an outage would slow the probe down."""

    def __init__(
        self,
        clients: Sequence[httpx.AsyncClient],
        access: Access,
        journal: Journal,
        seed: int,
        run: str,
        secret: str,
    ) -> None:
        self.clients = clients
        self.access = access
        self.secret = secret
        self.journal = journal
        self.random = random.Random(seed)  # noqa: S311  replayable load, not a secret
        self.run = run
        self.known = Known()
        self.count = 0

    async def prepare(self, users: int) -> None:
        """Learns the products and creates `users` users, so that every shard has some."""
        answer = await self.clients[0].get("/api/v1/products", headers=self.access.headers)
        answer.raise_for_status()
        self.known.skus = _skus(answer.json())
        width = asyncio.Semaphore(8)

        async def create() -> None:
            async with width:
                await self.create_user(time.monotonic(), remember=True)

        await asyncio.gather(*(create() for _ in range(users)))
        if not self.known.users or not self.known.skus:
            raise RuntimeError("no user could be created, or there are no products")

    async def arrive(self, intended: float) -> None:
        """One arrival of the mix: mostly new orders, some reads of known ones, some new users."""
        draw = self.random.random()
        if draw < SHARE_OF_READS and self.known.orders:
            await self.read_order(intended)
        elif draw < SHARE_OF_READS + SHARE_OF_USERS:
            await self.create_user(intended)
        else:
            await self.create_order(intended)

    async def create_user(self, intended: float, *, remember: bool = False) -> None:
        key = self._key()
        body = {"email": f"{key}@probe.invalid", "name": "Probe"}
        answer = await self._attempt("create-user", intended, key, None, "/api/v1/users", body)
        if answer and remember:
            self.known.users.append(str(answer.json()["id"]))

    async def create_order(self, intended: float) -> None:
        user = self.random.choice(self.known.users)
        item = {"sku": self.random.choice(self.known.skus), "quantity": self.random.randint(1, 3)}
        body = {"user_id": user, "items": [item]}
        answer = await self._attempt(
            "create-order", intended, self._key(), user, "/api/v1/orders", body
        )
        if answer:
            position = answer.headers.get("X-Regionctl-Position")
            self.known.orders.append((str(answer.json()["id"]), user, position))
            del self.known.orders[:-200]

    async def read_order(self, intended: float) -> None:
        order, user, position = self.random.choice(self.known.orders)
        path = f"/api/v1/orders/{order}"
        await self._attempt("read-order", intended, None, user, path, position=position)

    def _key(self) -> str:
        return f"{self.run}-{self.count + 1}"

    async def _attempt(
        self,
        kind: str,
        intended: float,
        key: str | None,
        user: str | None,
        path: str,
        body: JSON | None = None,
        position: str | None = None,
    ) -> httpx.Response | None:
        """One request, journalled before and after. Returns the answer if it was a 2xx."""
        self.count += 1
        n = self.count
        headers = dict(self.access.headers)
        if key:
            headers["Idempotency-Key"] = key
        if position:
            headers["X-Regionctl-Position"] = position
        sent = body and sendable(kind, body, self.secret)
        self.journal.write(
            "intent",
            n=n,
            kind=kind,
            key=key,
            user=user,
            intended=intended,
            sent=time.monotonic(),
            body=body,
        )
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self.clients[n % len(self.clients)].request(
                    "GET" if body is None else "POST", path, json=sent, headers=headers
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            self._gave_up(n, "failed", error)
        except (httpx.HTTPError, TimeoutError, ssl.SSLError) as error:
            self._gave_up(n, "unknown", error)
        else:
            self.journal.write("outcome", n=n, done=time.monotonic(), **_read(answer, kind))
            return answer if answer.is_success else None
        return None

    def _gave_up(self, n: int, outcome: str, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        self.journal.write("outcome", n=n, done=time.monotonic(), outcome=outcome, error=why)


def sendable(kind: str, body: JSON, secret: str) -> JSON:
    """The body as it is sent: a user's has the password, which the journal has not."""
    return {**body, "password": secret} if kind == "create-user" else body


def _read(answer: httpx.Response, kind: str) -> JSON:
    """What an answer proves."""
    status = answer.status_code
    fields: JSON = {"status": status, "shard": answer.headers.get("X-Regionctl-Shard")}
    epoch = answer.headers.get("X-Regionctl-Epoch")
    fields["epoch"] = int(epoch) if epoch else None
    fields["region"] = answer.headers.get("X-Regionctl-Region")
    fields["replayed"] = answer.headers.get("Idempotent-Replay") == "true"
    if not answer.is_success:
        fields["outcome"] = "failed" if 400 <= status < 500 else "unknown"
        fields["error"] = answer.text[:200]
        return fields
    document = answer.json()
    fields["outcome"] = "ok"
    fields["user_id" if kind == "create-user" else "order_id"] = str(document["id"])
    if kind != "create-user":
        fields["amount_cents"] = cents(document)
    return fields


def _skus(document: Any) -> list[str]:
    products = document if isinstance(document, list) else next(iter(document.values()))
    return [str(product["sku"]) for product in products]


async def run_open_loop(
    arrive: Callable[[float], Awaitable[None]],
    gaps: Callable[[], float],
    stopped: Callable[[], bool],
    max_seconds: float,
) -> tuple[int, str]:
    """Starts `arrive` at each planned time; returns how many were due and why it ended.

    Arrivals that are in flight at the end are awaited.
    """
    begin = time.monotonic()
    due = begin + gaps()
    checked, planned, reason = begin, 0, "max-seconds"
    flying: set[asyncio.Future[None]] = set()
    while due < begin + max_seconds:
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, STOP_CHECK_SECONDS))
        now = time.monotonic()
        if now - checked >= STOP_CHECK_SECONDS:
            checked = now
            if stopped():
                reason = "stop"
                break
        if now >= due:
            planned += 1
            task = asyncio.ensure_future(arrive(due))
            flying.add(task)
            task.add_done_callback(flying.discard)
            due += gaps()
    if flying:
        await asyncio.gather(*flying, return_exceptions=True)
    return planned, reason


async def run(asked: argparse.Namespace) -> int:
    """The whole run. Returns the exit code: 0 ended as asked, 1 could not begin."""
    name = uuid.uuid4().hex[:12]
    journal = Journal(
        asked.journal,
        schema=SCHEMA,
        pid=os.getpid(),
        run=name,
        monotonic=time.monotonic(),
        wall=time.time(),
        url=asked.url,
        rate=asked.rate,
        seed=asked.seed,
        max_seconds=asked.max_seconds,
    )
    context = tls(asked.ca)
    async with AsyncExitStack() as stack:
        stack.callback(journal.close)
        clients = [
            await stack.enter_async_context(client(asked.url, context)) for _ in range(CLIENTS)
        ]
        try:
            identity = Client.read_if(asked.client)
            access = await stack.enter_async_context(
                Access(clients[0], identity).open(TOKEN_SECONDS)
            )
            probe = Probe(clients, access, journal, asked.seed, name, password(identity, name))
            await probe.prepare(asked.users)
        except (httpx.HTTPError, OSError, RuntimeError, KeyError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            journal.write("end", monotonic=time.monotonic(), planned=0, sent=0, reason=why)
            return 1
        prepared = probe.count
        journal.write("ready", monotonic=time.monotonic(), users=len(probe.known.users))
        planned, reason = await run_open_loop(
            probe.arrive,
            lambda: probe.random.expovariate(asked.rate),
            asked.stop.exists,
            asked.max_seconds,
        )
        journal.write(
            "end",
            monotonic=time.monotonic(),
            planned=planned,
            sent=probe.count - prepared,
            reason=reason,
        )
    return 0


def tls(ca: Path | None) -> ssl.SSLContext:
    """Trusts `ca` alone, or the system's authorities when there is none."""
    return ssl.create_default_context(cafile=str(ca) if ca else None)


def client(url: str, context: ssl.SSLContext) -> httpx.AsyncClient:
    """Keep-alive connections, as many as there are hung requests, and no proxy of the caller's."""
    return httpx.AsyncClient(
        base_url=url,
        verify=context,
        timeout=TIMEOUT_SECONDS,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        trust_env=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.probe", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--client", type=Path, help="file of the OAuth client, mode 0600")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--stop", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=40.0, help="arrivals a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--max-seconds", type=float, default=900.0)
    try:
        return asyncio.run(run(parser.parse_args(arguments)))
    except FileExistsError:
        return 3


if __name__ == "__main__":
    sys.exit(main())
