"""The payment gateway's stand-in, as a client meets it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from runtime.clock import SystemClock, wait_until
from runtime.peers.payment_gateway import build
from tests.runtime.payment_peer import (
    AUTHORIZED,
    SECRETS,
    WEBHOOK_SECRET,
    PaymentPeer,
    payment_peer,
)

pytestmark = pytest.mark.process


class Receiver(ThreadingHTTPServer):
    """Takes webhooks, as long as `taking`; verified ones by their id."""

    def __init__(self) -> None:
        self.taking = threading.Event()
        self.refused = 0
        self.taken: dict[str, Any] = {}
        super().__init__(("127.0.0.1", 0), Take)


class Take(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.taking.is_set():
            document = Webhook(WEBHOOK_SECRET).verify(body, dict(self.headers))
            self.server.taken[self.headers["webhook-id"]] = document
            self.send_response(204)
        else:
            self.server.refused += 1
            self.send_response(503)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def peer(tmp_path: Path, receiver: Receiver) -> AsyncIterator[PaymentPeer]:
    async with payment_peer(tmp_path, f"http://127.0.0.1:{receiver.server_port}/hook") as made:
        yield made


async def test_a_killed_gateway_knows_every_charge_it_answered_and_delivers_every_webhook(
    peer: PaymentPeer, receiver: Receiver
) -> None:
    answers = await asyncio.gather(*(peer.charge(str(each)) for each in range(1, 21)))
    declined = await peer.charge("30", "card-declined")
    first = answers[0].json()
    refund = await peer.call("POST", f"/v1/charges/{first['id']}/refund", {}, "1:refund")
    assert (refund.status_code, refund.json()["status"]) == (201, "refunded")

    async def refused() -> bool:
        return receiver.refused > 0

    await wait_until(SystemClock(), refused, what="a webhook that is refused", seconds=30)
    peer.kill()
    receiver.taking.set()
    await peer.start()
    again = await asyncio.gather(*(peer.charge(str(each)) for each in range(1, 21)))
    assert [answer.json() for answer in again] == [answer.json() for answer in answers]
    assert (declined.json()["status"], declined.json()["reason"]) == ("declined", "card-declined")

    async def all_told() -> bool:
        return len(receiver.taken) == 22

    await wait_until(SystemClock(), all_told, what="all webhooks", seconds=20)
    kinds = sorted(document["type"] for document in receiver.taken.values())
    assert kinds == ["charge.captured"] * 20 + ["charge.declined", "charge.refunded"]
    twice = await peer.call("POST", f"/v1/charges/{first['id']}/refund", {}, "another key")
    assert twice.json()["refund_id"] == refund.json()["refund_id"]
    page = (await peer.call("GET", "/v1/charges?limit=15")).json()
    rest = (await peer.call("GET", f"/v1/charges?limit=15&after={page['next']}")).json()
    found = [charge["id"] for charge in (*page["charges"], *rest["charges"])]
    assert (len(found), len(set(found)), rest["next"]) == (21, 21, None)


async def test_methods_and_faults_behave_as_their_names_say(peer: PaymentPeer) -> None:
    slow = asyncio.create_task(peer.charge("1", "card-slow"))
    with pytest.raises(httpx.ReadTimeout):
        await peer.charge("2", "card-timeout", timeout=0.3)
    assert (await peer.charge("2", "card-timeout")).json()["status"] == "captured"
    assert len(await peer.charges("2")) == 1
    assert (await peer.charge("3", "card-error-once")).status_code == 500
    assert await peer.charges("3") == []
    assert (await peer.charge("3", "card-error-once")).status_code == 201
    assert not slow.done()
    assert (await slow).status_code == 201
    await peer.break_for(60)
    assert (await peer.charge("4")).status_code == 503
    peer.kill()
    await peer.start()
    assert (await peer.charge("4")).status_code == 503
    await peer.break_for(0, "up")
    assert (await peer.charge("4")).status_code == 201


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        ({"amount_cents": 5}, "k", 422),
        ({"amount_cents": -1, "currency": "USD", "method": "card", "reference": "1"}, "k", 422),
        ({"amount_cents": 1, "currency": "USD", "method": "gold", "reference": "1"}, "k", 422),
        ({"amount_cents": 1, "currency": "USD", "method": "card", "reference": "1"}, "", 400),
        ([1], "k", 422),
    ],
)
async def test_a_wrong_request_is_refused(tmp_path: Path, body: Any, key: str, status: int) -> None:
    transport = httpx.ASGITransport(build(tmp_path / "peer.db", SECRETS))
    async with httpx.AsyncClient(transport=transport, base_url="http://peer") as client:
        keyed = AUTHORIZED | {"Idempotency-Key": key}
        assert (await client.post("/v1/charges", json=body, headers=keyed)).status_code == status
        assert (await client.post("/v1/charges", json=body)).status_code == 401


async def test_a_key_belongs_to_one_request(tmp_path: Path) -> None:
    good = {"amount_cents": 1, "currency": "USD", "method": "card", "reference": "1"}
    transport = httpx.ASGITransport(build(tmp_path / "peer.db", SECRETS))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://peer", headers=AUTHORIZED | {"Idempotency-Key": "k"}
    ) as client:
        assert (await client.post("/v1/charges", json=good)).status_code == 201
        other = {**good, "amount_cents": 2}
        assert (await client.post("/v1/charges", json=other)).status_code == 409
        fresh = {"Idempotency-Key": "r"}
        refund = await client.post("/v1/charges/none/refund", headers=fresh)
        assert refund.status_code == 404
        assert (await client.get("/v1/charges?after=x")).status_code == 422
