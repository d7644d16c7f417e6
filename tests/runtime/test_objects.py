"""Objects are kept through a kill, read by signed URLs, and missed without surprise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from runtime.analytics import Archive
from runtime.clock import SystemClock, wait_until
from runtime.errors import Invalid, NotFound, Unavailable
from runtime.events import STREAM, Event, encode
from runtime.objects import ANALYTICS, INVOICES, Objects
from runtime.settings import Settings
from tests.ports import free_port
from tests.runtime.conftest import Platform
from tests.runtime.seaweed import KEY, SECRET, Seaweed
from tests.runtime.servers import PASSWORD, Valkey
from tests.runtime.test_analytics import lines_of

PUBLIC = "https://shop.example:18001"
SETTINGS = Settings(
    "payments", "payments.us-east-1a", "us-east-1", "a", Path("map"), "", "",
    entry_url=PUBLIC, secrets={"objectsKey": KEY, "objectsSecret": SECRET},
)  # fmt: skip

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def seaweed(server_root: Path) -> Iterator[Seaweed]:
    server = Seaweed(server_root / "objects")
    server.start()
    yield server
    server.stop()


async def takes_objects(objects: Objects) -> None:
    """Its S3 port answers some time before it has found its own volumes."""

    async def put() -> bool:
        try:
            await objects.put("ready", "ready", b"")
        except Unavailable:
            return False
        return True

    await wait_until(SystemClock(), put, what="the object storage", seconds=30, every=0.2)


async def test_what_was_put_is_there_after_a_kill_and_signed_urls_read_it(
    seaweed: Seaweed,
) -> None:
    objects = Objects(replace(SETTINGS, objects=seaweed.url))
    await takes_objects(objects)
    await objects.ensure([ANALYTICS, INVOICES])
    await objects.ensure([ANALYTICS, INVOICES])
    bodies = {f"2026/{number}.html": b"%d" % number * 3000 for number in range(20)}
    for key, body in bodies.items():
        await objects.put(INVOICES, key, body, "text/html")
    seaweed.stop()
    with pytest.raises(Unavailable):
        await objects.put(INVOICES, "late", b"")
    with pytest.raises(Unavailable):
        await objects.ensure([ANALYTICS, INVOICES])
    seaweed.start()

    async def whole() -> bool:
        try:
            return {key: await objects.get(INVOICES, key) for key in bodies} == bodies
        except Unavailable:
            return False

    await wait_until(SystemClock(), whole, what="every object", seconds=30, every=0.2)
    assert {key async for key in objects.list(INVOICES, "2026")} == set(bodies)
    await objects.delete(INVOICES, "2026/1.html")
    await objects.delete(INVOICES, "2026/1.html")
    assert not await objects.exists(INVOICES, "2026/1.html")
    with pytest.raises(NotFound):
        await objects.get(INVOICES, "2026/1.html")
    url = objects.sign(INVOICES, "2026/2.html", 60)
    assert url.startswith(f"{PUBLIC}/invoices/2026/2.html?")
    assert SECRET not in url
    inner = url.replace(PUBLIC, seaweed.url)
    async with httpx.AsyncClient(trust_env=False, headers={"Host": "shop.example:18001"}) as client:
        answer = await client.get(inner)
        assert answer.content == bodies["2026/2.html"]
        assert answer.headers["content-type"] == "text/html"
        assert (await client.put(inner, content=b"x")).status_code == 403
        assert (await client.get(inner.replace("/2.html", "/3.html"))).status_code == 403
        assert (await client.get(f"{seaweed.url}/invoices/2026/2.html")).status_code == 403
        assert (await client.get(inner, headers={"Host": "elsewhere"})).status_code == 403


async def test_a_bucket_that_is_not_there_is_made_by_the_first_put(seaweed: Seaweed) -> None:
    objects = Objects(replace(SETTINGS, objects=seaweed.url))
    await objects.put("made-by-put", "one", b"first")
    assert await objects.get("made-by-put", "one") == b"first"


async def test_a_storage_that_is_not_there_is_unavailable_and_its_words_stay_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Unavailable, match="no object storage"):
        await Objects(SETTINGS).get(INVOICES, "x")
    away = Objects(replace(SETTINGS, objects=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable) as caught:
        await away.get(INVOICES, "x")
    assert caught.value.detail == "The object storage does not answer as it should."
    assert "Generic S3 error" in str(caplog.records[-1].__dict__["data"])
    with pytest.raises(Invalid):
        away.sign(INVOICES, "x", 0)


async def test_events_are_acknowledged_when_the_storage_has_them(
    seaweed: Seaweed, queue: Valkey
) -> None:
    client = Redis(port=queue.port, password=PASSWORD, protocol=2)
    await client.flushall()
    for number in range(1, 4):
        await client.xadd(STREAM, encode(Event(number, "OrderCreated", {"n": number})))  # type: ignore[arg-type]
    await client.xadd(STREAM, {"nonsense": "1"})
    away = Archive("a", Objects(replace(SETTINGS, objects=f"http://127.0.0.1:{free_port()}")))
    with pytest.raises(Unavailable):
        await away.turn(client)
    await client.xadd(STREAM, encode(Event(4, "OrderCreated", {"n": 4})))  # type: ignore[arg-type]
    objects = Objects(replace(SETTINGS, objects=seaweed.url))
    archive = Archive("b", objects, orphan_seconds=0)
    assert [await archive.turn(client) for _ in range(3)] == [4, 1, 0]
    keys = sorted([key async for key in objects.list(ANALYTICS)])
    assert len(keys) == 2
    kept = [line for key in keys for line in lines_of(await objects.get(ANALYTICS, key))]
    assert [line["id"] for line in kept] == ["1", "2", "3", "", "4"]
    groups = await client.xinfo_groups(STREAM)
    assert [(row["pending"], row["lag"]) for row in groups] == [(0, 0)]
    await client.aclose()


async def test_the_service_keeps_every_event_of_the_queue(
    seaweed: Seaweed, platform: Platform
) -> None:
    client = Redis(port=platform.queue.port, password=PASSWORD, protocol=2)
    await client.xadd(STREAM, encode(Event(9, "StockReserved", {"order_id": 9})))  # type: ignore[arg-type]
    plain = platform.settings("notifications")
    secrets = {**plain.secrets, **SETTINGS.secrets}
    settings = replace(plain, objects=seaweed.url, secrets=secrets)
    async with platform.service("notifications", settings=settings):

        async def kept() -> bool:
            groups = await client.xinfo_groups(STREAM)
            return [(row["name"], row["lag"], row["pending"]) for row in groups] == [
                (b"analytics", 0, 0)
            ]

        await wait_until(SystemClock(), kept, what="the analytics", seconds=30)
    await client.aclose()
