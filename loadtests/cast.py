"""Who and what takes part in a load test: users, registered before it begins, and products.

    python -m loadtests.cast --url URL [--ca FILE] [--client FILE] --users N --out FILE

Nothing of this is measured. Users are registered at a bounded width, and a rate limit is waited
for. Exit code 1 when the platform does not answer, or takes none; stderr says why.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from loadtests.access import Access, Client, password
from loadtests.probe import client as http_client
from loadtests.probe import tls

JSON = dict[str, Any]
WIDTH = 8
ANSWER_SECONDS = 10.0
REGISTER_SECONDS = 300.0
ORDERABLE = 50


class NoTarget(Exception):
    """The platform cannot be tested; says why."""


@dataclass(frozen=True)
class User:
    """`shard` is "" where the platform does not say."""

    id: str
    shard: str


@dataclass(frozen=True)
class Cast:
    """`run` is in the keys of this run's orders."""

    run: str
    users: tuple[User, ...]
    skus: tuple[str, ...]

    def document(self) -> JSON:
        return asdict(self)

    @staticmethod
    def read(document: JSON) -> Cast:
        users = tuple(User(str(each["id"]), str(each["shard"])) for each in document["users"])
        return Cast(str(document["run"]), users, tuple(document["skus"]))

    def hot(self) -> list[User]:
        """The users of the shard that has most of them."""
        shards = [user.shard for user in self.users]
        shard = max(sorted(set(shards)), key=shards.count)
        return [user for user in self.users if user.shard == shard]


async def gather(url: str, ca: Path | None, client: Path | None, users: int) -> Cast:
    """Registers `users` users. Raises `NoTarget`."""
    run = uuid.uuid4().hex[:12]
    try:
        identity = Client.read_if(client)
        async with (
            http_client(url, tls(ca)) as http,
            Access(http, identity).open(ANSWER_SECONDS) as access,
        ):
            skus = await _products(http, access)
            registrar = _Registrar(http, access, run, password(identity, run))
            found = await registrar.register(users)
    except (httpx.HTTPError, OSError, ValueError, LookupError, TypeError) as error:
        raise NoTarget(f"{url} cannot be tested: {_plain(error)}") from error
    return Cast(run, tuple(found), tuple(skus))


def _plain(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _products(http: httpx.AsyncClient, access: Access) -> list[str]:
    """Products that are in stock. Raises `LookupError` when there are none."""
    answer = await http.get("/api/v1/products", params={"limit": "100"}, headers=access.headers)
    answer.raise_for_status()
    document = answer.json()
    listed = document if isinstance(document, list) else next(iter(document.values()))
    found = [str(each["sku"]) for each in listed if each.get("stock", 1)]
    if not found:
        raise LookupError("it has no products in stock")
    return found[:ORDERABLE]


class _Registrar:
    def __init__(self, http: httpx.AsyncClient, access: Access, run: str, secret: str) -> None:
        self._http = http
        self._access = access
        self._run = run
        self._secret = secret
        self._width = asyncio.Semaphore(WIDTH)
        self._deadline = time.monotonic() + REGISTER_SECONDS

    async def register(self, count: int) -> list[User]:
        return list(await asyncio.gather(*(self._one(number) for number in range(count))))

    async def _one(self, number: int) -> User:
        """Tries again while it is told to wait, or the platform stumbles. Raises
        `httpx.HTTPError`."""
        key = f"load-{self._run}-{number}"
        body = {"email": f"{key}@load.invalid", "name": "Load", "password": self._secret}
        headers = {**self._access.headers, "Idempotency-Key": key}
        async with self._width:
            while True:
                answer = await self._http.post("/api/v1/users", json=body, headers=headers)
                wait = _wait(answer)
                if wait is None or time.monotonic() + wait > self._deadline:
                    answer.raise_for_status()
                    shard = answer.headers.get("X-Regionctl-Shard", "")
                    return User(str(answer.json()["id"]), shard)
                await asyncio.sleep(wait)


def _wait(answer: httpx.Response) -> float | None:
    """Seconds after which to try again; None when this is the answer."""
    if answer.status_code not in (429, 502, 503, 504):
        return None
    try:
        return float(answer.headers.get("Retry-After", 1.0))
    except ValueError:
        return 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.cast", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--client", type=Path, help="file of the OAuth client, mode 0600")
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    try:
        cast = asyncio.run(gather(asked.url, asked.ca, asked.client, asked.users))
    except NoTarget as error:
        sys.stderr.write(f"{error}\n")
        return 1
    asked.out.write_text(json.dumps(cast.document()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
