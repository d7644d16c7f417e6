"""Users, orders and inventory over real databases and a real queue."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from runtime import checks, owners
from runtime.clock import SystemClock
from runtime.errors import TooEarly
from runtime.position import Position
from runtime.routing import Routing
from runtime.shardmap import Endpoint, even_ranges
from runtime.shards import Shards, of_slot
from tests.runtime.conftest import Platform
from tests.runtime.customers import new_user, place, register, sign_in, until_recorded, with_key

pytestmark = pytest.mark.process


async def test_an_order_is_placed_read_listed_and_takes_stock(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders, platform.service("inventory") as inventory:
        await sign_in(platform, orders)
        placed = await place(orders, user, "k", quantity=2)
        order = placed.json()
        assert order["total"] == {"amount": "29.00", "currency": "USD"}
        assert (await orders.get(f"/api/v1/orders/{order['id']}")).json() == order
        page = await orders.get("/api/v1/orders", params={"user_id": user})
        assert page.json() == {"orders": [order], "next": None}
        await until_recorded(catalog_db, 1)
        assert (await inventory.get("/api/v1/products")).status_code == 200
    held = await checks.invariants(
        {"s1": shard_db}, catalog_db, ranges=platform.shard_map.ranges, settled_seconds=0
    )
    # Nobody takes payments here.
    assert [row["name"] for row in held if not row["held"]] == ["orders-settled"]
    stock = await catalog_db.fetchval("SELECT stock FROM products WHERE sku = 'MUG-ONCALL'")
    assert stock == checks.INITIAL_STOCK - 2


async def test_the_list_of_orders_is_read_page_by_page(platform: Platform) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        made = [(await place(orders, user, f"k{n}")).json()["id"] for n in range(5)]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            asked = {"user_id": user, "limit": "2", **({"cursor": cursor} if cursor else {})}
            page = (await orders.get("/api/v1/orders", params=asked)).json()
            seen += [order["id"] for order in page["orders"]]
            cursor = page["next"]
            if cursor is None:
                break
    assert seen == sorted(made, key=int, reverse=True)


async def test_one_key_makes_one_order_however_many_ask_at_once(
    platform: Platform, shard_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as one, platform.service("orders", "b") as two:
        await sign_in(platform, one)
        await sign_in(platform, two)
        answers = await asyncio.gather(
            *[place(client, user, "same") for client in (one, two) for _ in range(12)]
        )
        other = await place(one, user, "same", quantity=9)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replay" not in answer.headers for answer in answers) == 1
    assert other.status_code == 422
    assert await shard_db.fetchval("SELECT count(*) FROM orders") == 1
    assert await shard_db.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_request_with_a_stale_epoch_waits_for_the_new_map_and_succeeds(
    platform: Platform, shard_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        assert (await place(orders, user, "k1")).headers["x-regionctl-epoch"] == "1"
        await owners.set_epochs(shard_db, even_ranges(["s1"], 2))
        asked = asyncio.create_task(place(orders, user, "k2"))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        platform.publish(platform.first_map(epoch=2, version=2))
        answer = await asked
    assert (answer.status_code, answer.headers["x-regionctl-epoch"]) == (201, "2")


async def test_a_read_is_never_answered_under_an_older_epoch_than_its_position_or_the_fence(
    platform: Platform, shard_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        order = (await place(orders, user, "k")).json()
        path = f"/api/v1/orders/{order['id']}"
        later = {"X-Regionctl-Position": "s1.2.1"}
        asked = asyncio.create_task(orders.get(path, headers=later))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        await owners.set_epochs(shard_db, even_ranges(["s1"], 2))
        fresh = {"Cache-Control": "no-cache"}
        without = asyncio.create_task(orders.get(path, headers=fresh))
        done, _ = await asyncio.wait({asked, without}, timeout=0.3)
        assert not done
        platform.publish(platform.first_map(epoch=2, version=2))
        for answer in (await asked, await without):
            assert (answer.status_code, answer.headers["x-regionctl-epoch"]) == (200, "2")


async def test_a_read_whose_position_is_newer_than_every_map_is_refused(
    platform: Platform,
) -> None:
    routing, clock = Routing(platform.map_file, SystemClock()), SystemClock()
    shards = Shards(platform.settings("orders"), routing, clock, budget=0.1)
    with pytest.raises(TooEarly, match="epoch 9"):
        await shards.read(of_slot(0), _never, position=Position("s1", 9, 1))
    shards.close()


async def test_an_invented_position_holds_a_request_for_a_second_and_asks_no_gateway_to_repeat_it(
    platform: Platform,
) -> None:
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        ahead = {"X-Regionctl-Position": "s1.999999999.1"}
        asked = [
            orders.get(path, params=params, headers=ahead)
            for path, params in (
                ("/api/v1/orders/5", {}),
                ("/api/v1/orders", {"user_id": "5"}),
                ("/api/v1/orders/search", {"user_id": "5", "q": "mug"}),
            )
        ]
        for answer in await asyncio.wait_for(asyncio.gather(*asked), 4):
            assert (answer.status_code, answer.headers["retry-after"]) == (425, "1")
            assert answer.json()["type"] == "urn:regionctl:problem:TooEarly"


async def _never(connection: object, place: object) -> None:
    raise AssertionError("the primary of an old map was read")


class Cutting:
    """A relay to a server that cuts a connection when the answer to an order comes back."""

    def __init__(self, port: int) -> None:
        self.armed = True
        self.cuts = 0
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        asked = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(65536):
                if self.armed and b"lost-answer" in data:
                    asked.set()
                up_writer.write(data)

        async def down() -> None:
            while data := await up_reader.read(65536):
                if asked.is_set():
                    self.armed = False
                    self.cuts += 1
                    return
                writer.write(data)

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (writer, up_writer):
            stream.transport.abort()


async def test_a_commit_whose_answer_is_lost_is_found_again_not_repeated(
    platform: Platform, shard_db: checks.Database
) -> None:
    user = await register(platform)
    cutting = Cutting(platform.s1.port)
    server = await asyncio.start_server(cutting, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    whole = platform.first_map(version=2)
    through = replace(
        whole.shards["s1"], primary=Endpoint("s1.x", "us-east-1", "a", "127.0.0.1", port)
    )
    platform.publish(replace(whole, shards={**whole.shards, "s1": through}))
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        answer = await place(orders, user, "lost-answer")
        assert (answer.status_code, cutting.cuts) == (201, 1)
        assert "idempotent-replay" not in answer.headers
        assert (await orders.get(f"/api/v1/orders/{answer.json()['id']}")).json() == answer.json()
    server.close()
    await server.wait_closed()
    assert await shard_db.fetchval("SELECT count(*) FROM orders") == 1


async def test_orders_go_on_with_known_prices_while_the_catalog_is_away(
    platform: Platform,
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        assert (await place(orders, user, "k1")).status_code == 201
        whole = platform.first_map(version=2)
        gone = replace(
            whole.shards["catalog"],
            primary=Endpoint("catalog.x", "us-east-1", "a", "127.0.0.1", 1),
        )
        platform.publish(replace(whole, shards={**whole.shards, "catalog": gone}))
        await asyncio.wait_for(place(orders, user, "k2"), 2)
        assert (await place(orders, user, "k3")).status_code == 201


async def test_a_registration_that_broke_off_is_finished_by_the_next(
    platform: Platform, catalog_db: checks.Database, shard_db: checks.Database
) -> None:
    body = new_user()
    async with platform.service("users") as users:
        first = await users.post("/api/v1/users", json=body, headers=with_key("one"))
        await catalog_db.execute("UPDATE emails SET state = 'reserved'")
        await shard_db.execute("DELETE FROM users")
        again = await users.post("/api/v1/users", json=body, headers=with_key("one"))
        assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
        await catalog_db.execute("UPDATE emails SET state = 'reserved'")
        taken = await users.post("/api/v1/users", json=body, headers=with_key("two"))
        assert taken.status_code == 409
        await catalog_db.execute("UPDATE emails SET state = 'reserved'")
        await shard_db.execute("DELETE FROM users")
        adopted = await users.post("/api/v1/users", json=body, headers=with_key("two"))
        assert (adopted.status_code, adopted.json()["id"]) == (201, first.json()["id"])
        late = await users.post("/api/v1/users", json=body, headers=with_key("one"))
        assert late.status_code == 409
        changed = {**body, "name": "Bob"}
        other = await users.post("/api/v1/users", json=changed, headers=with_key("two"))
        assert other.status_code == 422
    assert await catalog_db.fetchval("SELECT state FROM emails") == "confirmed"
    assert await shard_db.fetchval("SELECT count(*) FROM users") == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[" * 500, b"x" * 300_000,
        b'{"user_id":"1","items":[{"sku":"\\ud800","quantity":1}]}',
        b'{"user_id":"1","items":[{"sku":"a\\u0000","quantity":1}]}',
        b'{"user_id":"1","items":[{"sku":"a","quantity":NaN}]}',
        b'{"user_id":"1","items":[{"sku":"a","quantity":1e400}]}',
        b'{"user_id":"\\u0661","items":[{"sku":"a","quantity":1}]}',
        b'{"user_id":"9223372036854775808","items":[{"sku":"a","quantity":1}]}',
        b'{"user_id":"1","items":[{"sku":"MUG-ONCALL","quantity":1}]}',
        b'{"user_id":"1","items":[{"sku":"nowhere","quantity":1}]}',
        json.dumps({"user_id": "1", "items": [{"sku": "a", "quantity": 1}] * 51}).encode(),
    ],
)  # fmt: skip
async def test_malformed_input_is_the_callers_problem_never_ours(
    platform: Platform, body: bytes
) -> None:
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        answer = await orders.post(
            "/api/v1/orders", content=body, headers={"content-type": "application/json"}
        )
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("DELETE", "/api/v1/orders/1", 405),
        ("GET", "/api/v1/orders/abc", 422),
        ("GET", "/api/v1/orders/1", 404),
        ("GET", "/api/v1/orders", 422),
        ("GET", "/api/v1/orders?user_id=1&limit=0", 422),
        ("GET", "/api/v1/orders?user_id=1&cursor=%00", 422),
        ("GET", "/health/ready", 200),
        ("GET", "/metrics", 200),
    ],
)
async def test_every_path_answers_as_it_should(
    platform: Platform, method: str, path: str, status: int
) -> None:
    async with platform.service("orders") as orders:
        await sign_in(platform, orders)
        answer = await orders.request(method, path)
    assert answer.status_code == status
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_products_are_cached_and_validated_by_tag(platform: Platform) -> None:
    async with platform.service("inventory") as inventory:
        first = await inventory.get("/api/v1/products")
        assert len(first.json()["products"]) == len(checks.PRODUCTS)
        tag = first.headers["etag"]
        same = await inventory.get("/api/v1/products", headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
