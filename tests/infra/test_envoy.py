"""Real Envoys in front of tiny real servers."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.local import envoy
from runtime.clock import SystemClock, wait_until
from runtime.errors import TimedOut
from tests.infra.envoys import Gateway, World, later, load

process = pytest.mark.process


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


@process
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_killed_server_costs_no_repeatable_request(world: World, method: str) -> None:
    orders, servers = world.upstreams()
    gateway = await world.gateway(orders)
    async with world.client(gateway.listen) as client:
        kill = later(0.5, servers[0], signal.SIGKILL)
        statuses, _ = await asyncio.gather(
            load(client, method, keyed=method == "POST", seconds=1.5), kill
        )
    assert set(statuses) == {200}
    assert statuses[200] > 50


@process
async def test_a_killed_server_is_hidden_through_the_edge_too(world: World) -> None:
    orders, servers = world.upstreams()
    gateway = await world.gateway(orders)
    edge = await world.edge([gateway.address])
    async with world.client(edge.listen) as client:
        kill = later(0.5, servers[0], signal.SIGKILL)
        statuses, _ = await asyncio.gather(load(client, "POST", keyed=True, seconds=1.5), kill)
    assert set(statuses) == {200}


@process
async def test_a_killed_gateway_costs_no_repeatable_request(world: World) -> None:
    orders, _ = world.upstreams()
    first, second = await world.gateway(orders), await world.gateway(orders)
    edge = await world.edge([first.address, second.address])
    async with world.client(edge.listen) as client:
        kill = later(0.5, first.process, signal.SIGKILL)
        statuses, _ = await asyncio.gather(load(client, "POST", keyed=True, seconds=1.5), kill)
    assert set(statuses) == {200}


@process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_gateway_is_hidden_from_the_edges_cache_too(
    world: World, number: signal.Signals
) -> None:
    servers, _ = world.upstreams()
    first, second = await world.gateway(servers), await world.gateway(servers)
    edge = await world.edge([first.address, second.address])
    async with world.client(edge.listen) as client:
        loss = later(0.3, first.process, number)
        read = load(client, "GET", keyed=False, seconds=1, path="/api/v1/products")
        statuses, _ = await asyncio.gather(read, loss)
    assert set(statuses) == {200}


@process
async def test_a_frozen_server_delays_but_fails_no_repeatable_request(world: World) -> None:
    orders, servers = world.upstreams()
    gateway = await world.gateway(orders)
    async with world.client(gateway.listen) as client:
        freeze = later(0.4, servers[0], signal.SIGSTOP)
        statuses, _ = await asyncio.gather(load(client, "POST", keyed=True, seconds=3.5), freeze)
    assert set(statuses) == {200}


@process
async def test_a_frozen_gateway_delays_but_fails_no_repeatable_request(world: World) -> None:
    orders, _ = world.upstreams()
    first, second = await world.gateway(orders), await world.gateway(orders)
    edge = await world.edge([first.address, second.address])
    async with world.client(edge.listen) as client:
        freeze = later(0.3, first.process, signal.SIGSTOP)
        statuses, _ = await asyncio.gather(load(client, "POST", keyed=True, seconds=1), freeze)
    assert set(statuses) == {200}


@process
async def test_a_post_without_a_key_is_never_sent_twice(world: World) -> None:
    orders, servers = world.upstreams()
    gateway = await world.gateway(orders)
    async with world.client(gateway.listen) as client:
        kill = later(0.5, servers[0], signal.SIGKILL)
        await asyncio.gather(load(client, "POST", keyed=False, seconds=1.2), kill)
    seen = Counter(world.journal.read_text().split())
    assert len(seen) > 50
    assert set(seen.values()) == {1}


@process
async def test_a_client_cannot_ask_for_retries_of_its_own(world: World) -> None:
    orders, servers = world.upstreams()
    gateway = await world.gateway(orders)
    edge = await world.edge([gateway.address])
    steering = {"x-envoy-retry-on": "reset,5xx", "x-envoy-max-retries": "5", "x-attempt": "one"}

    async def kill_when_busy() -> None:
        async def all_arrived() -> bool:
            return len(world.journal.read_text().split()) == 4

        await wait_until(SystemClock(), all_arrived, what="four POSTs", seconds=30, every=0.01)
        servers[0].kill()

    async with world.client(edge.listen) as client:
        posts = [client.post("/api/v1/orders/slow", headers=steering) for _ in range(4)]
        answers = await asyncio.gather(*posts, kill_when_busy())
    assert len(world.journal.read_text().split()) == 4
    assert 503 in {answer.status_code for answer in answers if answer}


@process
async def test_tls_is_verified_with_our_authority_only(world: World) -> None:
    gateway = await world.gateway([])
    edge = await world.edge([gateway.address])
    async with world.client(edge.listen) as client:
        answer = await client.get("/health/ready", headers={"x-request-id": "mine"})
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == "mine"
        assert "server" not in answer.headers
    async with httpx.AsyncClient(trust_env=False) as stranger:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.get(f"https://127.0.0.1:{edge.listen}/health/ready")


@process
async def test_a_closed_route_answers_with_a_problem_and_opens_again(world: World) -> None:
    gateway = await world.gateway([])
    edge = await world.edge([gateway.address])
    async with world.client(edge.listen) as client:
        envoy.write_edge_route(edge.folder, [])
        await envoy.await_route(edge.admin, [], 5)
        answer = await client.get("/api/v1/orders")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["type"] == "urn:regionctl:problem:Unavailable"
        assert answer.json()["status"] == 503
        assert await envoy.in_flight(edge.admin) == 0
        envoy.write_edge_route(edge.folder, [gateway.address])
        await envoy.await_route(edge.admin, [gateway.address], 5)
        assert (await client.get("/health/ready")).status_code == 200


@process
async def test_a_closed_route_is_drained_unless_its_gateways_are_dead(world: World) -> None:
    orders, servers = world.upstreams(1)
    gateway = await world.gateway(orders)
    edge = await world.edge([gateway.address])
    former = [gateway.address]
    async with world.client(edge.listen) as client:
        slow = asyncio.create_task(client.get("/api/v1/orders/slow"))
        await _until_in_flight(edge)
        envoy.write_edge_route(edge.folder, [])
        await envoy.await_route(edge.admin, [], 5)
        assert await envoy.drained(edge.admin, former, 5)
        assert (await asyncio.wait_for(slow, 30)).status_code == 200

        envoy.write_edge_route(edge.folder, former)
        await envoy.await_route(edge.admin, former, 5)
        servers[0].send_signal(signal.SIGSTOP)
        stuck = asyncio.create_task(client.get("/api/v1/orders/slow"))
        await _until_in_flight(edge)
        assert not await envoy.drained(edge.admin, former, 0.2)
        gateway.process.kill()
        gateway.process.wait()
        began = time.monotonic()
        assert await envoy.drained(edge.admin, former, 30)
        assert time.monotonic() - began < 10
        stuck.cancel()


async def _until_in_flight(edge: Gateway) -> None:
    async def asked() -> bool:
        return bool(await envoy.in_flight(edge.admin))

    await wait_until(SystemClock(), asked, what="a request on its way", seconds=30, every=0.01)


@process
async def test_a_route_is_switched_live_without_a_failed_request(world: World) -> None:
    orders, _ = world.upstreams()
    here, there = await world.gateway(orders[:1]), await world.gateway(orders[1:])
    edge = await world.edge([here.address])

    async def switch() -> None:
        for gateway in (there, here, there):
            await asyncio.sleep(0.2)
            envoy.write_edge_route(edge.folder, [gateway.address])
            await envoy.await_route(edge.admin, [gateway.address], 5)

    async with world.client(edge.listen) as client:
        statuses, _ = await asyncio.gather(load(client, "POST", keyed=False, seconds=1.2), switch())
        assert set(statuses) == {200}
        assert (await client.get("/api/v1/orders")).text == str(orders[1][1])


@process
async def test_a_file_that_is_wrong_changes_nothing(world: World) -> None:
    orders, _ = world.upstreams(1)
    gateway = await world.gateway(orders)
    for name in ("rds", "lds", "cds", "eds-orders"):
        temporary = gateway.folder / "bad"
        temporary.write_text(json.dumps({"version_info": "2", "resources": [{"@type": "wrong"}]}))
        temporary.replace(gateway.folder / f"{name}.json")
    async with world.client(gateway.listen) as client:
        assert (await client.get("/api/v1/orders")).status_code == 200
    with pytest.raises(TimedOut):
        await envoy.await_endpoints(gateway.admin, "orders", [], 0.1)
    envoy.write_endpoints(gateway.folder, "orders", [])
    await envoy.await_endpoints(gateway.admin, "orders", [], 5)


@process
async def test_the_gateway_answers_what_it_does_not_route(world: World) -> None:
    orders, _ = world.upstreams(1)
    gateway = await world.gateway(orders)
    async with world.client(gateway.listen) as client:
        assert (await client.get("/health/ready")).status_code == 200
        for path in ("/", "/api/v1/ordersx", "/metrics"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        answer = await client.get("/api/v1/orders/7", headers={"x-request-id": "mine"})
        assert answer.headers["x-saw-request"] == "mine"
        assert (await client.get("/api/v1/users")).status_code == 503


@process
async def test_a_body_that_is_too_large_is_refused_with_a_problem(world: World) -> None:
    orders, _ = world.upstreams(1)
    gateway = await world.gateway(orders)
    edge = await world.edge([gateway.address])
    async with world.client(edge.listen) as client:
        answer = await client.post("/api/v1/orders", content=b"x" * (2 << 20))
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
    assert not world.journal.read_bytes()
