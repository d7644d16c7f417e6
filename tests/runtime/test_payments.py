"""Payments over a real queue, database and payment gateway."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime import checks, reader, streams
from runtime.app import build
from runtime.clock import SystemClock, wait_until
from runtime.events import STREAM
from runtime.payments import consumer
from runtime.payments import gateway as client
from tests.ports import free_port
from tests.runtime.conftest import Platform
from tests.runtime.payment_orders import (
    HOOK,
    USER,
    event,
    listening,
    order_id,
    place,
    said,
    settings,
    statuses,
    tell,
    until,
)
from tests.runtime.payment_peer import WEBHOOK_SECRET, PaymentPeer, payment_peer
from tests.runtime.servers import PASSWORD
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process


async def test_orders_are_charged_once_and_asking_again_is_answered_again(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    good, bad = await place(shard_db, [1, 2])
    async with platform.service("payments", settings=settings(platform, peer.url)) as payments:
        await tell(platform, event(good), event(bad, method="card-declined"), event(good))
        await until(shard_db, "captured", "declined")
        assert await said(shard_db, good) == [("PaymentProcessed", "captured")]
        assert await said(shard_db, bad) == [("PaymentProcessed", "declined")]
        await shard_db.execute("UPDATE outbox SET relayed_at = now()")
        await tell(platform, event(good))

        async def again() -> bool:
            count = await shard_db.fetchval("SELECT count(*) FROM outbox WHERE relayed_at IS NULL")
            return bool(count == 1)

        await wait_until(SystemClock(), again, what="another answer", seconds=30)
        assert len(await peer.charges(good)) == 1
        path = f"/api/v1/orders/{good}/payment"
        owner = await payments.get(path, headers=await bearer(platform, user_id=USER))
        assert owner.status_code == 200, owner.text
        assert owner.json()["status"] == "captured"
        assert owner.json()["amount"] == {"amount": "24.10", "currency": "EUR"}
        known = {"If-None-Match": owner.headers["etag"]}
        service = await bearer(platform, role="service") | known
        assert (await payments.get(path, headers=service)).status_code == 304
        other = await bearer(platform, user_id=USER + 1)
        assert (await payments.get(path, headers=other)).status_code == 404
        assert (await payments.get(path)).status_code == 401
        nobody = await payments.get(f"/api/v1/orders/{order_id(9)}/payment", headers=service)
        assert nobody.status_code == 404
        waiting = await payments.get(f"/api/v1/orders/{bad}/payment", headers=service)
        assert (waiting.json()["status"], waiting.json()["reason"]) == ("declined", "card-declined")
        # After a failover the same version may be another payment.
        await shard_db.execute("UPDATE regionctl.slot_owner SET epoch = 2")
        platform.publish(platform.first_map(epoch=2, version=2))

        async def told_anew() -> bool:
            return (await payments.get(path, headers=service)).status_code == 200

        await wait_until(SystemClock(), told_anew, what="the map's new epoch", seconds=30)


async def test_an_order_that_is_cancelled_before_while_or_after_it_is_charged_costs_nothing(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    before, together, during, after = await place(shard_db, [1, 2, 3, 4])
    await tell(platform, event(before, "OrderCancelled"))
    await tell(platform, event(together), event(together, "OrderCancelled"))
    async with platform.service("payments", settings=settings(platform, peer.url)):
        await until(shard_db, "void", "void")
        await tell(platform, event(before), event(after))
        await until(shard_db, "void", "void", "captured")
        await tell(platform, event(after, "OrderCancelled"))
        await until(shard_db, "void", "void", "refunded")
        await tell(platform, event(during, method="card-slow"))

        async def charged() -> bool:
            return bool(await peer.charges(during))

        await wait_until(SystemClock(), charged, what="the slow charge", seconds=30)
        async with platform.service(
            "payments", "b", settings=replace(settings(platform, peer.url), instance="payments.b")
        ):
            await tell(platform, event(during, "OrderCancelled"))
            await until(shard_db, "void", "void", "refunded", "refunded")
    assert await peer.charges(before) == []
    assert [charge["status"] for charge in await peer.charges(during)] == ["refunded"]
    assert await said(shard_db, before) == [("PaymentProcessed", "void")]
    assert ("PaymentRefunded", None) in await said(shard_db, during)
    amount = "SELECT amount_cents FROM payments WHERE order_id = $1"
    assert await shard_db.fetchval(amount, before) == 2410


async def test_events_wait_while_the_gateway_is_away_and_none_is_set_aside(
    platform: Platform,
    shard_db: checks.Database,
    peer: PaymentPeer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (reader, streams):
        monkeypatch.setattr(module, "CLAIM_SECONDS", 0.5)
    orders = await place(shard_db, range(1, 21))
    await peer.break_for(60)
    await tell(platform, *(event(order) for order in orders))
    async with platform.service("payments", settings=settings(platform, peer.url)):
        await until(shard_db, *["pending"] * 20)
        peer.kill()
        queue = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
        delivered = 0

        async def tried_again() -> bool:
            nonlocal delivered
            with suppress(ResponseError):
                waiting: Any = await queue.xpending_range(STREAM, consumer.GROUP, "-", "+", 1)
                delivered = waiting[0]["times_delivered"] if waiting else 0
            return delivered >= 2

        await wait_until(SystemClock(), tried_again, what="a second delivery", seconds=30)
        await peer.start()
        await peer.break_for(0, "up")
        await until(shard_db, *["captured"] * 20, seconds=20)
        assert await queue.xlen(f"{STREAM}.dead") == 0
        await queue.aclose()
    for order in orders:
        assert len(await peer.charges(order)) == 1


async def test_a_charge_that_times_out_does_not_stop_the_others(
    platform: Platform,
    shard_db: checks.Database,
    peer: PaymentPeer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 3.0)
    slow, first, *others = await place(shard_db, range(1, 6))
    async with platform.service("payments", settings=settings(platform, peer.url)):
        await tell(platform, event(first))
        await until(shard_db, "captured")
        await tell(platform, event(slow, method="card-timeout"), *map(event, others))
        await until(shard_db, "pending", *["captured"] * 4)
        await until(shard_db, *["captured"] * 5)
    assert len(await peer.charges(slow)) == 1


async def test_an_order_that_the_database_does_not_have_is_not_charged(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    (real,) = await place(shard_db, [2])
    async with platform.service("payments", settings=settings(platform, peer.url)):
        await tell(platform, event(order_id(1)), event(order_id(1), "OrderCancelled"), event(real))
        await until(shard_db, "captured")
    assert await peer.charges(order_id(1)) == []


async def test_the_webhook_alone_tells_what_became_of_a_charge(
    platform: Platform, shard_db: checks.Database, tmp_path: Path
) -> None:
    open_order, cancelled = await place(shard_db, [1, 2])
    pending = """
        INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status,
                              cancel_requested) VALUES ($1, $2, 2410, 'EUR', 'card', $3, $4)
    """
    await shard_db.execute(pending, USER, open_order, "pending", False)
    await shard_db.execute(pending, USER, cancelled, "void", True)
    port = free_port()
    async with (
        payment_peer(tmp_path, f"http://127.0.0.1:{port}{HOOK}") as peer,
        listening(build(settings(platform, peer.url)), port),
    ):
        for order in (open_order, cancelled, order_id(77)):
            assert (await peer.charge(str(order))).status_code == 201
        await until(shard_db, "captured", "refunded")
        assert await said(shard_db, open_order) == [("PaymentProcessed", "captured")]
        assert await said(shard_db, cancelled) == [("PaymentRefunded", None)]


async def test_a_webhook_that_the_gateway_did_not_sign_just_now_changes_nothing(
    platform: Platform, shard_db: checks.Database
) -> None:
    (order,) = await place(shard_db, [1])
    body = json.dumps({"type": "charge.captured", "data": {
        "id": "ch_1", "reference": str(order), "status": "captured"}})  # fmt: skip

    def signed(at: datetime, secret: str = WEBHOOK_SECRET, text: str = body) -> dict[str, str]:
        signature = Webhook(secret).sign("msg_1", at, text)
        return {"webhook-id": "msg_1", "webhook-signature": signature,
                "webhook-timestamp": str(int(at.timestamp()))}  # fmt: skip

    now = datetime.now(UTC)
    async with platform.service("payments", settings=settings(platform, "")) as payments:
        for headers in (
            {},
            signed(now, "whsec_b3RoZXI="),
            signed(now - timedelta(minutes=6)),
            signed(now + timedelta(minutes=6)),
            signed(now) | {"webhook-signature": "nonsense"},
            signed(now) | {"webhook-timestamp": "nan"},
            signed(now, text="{}"),
        ):
            answer = await payments.post(HOOK, content=body, headers=headers)
            assert answer.status_code == 401, headers
        assert (await payments.post(HOOK, content=b"\xff", headers=signed(now))).status_code == 401
        odd = await payments.post(HOOK, content="{}", headers=signed(now, text="{}"))
        assert odd.status_code == 422
        unknown = await payments.post(HOOK, content=body, headers=signed(now))
        assert unknown.status_code == 204
    assert await statuses(shard_db) == []


async def test_an_invoice_is_made_once_and_its_address_is_signed(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    order, unpaid = await place(shard_db, [1, 2])
    stored: dict[str, bytes] = {}
    puts = 0

    async def objects(request: Request) -> Response:
        nonlocal puts
        if request.method == "PUT":
            puts += 1
            stored[request.url.path] = await request.body()
            return Response(headers={"ETag": '"1"'})
        if request.url.path not in stored:
            return Response(status_code=404)
        headers = {"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        return Response(stored[request.url.path], headers=headers)

    port = free_port()
    s3 = Starlette(routes=[Route("/{path:path}", objects, methods=["PUT", "GET", "HEAD"])])
    made = settings(platform, peer.url, objects=f"http://127.0.0.1:{port}")
    async with listening(s3, port), platform.service("payments", settings=made) as payments:
        owner = await bearer(platform, user_id=USER)
        await tell(platform, event(order))
        await until(shard_db, "captured")
        for _ in range(2):
            answer = await payments.get(f"/api/v1/orders/{order}/invoice", headers=owner)
            assert answer.status_code == 200, answer.text
        url = httpx.URL(answer.json()["url"])
        assert str(url).startswith(made.entry_url)
        assert "X-Amz-Signature" in url.params
        assert puts == 1
        page = stored[url.path].decode()
        assert "24.10 EUR" in page
        assert "Mug &lt;b&gt;" in page
        refused = await payments.get(f"/api/v1/orders/{unpaid}/invoice", headers=owner)
        assert refused.status_code == 409
        other = await bearer(platform, user_id=USER + 1)
        stranger = await payments.get(f"/api/v1/orders/{order}/invoice", headers=other)
        assert stranger.status_code == 404
