"""Orders over HTTP: whose they are, how they are found, and what a cancellation does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runtime import checks
from runtime.cache import Cache
from runtime.clock import SystemClock
from runtime.events import event_id
from tests.runtime.conftest import Platform
from tests.runtime.customers import place, sign_in
from tests.runtime.servers import PASSWORD as SERVER_PASSWORD
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process

ADD_USER = """
INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at)
VALUES ($1, $2, 'Ada', $2, '', now())
"""
ADA, BOB = "1001", "1002"


@pytest.fixture
async def orders(platform: Platform, shard_db: checks.Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, signed in as Ada; Bob exists too."""
    for user in (ADA, BOB):
        await shard_db.execute(ADD_USER, int(user), f"{user}@example.org")
    async with platform.service("orders") as client:
        await sign_in(platform, client, ADA)
        yield client


async def test_an_order_is_placed_for_oneself_and_only_a_service_names_another(
    platform: Platform, orders: httpx.AsyncClient
) -> None:
    body = {"items": [{"sku": "MUG-ONCALL", "quantity": 2}]}
    made = await orders.post("/api/v1/orders", json=body)
    assert made.status_code == 201
    assert made.json() | {"user_id": ADA, "status": "placed", "stock": "pending"} == made.json()
    assert made.json()["items"][0]["name"] == "Mug, on call"
    assert (await place(orders, BOB, "k")).status_code == 404
    service = await bearer(platform, role="service")
    nobody = await orders.post("/api/v1/orders", json=body, headers=service)
    assert nobody.status_code == 422
    for_bob = await orders.post("/api/v1/orders", json={**body, "user_id": BOB}, headers=service)
    assert for_bob.json()["user_id"] == BOB
    del orders.headers["Authorization"]
    assert (await orders.post("/api/v1/orders", json=body)).status_code == 401


async def test_somebody_elses_order_does_not_exist_for_a_user(
    platform: Platform, orders: httpx.AsyncClient
) -> None:
    path = f"/api/v1/orders/{(await place(orders, ADA, 'k')).json()['id']}"
    bob = await bearer(platform, user_id=BOB)
    admin = await bearer(platform, role="admin")
    fresh = {"Cache-Control": "no-cache"}
    for extra in ({}, fresh):
        assert (await orders.get(path, headers=bob | extra)).status_code == 404
        assert (await orders.get(path, headers=admin | extra)).status_code == 200
    assert (await orders.post(f"{path}/cancel", headers=bob)).status_code == 404
    listed = await orders.get("/api/v1/orders", params={"user_id": ADA}, headers=bob)
    searched = await orders.get("/api/v1/orders/search", params={"q": "mug", "user_id": ADA},
                                headers=bob)  # fmt: skip
    assert (listed.status_code, searched.status_code) == (404, 404)
    assert (await orders.get(path)).json()["status"] == "placed"


async def test_the_cursor_and_the_position_of_a_stranger_reveal_nothing(
    platform: Platform, orders: httpx.AsyncClient
) -> None:
    placed = await place(orders, ADA, "k")
    theirs = placed.json()["id"]
    position = {"X-Regionctl-Position": placed.headers["X-Regionctl-Position"]}
    never = str(int(theirs) + 4096 * 1024)
    bob = await bearer(platform, user_id=BOB)

    async def seen(path: str, extra: dict[str, str], **params: str) -> tuple[int, Any]:
        answer = await orders.get(path, headers=bob | extra, params=params)
        document = answer.json()
        for private in ("requestId", "detail"):
            document.pop(private, None)
        assert theirs not in json.dumps(document)
        return answer.status_code, document

    for extra in ({}, position):
        for path, more in (("/api/v1/orders", {}), ("/api/v1/orders/search", {"q": "mug"})):
            found = await seen(path, extra, cursor=theirs, **more)
            assert found == (200, {"orders": [], "next": None})
            assert found == await seen(path, extra, cursor=never, **more)
        found = await seen(f"/api/v1/orders/{theirs}", extra)
        assert found[0] == 404
        assert found == await seen(f"/api/v1/orders/{never}", extra)


async def test_a_stranger_who_cancels_an_order_does_not_disturb_the_caches_entry(
    platform: Platform, orders: httpx.AsyncClient
) -> None:
    id = (await place(orders, ADA, "k")).json()["id"]
    path = f"/api/v1/orders/{id}"
    assert (await orders.get(path)).status_code == 200
    cache = Cache(("127.0.0.1", platform.queue.port), SERVER_PASSWORD, SystemClock())
    entry = await cache.get(f"order:s1:1:{id}")
    assert entry
    bob = await bearer(platform, user_id=BOB)
    assert (await orders.post(f"{path}/cancel", headers=bob)).status_code == 404
    assert await cache.get(f"order:s1:1:{id}") == entry
    assert (await orders.post(f"{path}/cancel")).status_code == 200
    now = await cache.get(f"order:s1:1:{id}")
    assert now
    assert now.version > entry.version
    await cache.close()


