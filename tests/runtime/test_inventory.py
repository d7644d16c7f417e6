"""Products and their stock over a real catalog, cache and queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from runtime import checks, owners
from runtime.clock import SystemClock, wait_until
from runtime.events import STREAM, Event, decode, encode, event_id
from runtime.inventory import static
from runtime.shardmap import CATALOG
from tests.runtime.conftest import FENCE_OF_CATALOG, Platform
from tests.runtime.servers import PASSWORD
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process
PATH = "/api/v1/products"
SKU = "GADGET-1"


@pytest.fixture
async def gadget(platform: Platform, catalog_db: checks.Database) -> AsyncIterator[str]:
    """A product that other tests do not know: 10 pieces at 12.34 USD."""
    await catalog_db.execute(
        "INSERT INTO products VALUES ($1, 'A gadget', 1234, 'USD', 10, 10, 1)", SKU
    )
    yield f"{PATH}/{SKU}"
    await catalog_db.execute("DELETE FROM products WHERE sku = $1", SKU)


@pytest.fixture
async def stream(platform: Platform) -> AsyncIterator[Redis]:
    client = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    yield client
    await client.aclose()


def order_event(kind: str, order: int, quantity: int = 4, sku: str = SKU) -> Event:
    payload = {"order_id": order, "user_id": 7, "items": [[sku, quantity]]}
    return Event(order if kind == "OrderCreated" else order + 1000, kind, payload)


async def send(stream: Redis, *events: Event) -> None:
    for event in events:
        fields: Any = encode(event)
        await stream.xadd(STREAM, fields)


async def answers(stream: Redis, number: int) -> list[tuple[str, int]]:
    """The first `number` answers of inventory in the stream, once they are there."""
    found: list[tuple[str, int]] = []

    async def there() -> bool:
        entries: Any = await stream.xrange(STREAM)
        events = [decode(fields) for _, fields in entries]
        said = [event for event in events if event.kind.startswith("Stock")]
        found[:] = [(event.kind, event.payload["order_id"]) for event in said]
        assert all(
            event.id == event_id(event.payload["order_id"], event.kind)  # type: ignore[arg-type]
            for event in said
        )
        return len(found) >= number

    await wait_until(SystemClock(), there, what="answers", seconds=30)
    return found


async def test_orders_reserve_stock_and_give_it_back_and_every_question_is_answered(
    platform: Platform, gadget: str, stream: Redis, catalog_db: checks.Database
) -> None:
    created, cancelled = order_event("OrderCreated", 1), order_event("OrderCancelled", 1)
    async with platform.service("inventory"), platform.service("inventory", "b"):
        await send(stream, created)
        assert await answers(stream, 1) == [("StockReserved", 1)]
        await send(stream, order_event("OrderCreated", 2, 7))
        assert (await answers(stream, 2))[1:] == [("StockRefused", 2)]
        await send(stream, created)
        assert (await answers(stream, 3))[2:] == [("StockReserved", 1)]
        await send(stream, cancelled)
        assert (await answers(stream, 4))[3:] == [("StockReturned", 1)]
        await send(stream, created)
        assert (await answers(stream, 5))[4:] == [("StockReturned", 1)]
        await send(stream, order_event("OrderCancelled", 3))
        assert (await answers(stream, 6))[5:] == [("StockReturned", 3)]
        await send(stream, order_event("OrderCreated", 3), order_event("OrderCancelled", 2, 7))
        assert set((await answers(stream, 8))[6:]) == {("StockReturned", 3), ("StockRefused", 2)}
    assert await catalog_db.fetchval("SELECT stock FROM products WHERE sku = $1", SKU) == 10
    rows = await catalog_db.fetch("SELECT event_id, outcome FROM stock_movements ORDER BY 1")
    assert [tuple(row) for row in rows] == [(1, "returned"), (2, "refused"), (3, "returned")]


async def test_two_consumers_racing_for_the_same_events_count_them_once(
    platform: Platform, gadget: str, stream: Redis, catalog_db: checks.Database
) -> None:
    async with platform.service("inventory"), platform.service("inventory", "b"):
        events = [order_event("OrderCreated", order, 1) for order in range(1, 16)]
        await send(stream, *events, *events, *reversed(events))

        async def handled() -> bool:
            groups: Any = await stream.xinfo_groups(STREAM)
            return bool(groups) and all(g["lag"] == 0 and g["pending"] == 0 for g in groups)

        await wait_until(SystemClock(), handled, what="the consumers", seconds=30)
    outcomes = await catalog_db.fetch("SELECT outcome, count(*) FROM stock_movements GROUP BY 1")
    assert dict(map(tuple, outcomes)) == {"reserved": 10, "refused": 5}
    assert await catalog_db.fetchval("SELECT stock FROM products WHERE sku = $1", SKU) == 0


async def test_events_of_a_region_that_lost_its_home_take_no_stock(
    platform: Platform, gadget: str, stream: Redis, catalog_db: checks.Database
) -> None:
    """The first is read by an old map and waits for the catalog; the second comes later."""
    await owners.set_epochs(catalog_db, (replace(FENCE_OF_CATALOG[0], epoch=2),))
    try:
        async with platform.service("inventory"):
            await send(stream, order_event("OrderCreated", 1))

            async def taken() -> bool:
                groups: Any = await stream.xinfo_groups(STREAM)
                return bool(groups) and groups[0]["pending"] == 1

            await wait_until(SystemClock(), taken, what="the reader", seconds=30)
            moved = platform.first_map(version=2)
            shards = {name: replace(s, home="eu-west-1") for name, s in moved.shards.items()}
            shards[CATALOG] = replace(shards[CATALOG], epoch=2)
            platform.publish(replace(moved, shards=shards))

            async def done() -> bool:
                groups: Any = await stream.xinfo_groups(STREAM)
                return groups[0]["lag"] == groups[0]["pending"] == 0

            await wait_until(SystemClock(), done, what="the first event", seconds=30)
            await send(stream, order_event("OrderCreated", 2))
            await wait_until(SystemClock(), done, what="the second event", seconds=30)
    finally:
        await catalog_db.execute("UPDATE regionctl.slot_owner SET epoch = 1")
    assert await catalog_db.fetchval("SELECT count(*) FROM stock_movements") == 0
    assert await catalog_db.fetchval("SELECT stock FROM products WHERE sku = $1", SKU) == 10


async def test_products_are_listed_page_by_page_and_searched(platform: Platform) -> None:
    async with platform.service("inventory") as client:
        first = (await client.get(PATH)).json()
        assert (len(first["products"]), first["next"]) == (len(checks.PRODUCTS), None)
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            body = (await client.get(PATH, params={"limit": 7, "cursor": cursor})).json()
            seen += [product["sku"] for product in body["products"]]
            cursor = body["next"]
        assert seen == [sku for sku, _, _ in checks.PRODUCTS]
        found = (await client.get(PATH, params={"q": "desk LAMP"})).json()["products"]
        assert [product["sku"] for product in found] == ["LAMP-LED"]
        for bad in ({"limit": 0}, {"limit": 101}, {"cursor": "x" * 200}, {"q": "x" * 200}):
            assert (await client.get(PATH, params=bad)).status_code == 422
        assert (await client.get(f"{PATH}/NO-SUCH")).status_code == 404


async def test_only_reads_of_products_with_a_query_are_counted(platform: Platform) -> None:
    async with platform.service("inventory") as client:
        assert "RateLimit-Limit" not in (await client.get(PATH)).headers
        searched = await client.get(PATH, params={"q": "mug"})
        assert searched.headers["RateLimit-Remaining"] == "599"


async def test_a_product_is_validated_by_its_tag_and_may_be_kept_for_seconds(
    platform: Platform,
) -> None:
    async with platform.service("inventory") as client:
        for path in (PATH, f"{PATH}/MUG-ONCALL"):
            answer = await client.get(path)
            assert answer.headers["Cache-Control"].startswith("public, max-age=2")
            tag = answer.headers["ETag"]
            for asked in (tag, f'"other", W/{tag}', "*"):
                same = await client.get(path, headers={"If-None-Match": asked})
                assert (same.status_code, same.content) == (304, b"")
            other = await client.get(path, headers={"If-None-Match": '"other"'})
            assert other.status_code == 200


async def test_an_admin_changes_a_product_and_everybody_sees_it_at_once(
    platform: Platform, gadget: str, catalog_db: checks.Database
) -> None:
    admin = await bearer(platform, role="admin", client="operator")
    async with platform.service("inventory") as client, platform.service("inventory", "b") as other:
        assert (await other.get(gadget)).json()["stock"] == 10
        change = {"name": "Gizmo", "price": {"amount": "99.50", "currency": "USD"}, "add_stock": 5}
        for _ in range(2):
            headers = {**admin, "Idempotency-Key": "k"}
            answer = await client.patch(gadget, json=change, headers=headers)
            assert answer.status_code == 200
        seen = (await other.get(gadget)).json()
        assert seen == answer.json()
        assert seen == {
            "sku": SKU,
            "name": "Gizmo",
            "price": {"amount": "99.50", "currency": "USD"},
            "stock": 15,
        }
        assert answer.headers["X-Regionctl-Position"].startswith("catalog.1.")
    row = await catalog_db.fetchrow("SELECT initial_stock FROM products WHERE sku = $1", SKU)
    assert row is not None
    assert row["initial_stock"] == 15


@pytest.mark.parametrize(
    "change",
    [
        {"price": {"amount": "1.5", "currency": "USD"}},
        {"price": {"amount": "-1", "currency": "USD"}},
        {"price": {"amount": "1.00", "currency": "EUR"}},
        {"add_stock": -1},
        {"add_stock": 2**70},
        {"add_stock": "5"},
        {"name": ""},
        {"name": "a\x00b"},
        {"stock": 5},
        [],
    ],
)
async def test_a_senseless_change_is_refused(platform: Platform, gadget: str, change: Any) -> None:
    admin = await bearer(platform, role="admin", client="operator")
    async with platform.service("inventory") as client:
        assert (await client.patch(gadget, json=change, headers=admin)).status_code == 422
        assert (await client.get(gadget)).json()["stock"] == 10


async def test_only_an_admin_changes_products_and_every_attempt_is_recorded(
    platform: Platform, gadget: str, catalog_db: checks.Database
) -> None:
    async with platform.service("inventory") as client:
        assert (await client.patch(gadget, json={"add_stock": 1})).status_code == 401
        for headers in (
            await bearer(platform, user_id=7),
            await bearer(platform, role="service", client="probe"),
        ):
            answer = await client.patch(gadget, json={"add_stock": 1}, headers=headers)
            assert answer.status_code == 403
        admin = await bearer(platform, role="admin", client="operator")
        answer = await client.patch(f"{PATH}/NO-SUCH", json={"add_stock": 1}, headers=admin)
        assert answer.status_code == 404
        assert (await client.patch(gadget, json={"add_stock": 1}, headers=admin)).is_success
    rows = await catalog_db.fetch(
        "SELECT action, outcome, actor, subject, detail::text FROM audit_log ORDER BY id"
    )
    who = ("product.change", "denied", "user:7"), ("product.change", "denied", "client:probe")
    assert [tuple(row) for row in rows] == [
        *((*each, f"product:{SKU}", "{}") for each in who),
        ("product.change", "allowed", "client:operator", f"product:{SKU}", '{"add": 1}'),
    ]


async def test_stock_that_was_taken_shows_in_the_cached_list(
    platform: Platform, gadget: str, stream: Redis
) -> None:
    async with platform.service("inventory") as client:
        assert (await client.get(gadget)).json()["stock"] == 10
        await send(stream, order_event("OrderCreated", 1))

        async def shown() -> bool:
            return bool((await client.get(gadget)).json()["stock"] == 6)

        await wait_until(SystemClock(), shown, what="the new stock", seconds=30)


async def test_products_are_there_without_a_cache(platform: Platform) -> None:
    settings = platform.settings("inventory")
    away = type(settings)(**{**vars(settings), "cache": ("127.0.0.1", 1)})
    async with platform.service("inventory", settings=away) as client:
        answers = await asyncio.gather(*(client.get(PATH) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}


async def test_static_files_are_kept_for_a_month_and_nothing_else_is_served(
    platform: Platform,
) -> None:
    async with platform.service("inventory") as client:
        answer = await client.get("/static/product.svg")
        assert answer.headers["Content-Type"] == "image/svg+xml"
        assert answer.headers["Cache-Control"] == "public, max-age=2592000, immutable"
        tag = answer.headers["ETag"]
        same = await client.get("/static/product.svg", headers={"If-None-Match": tag})
        assert same.status_code == 304
        for name in ("../app.py", "%2e%2e%2fapp.py", "..%2fapp.py", "a/b", ".", "", "x.svg"):
            assert (await client.get(f"/static/{name}")).status_code == 404


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "secret.key").write_text("x")
    return tmp_path


def test_files_of_unknown_types_are_left_out(folder: Path) -> None:
    assert list(static.load(folder)) == ["a.svg"]


def test_the_api_reference_loads_nothing_from_elsewhere() -> None:
    page = static.load()["openapi.html"].body.decode()
    assert "http://" not in page
    assert "https://" not in page
