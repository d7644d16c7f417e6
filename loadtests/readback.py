"""Looks, as a client, for every write that a probe's journal says was acknowledged.

    python -m loadtests.readback --url U --ca ca.pem --client C --journal J --out readback.json

1. Each acknowledged user and order is fetched, past every cache; 404 means missing, and wrong is
   another amount, another owner, or a state that no order can be in.
2. Each write with an unknown outcome is sent again with its own idempotency key: a replayed answer
   says that it had been carried out, a fresh one that it had not (it is now).
3. A sample of the acknowledged orders is sent again too: the answer must be the same order.
4. Every probe user's orders are listed; one that no attempt accounts for is a duplicate.

What cannot be decided after all retries is listed under `unanswered`, never guessed. `--last N`
looks only for the last N acknowledged writes and skips 2 to 4.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx

from loadtests import journal
from loadtests.access import Access, Client, password
from loadtests.probe import client, sendable, tls

JSON = dict[str, Any]
WIDTH = 8
# So many without an answer say that a database is away: the others need not be waited for too.
PLENTY = 3 * WIDTH
SAMPLE = 20
UNDECIDED = (401, 403, 408, 425, 429)
STATES = {
    "placed": {("pending", "pending"), ("reserved", "pending"), ("pending", "captured")},
    "confirmed": {("reserved", "captured")},
}
PATHS = {"create-order": "/api/v1/orders", "create-user": "/api/v1/users"}


class ReadBack:
    """`seconds` bounds the retries of one request; `secret` is the password of the run's users."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        access: Access,
        attempts: Sequence[JSON],
        seconds: float,
        secret: str,
    ) -> None:
        self.http = http
        self.access = access
        self.seconds = seconds
        self.secret = secret
        writes = [attempt for attempt in attempts if attempt["kind"] in PATHS]
        self.acknowledged = [attempt for attempt in writes if attempt["outcome"] == "ok"]
        self.unknown = [attempt for attempt in writes if attempt["outcome"] == "unknown"]
        self.width = asyncio.Semaphore(WIDTH)
        self.missing: list[str] = []
        self.wrong: list[JSON] = []
        self.duplicates: list[JSON] = []
        self.unanswered: list[str] = []
        self.present = self.absent = 0
        self.explained: dict[str, set[str]] = defaultdict(set)

    async def look(self) -> None:
        await _each(self.acknowledged, self._fetch)

    async def resolve(self) -> None:
        """Steps 2 to 4."""
        await _each(self.unknown, self._resolve)
        gone = set(self.missing)
        orders = [
            a for a in self.acknowledged if a["kind"] == "create-order" and record(a) not in gone
        ]
        stride = max(1, len(orders) // SAMPLE)
        await _each(orders[::stride][:SAMPLE], self._again)
        for attempt in self.acknowledged:
            if attempt["kind"] == "create-order":
                self.explained[attempt["user"]].add(record(attempt))
        users = {a["user"] for a in (*self.acknowledged, *self.unknown) if a["user"]}
        await _each(sorted(users), self._list)

    def document(self, *, whole: bool) -> JSON:
        return {
            "whole": whole,
            "monotonic": time.monotonic(),
            "acknowledged": len({record(attempt) for attempt in self.acknowledged}),
            "missing": sorted(self.missing),
            "wrong": self.wrong,
            "unknown_present": self.present,
            "unknown_absent": self.absent,
            "duplicates": self.duplicates,
            "unanswered": sorted(self.unanswered),
        }

    async def _fetch(self, attempt: JSON) -> None:
        id = record(attempt)
        answer = await self._ask("GET", f"{PATHS[attempt['kind']]}/{id}")
        if answer is None:
            self.unanswered.append(id)
        elif answer.status_code == 404:
            self.missing.append(id)
        elif attempt["kind"] == "create-order":
            document = answer.json()
            found: JSON = {"user": str(document["user_id"]), "cents": journal.cents(document)}
            wanted = {"user": attempt["user"], "cents": attempt["amount_cents"]}
            if impossible(document):
                found["state"] = state_of(document)
            if found != wanted:
                self.wrong.append({"id": id, "acknowledged": wanted, "found": found})

    async def _resolve(self, attempt: JSON) -> None:
        answer = await self._repeat(attempt)
        if answer is None:
            self.unanswered.append(attempt["key"])
            return
        if answer.headers.get("Idempotent-Replay") == "true":
            self.present += 1
        else:
            self.absent += 1
        if attempt["kind"] == "create-order":
            self.explained[attempt["user"]].add(str(answer.json()["id"]))

    async def _again(self, attempt: JSON) -> None:
        answer = await self._repeat(attempt)
        if answer is None:
            self.unanswered.append(attempt["key"])
        elif (id := str(answer.json()["id"])) != record(attempt):
            self.explained[attempt["user"]].add(id)
            self.duplicates.append({"key": attempt["key"], "orders": [record(attempt), id]})

    async def _list(self, user: str) -> None:
        found: set[str] = set()
        asked = {"user_id": user, "limit": "100"}
        while True:
            answer = await self._ask("GET", "/api/v1/orders", params=asked)
            if answer is None or not answer.is_success:
                self.unanswered.append(f"orders of {user}")
                return
            page = answer.json()
            found |= {str(order["id"]) for order in page["orders"]}
            if not page["next"]:
                break
            asked["cursor"] = page["next"]
        for id in sorted(found - self.explained[user]):
            self.duplicates.append({"user": user, "orders": [id]})

    async def _repeat(self, attempt: JSON) -> httpx.Response | None:
        body = sendable(attempt["kind"], attempt["body"], self.secret)
        key = attempt["key"]
        answer = await self._ask("POST", PATHS[attempt["kind"]], key=key, json=body)
        return answer if answer is not None and answer.is_success else None

    async def _ask(
        self, method: str, path: str, key: str | None = None, **more: Any
    ) -> httpx.Response | None:
        """The first definite answer (2xx or 4xx); None when there is none in time.

        No cache may vouch for a database; and who asks too often or too late knows nothing yet.
        """
        deadline = time.monotonic() + self.seconds
        while True:
            headers = {**self.access.headers, "Cache-Control": "no-cache"}
            if key:
                headers["Idempotency-Key"] = key
            try:
                async with self.width:
                    if time.monotonic() >= deadline and len(self.unanswered) >= PLENTY:
                        return None
                    answer = await self.http.request(method, path, headers=headers, **more)
                if answer.status_code < 500 and answer.status_code not in UNDECIDED:
                    return answer
            except (httpx.HTTPError, ssl.SSLError):
                pass
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(0.2)


def record(attempt: JSON) -> str:
    """The id that an acknowledged write got."""
    return str(attempt.get("order_id") or attempt.get("user_id"))


def state_of(order: JSON) -> list[str | None]:
    return [order.get(name) for name in ("status", "stock", "payment", "reason")]


def impossible(order: JSON) -> bool:
    """Whether no order can be so: confirmed without stock or money, cancelled without a reason.

    The services cancel by themselves what is out of stock or was declined; that is no loss.
    """
    status, stock, payment, reason = state_of(order)
    if stock is None or payment is None:
        return False
    if status == "cancelled":
        return not reason
    return (stock, payment) not in STATES.get(str(status), ())


async def _each(items: Iterable[Any], act: Callable[[Any], Awaitable[None]]) -> None:
    await asyncio.gather(*(act(item) for item in items))


async def run(asked: argparse.Namespace) -> int:
    lines = journal.read(asked.journal)
    name = next((line["run"] for line in lines if line["line"] == "start"), "")
    identity = Client.read_if(asked.client)
    async with (
        client(asked.url, tls(asked.ca)) as http,
        Access(http, identity).open(asked.seconds) as access,
    ):
        secret = password(identity, name)
        reader = ReadBack(http, access, journal.attempts(lines), asked.seconds, secret)
        if asked.last:
            reader.acknowledged = reader.acknowledged[-asked.last :]
        await reader.look()
        if not asked.last:
            await reader.resolve()
    draft = asked.out.with_suffix(".tmp")
    draft.write_text(json.dumps(reader.document(whole=not asked.last)), encoding="utf-8")
    draft.replace(asked.out)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.readback", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--client", type=Path, help="file of the OAuth client, mode 0600")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--last", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=15.0, help="retry one request this long")
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