async def test_a_cancellation_is_done_once_and_answered_alike_every_time(
    orders: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    order = (await place(orders, ADA, "k", quantity=3)).json()
    path = f"/api/v1/orders/{order['id']}"
    assert (await orders.get(path)).json() == order
    first = await orders.post(f"{path}/cancel", headers={"Idempotency-Key": "c"})
    assert first.status_code == 200
    assert (first.json()["status"], first.json()["reason"]) == ("cancelled", "requested")
    assert (await orders.get(path)).json() == first.json()
    for key in ("c", "d"):
        again = await orders.post(f"{path}/cancel", headers={"Idempotency-Key": key})
        assert (again.status_code, again.json()) == (200, first.json())
    sent = await shard_db.fetch(
        "SELECT event_id, payload FROM outbox WHERE kind = 'OrderCancelled'"
    )
    assert [row[0] for row in sent] == [event_id(int(order["id"]), "OrderCancelled")]
    assert json.loads(sent[0][1])["items"] == [["MUG-ONCALL", 3]]
    assert (await orders.post("/api/v1/orders/5/cancel")).status_code == 404


async def test_a_known_version_is_not_sent_again(
    orders: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    path = f"/api/v1/orders/{(await place(orders, ADA, 'k')).json()['id']}"
    first = await orders.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    same = await orders.get(path, headers={"If-None-Match": f'W/{tag}, "other"'})
    assert (same.status_code, same.content) == (304, b"")
    await orders.post(f"{path}/cancel")
    other = await orders.get(path, headers={"If-None-Match": tag})
    assert (other.status_code, other.json()["status"]) == (200, "cancelled")
    page = await orders.get("/api/v1/orders")
    same = await orders.get("/api/v1/orders", headers={"If-None-Match": page.headers["etag"]})
    assert same.status_code == 304


async def test_orders_are_found_by_words_newest_first_page_by_page(
    platform: Platform, orders: httpx.AsyncClient
) -> None:
    made = [(await place(orders, ADA, f"k{n}")).json()["id"] for n in range(3)]
    await place(orders, ADA, "desk", sku="DESK-OAK")
    service = await bearer(platform, role="service")
    body = {"user_id": BOB, "items": [{"sku": "MUG-ONCALL", "quantity": 1}]}
    of_bob = (await orders.post("/api/v1/orders", json=body, headers=service)).json()["id"]

    async def found(q: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
        asked = {"q": q, **more}
        answer = await orders.get("/api/v1/orders/search", params=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(page: Any) -> list[str]:
        return [order["id"] for order in page["orders"]]

    assert ids(await found("MUG-ONCALL")) == made[::-1]
    assert ids(await found('"on call" -oak')) == made[::-1]
    assert ids(await found("sofa")) == []
    first = await found("mug", limit=2)
    assert ids(first) == made[:0:-1]
    rest = await found("mug", limit=2, cursor=first["next"])
    assert (ids(rest), rest["next"]) == (made[:1], None)
    admin = await bearer(platform, role="admin")
    assert ids(await found("mug", admin)) == [of_bob, *made[::-1]]
    assert ids(await found("mug", admin, user_id=BOB)) == [of_bob]


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[{"sku":"MUG-ONCALL","quantity":-1}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":0}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":1.0}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":"1"}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":true}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":99999999999999999999}]}',
        b'{"items":[{"sku":"\\ud800","quantity":1}]}',
        b'{"items":[{"sku":"MUG\\u0000","quantity":1}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":1,"\\udfff":1}]}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":1}],"payment_method":"\\ud800"}',
        b'{"items":[{"sku":"MUG-ONCALL","quantity":1}],"payment_method":""}',
        b'{"items":[]}',
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    orders: httpx.AsyncClient, body: bytes
) -> None:
    answer = await orders.post(
        "/api/v1/orders", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_total_that_no_bigint_holds_is_refused(
    orders: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await catalog_db.execute(
        "INSERT INTO products (sku, name, price_cents, currency, stock, initial_stock) "
        "VALUES ('YACHT', 'Yacht', 9223372036854775807, 'USD', 9, 9) ON CONFLICT DO NOTHING"
    )
    assert (await place(orders, ADA, "k1", sku="YACHT", quantity=2)).status_code == 422
    assert (await place(orders, ADA, "k2", sku="YACHT")).status_code == 201
    await catalog_db.execute("DELETE FROM products WHERE sku = 'YACHT'")


@pytest.mark.parametrize("query", ["q=%00", "q=", "q=a&cursor=x", "q=a&limit=0", "q=%ED%A0%80"])
async def test_a_search_that_makes_no_sense_is_refused(
    orders: httpx.AsyncClient, query: str
) -> None:
    answer = await orders.get(f"/api/v1/orders/search?{query}")
    assert answer.status_code in (200, 422) if "%ED" in query else answer.status_code == 422
