"""Dead letters and lag over the API, on a platform in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from control_plane import api
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import provisioned


def letter(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "event": "7",
        "kind": "OrderCreated",
        "payload": {"order_id": "7"},
        "group": "inventory",
        "reason": "no items",
        "entry": "1-0",
        "at": "2026-01-01T00:00:00+00:00",
    }


class Bench:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        platform.provider.dead["us-east-1"] = {id: letter(id) for id in ("5-0", "6-0")}
        app = FastAPI()
        app.state.plane = SimpleNamespace(
            provider=platform.provider,
            topology=platform.topology,
            store=platform.store,
            token="t",
        )
        api.add_routes(app)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://plane",
            headers={"Authorization": "Bearer t"},
        )

    async def post(self, act: str, **body: Any) -> httpx.Response:
        return await self.http.post(f"/v1/dead-letters/{act}", json=body)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Platform.open() as platform:
        await provisioned(platform)
        bench = Bench(platform)
        yield bench
        await bench.http.aclose()


async def test_without_a_region_the_letters_of_the_serving_one_are_listed(bench: Bench) -> None:
    found = (await bench.http.get("/v1/dead-letters")).json()
    assert found["region"] == "us-east-1"
    assert [each["id"] for each in found["items"]] == ["5-0", "6-0"]
    away = (await bench.http.get("/v1/dead-letters", params={"region": "us-west-2"})).json()
    assert (away["region"], away["items"]) == ("us-west-2", [])


async def test_an_unknown_region_is_not_found(bench: Bench) -> None:
    answer = await bench.http.get("/v1/dead-letters", params={"region": "mars"})
    assert (answer.status_code, "us-west-2" in answer.json()["hint"]) == (404, True)


async def test_what_is_dropped_is_told_in_full_with_the_reason(bench: Bench) -> None:
    answer = await bench.post("drop", ids=["5-0", "9-9"], reason="a test order")
    assert answer.json() == {"region": "us-east-1", "dropped": 1, "ids": ["5-0"]}
    (event,) = await bench.platform.store.past_events(limit=1)
    assert (event.kind, event.data["reason"]) == ("dead-letters-dropped", "a test order")
    assert event.data["letters"] == [letter("5-0")]
    assert list(bench.platform.provider.dead["us-east-1"]) == ["6-0"]


async def test_a_replay_takes_the_letter_away_once(bench: Bench) -> None:
    body = {"ids": ["6-0"], "region": "us-east-1"}
    assert (await bench.post("replay", **body)).json()["replayed"] == 1
    assert (await bench.post("replay", **body)).json()["replayed"] == 0


async def test_which_letters_is_never_left_open(bench: Bench) -> None:
    assert (await bench.post("drop", ids=[])).status_code == 422


async def test_the_lag_counts_the_dead_letters_too(bench: Bench) -> None:
    found = (await bench.http.get("/v1/event-lag")).json()
    assert (found["region"], found["deadLetters"]) == ("us-east-1", 2)


async def test_without_a_serving_region_one_has_to_be_named(bench: Bench) -> None:
    bench.platform.provider.route = None
    answer = await bench.http.get("/v1/dead-letters")
    assert (answer.status_code, answer.json()["hint"]) == (
        503,
        "say which one is meant: --region",
    )


async def test_invariants_are_told_as_they_are_now(bench: Bench) -> None:
    items = (await bench.http.get("/v1/invariants")).json()["items"]
    assert items
    assert all(each["held"] for each in items)
