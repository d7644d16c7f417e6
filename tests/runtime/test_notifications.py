"""Mails about orders, over a real queue, database and mail server."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runtime import checks
from runtime.auth import store as auth
from runtime.clock import SystemClock, wait_until
from runtime.events import STREAM, Event, Kind, encode, event_id
from runtime.notifications import store
from runtime.notifications.rules import Notice, Record
from runtime.settings import Settings
from runtime.shardmap import Placement, slot_of
from tests.runtime.conftest import Platform
from tests.runtime.servers import PASSWORD
from tests.runtime.test_mailbox import MailboxServer
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process

USER = """
INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at)
VALUES ($1, $2, $3, $4, '', now())
"""
ORDER = """
INSERT INTO orders (id, user_id, status, idempotency_key, request_hash, currency, total_cents,
                    created_at)
VALUES ($1, $2, 'placed', $3, '', 'EUR', 2410, now())
"""
ROWS = "SELECT recipient, status, reason FROM notifications ORDER BY user_id, event_id"


def event(order: int, user: int, kind: Kind = "OrderCreated", **payload: Any) -> Event:
    about = {"order_id": order, "user_id": user, "items": [["MUG", 2]], "total_cents": 2410}
    whole = about | {"amount_cents": 2410, "currency": "EUR"} | payload
    return Event(event_id(order, kind), kind, whole)


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailboxServer]:
    server = MailboxServer(tmp_path / "mail.db")
    await server.start()
    yield server
    server.stop()


@pytest.fixture
async def stream(platform: Platform) -> AsyncIterator[Redis]:
    client = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    yield client
    await client.aclose()


def settings_of(platform: Platform, mailbox: MailboxServer, zone: str = "a") -> Settings:
    return replace(platform.settings("notifications", zone), smtp=("127.0.0.1", mailbox.smtp))


async def add_user(database: checks.Database, number: int, email: str, name: str = "Ada") -> None:
    await database.execute(USER, number, email, name, f"k{number}")


async def publish(queue: Redis, *events: Event) -> None:
    for each in events:
        await queue.xadd(STREAM, encode(each))  # type: ignore[arg-type]


async def until_told(database: checks.Database, rows: int) -> list[tuple[Any, ...]]:
    async def told() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM notifications") >= rows)

    await wait_until(SystemClock(), told, what="the notifications", seconds=20)
    return [tuple(row) for row in await database.fetch(ROWS)]


async def until_settled(queue: Redis) -> None:
    """Everything in the stream is acknowledged by the group."""

    async def settled() -> bool:
        try:
            groups: Any = await queue.xinfo_groups(STREAM)
        except ResponseError:
            return False
        found = {row["name"]: (row["lag"], row["pending"]) for row in groups}
        return found.get(b"notifications") == (0, 0)

    await wait_until(SystemClock(), settled, what="the group", seconds=20)


async def test_every_event_is_mailed_once_also_through_a_kill_of_the_mail_server(
    platform: Platform, mailbox: MailboxServer, stream: Redis, shard_db: checks.Database
) -> None:
    await add_user(shard_db, 1, "jörg@example.org", "Jörg “X” Ünal, Dr.")
    await add_user(shard_db, 2, "ada@example.org", "Eve\r\nBcc: all@example.org")
    events = [
        event(10, 1),
        event(20, 2),
        event(20, 2, "PaymentProcessed", status="void"),
        event(30, 3),
        event(10, 1, "PaymentProcessed", status="captured"),
        event(10, 1, "StockReserved"),
    ]
    await publish(stream, *events, *events)
    settings = settings_of(platform, mailbox)
    async with platform.service("notifications", settings=settings):
        rows = await until_told(shard_db, 5)
        mailbox.stop(signal.SIGKILL)
        await publish(stream, event(10, 1, "OrderCancelled", reason="requested"), *events)
        await publish(stream, event(10, 1, "PaymentRefunded"))
        await mailbox.start()
        await until_told(shard_db, 7)
        # A crash after sending and before recording: the mail is sent again, and kept once.
        await shard_db.execute("DELETE FROM notifications WHERE event_id = 20")
        await publish(stream, event(20, 2))
        await until_told(shard_db, 7)
        await until_settled(stream)
    assert sorted(row[:2] for row in rows) == [
        ("", "skipped"), ("", "skipped"), ("ada@example.org", "sent"),
        ("jörg@example.org", "sent"), ("jörg@example.org", "sent"),
    ]  # fmt: skip
    mails = await mailbox.messages(to="jörg@example.org")
    assert sorted(mail["subject"] for mail in mails) == [
        "Order cancelled: 10", "Order received: 10", "Receipt: 10", "Refund: 10",
    ]  # fmt: skip
    assert mails[0]["text"].startswith("Hello Jörg “X” Ünal, Dr.,")
    (other,) = await mailbox.messages(to="ada@example.org")
    assert other["text"].startswith("Hello Eve Bcc: all@example.org,")
    assert len(await mailbox.messages()) == 5


async def test_a_refusal_for_good_ends_one_mail_and_a_temporary_one_waits(
    platform: Platform, mailbox: MailboxServer, stream: Redis, shard_db: checks.Database
) -> None:
    for number, email in enumerate(["ada@example.org", "eve@example.org", "a..b@example.org"], 1):
        await add_user(shard_db, number, email)
    await mailbox.fault("refuse-permanent", to="eve@example.org")
    await mailbox.fault("refuse-temporary", to="ada@example.org")
    await publish(stream, event(1, 1), event(2, 2), event(3, 3))
    async with platform.service("notifications", settings=settings_of(platform, mailbox)):
        rows = await until_told(shard_db, 2)
        assert {row[0] for row in rows} == {"eve@example.org", "a..b@example.org"}
        assert await mailbox.messages(to="ada@example.org") == []
        await mailbox.fault("accept", to="ada@example.org")
        rows = await until_told(shard_db, 3)
    assert rows[0] == ("ada@example.org", "sent", None)
    assert rows[1][1:] == ("failed", "550 5.1.1 This mailbox does not exist")
    assert len(await mailbox.messages(to="ada@example.org")) == 1


async def test_users_see_what_they_were_told_and_nobody_else_does(
    platform: Platform, mailbox: MailboxServer, stream: Redis, shard_db: checks.Database
) -> None:
    await add_user(shard_db, 1, "ada@example.org")
    await shard_db.execute(ORDER, 10, 1, "key")
    await publish(stream, event(10, 1), event(10, 1, "PaymentProcessed", status="captured"))
    path = "/api/v1/orders/10/notifications"
    settings = settings_of(platform, mailbox)
    async with platform.service("notifications", settings=settings) as client:
        await until_told(shard_db, 2)
        owner = await bearer(platform, user_id=1)
        await until_authorised(client, path, owner)
        answer = await client.get(path, headers=owner)
        assert answer.status_code == 200, answer.text
        kinds = [each["kind"] for each in answer.json()["notifications"]]
        assert sorted(kinds) == ["OrderCreated", "PaymentProcessed"]
        admin = await bearer(platform, role="admin")
        assert (await client.get(path, headers=admin)).json() == answer.json()
        stranger = await bearer(platform, user_id=2)
        assert (await client.get(path, headers=stranger)).status_code == 404
        assert (await client.get(path)).status_code == 401
        missing = await client.get("/api/v1/orders/11/notifications", headers=owner)
        assert missing.status_code == 404
        broken = await client.get("/api/v1/orders/x/notifications", headers=owner)
        assert broken.status_code == 422


async def until_authorised(client: httpx.AsyncClient, path: str, header: dict[str, str]) -> None:
    """The service has polled the key."""

    async def known() -> bool:
        return (await client.get(path, headers=header)).status_code != 401

    await wait_until(SystemClock(), known, what="the signing key", seconds=30)


async def test_a_repetition_that_changes_nothing_waits_for_the_standby_too(
    platform: Platform, shard_db: checks.Database
) -> None:
    """What was there may be what a dead primary had not yet sent to its standby."""
    record = Record(1, 10, "OrderCreated", "ada@example.org", "sent")
    session = Placement(slot_of(1), 1, platform.shard_map.shards["s1"])
    now = datetime.now(UTC)
    works: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.record(shard_db, [record]),
        lambda: store.record(shard_db, [record]),
        lambda: store.brief(shard_db, [Notice(10, 10, 1, "OrderCreated")]),
        lambda: auth.end_session(shard_db, session, user_id=1, session_id=1, now=now),
    ]
    for work in works:
        async with shard_db.transaction():
            await work()
            assert await shard_db.fetchval("SELECT pg_current_xact_id_if_assigned()::text")
