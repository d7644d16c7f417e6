"""An instance that goes: nothing is lost with it, and nothing has to be tried again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from infra.local import envoy, scaling
from runtime.clock import SystemClock, wait_until
from tests.infra.envoys import CLIENTS, Addresses, Gateway, World, load

pytestmark = pytest.mark.process
SERVICES = ("orders", "inventory")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


async def remove(gateway: Gateway, orders: Addresses, server: subprocess.Popen[bytes]) -> None:
    """The first of `orders` goes as an instance does that is one too many."""
    tell(gateway, orders[1:])
    assert await scaling.let_go([gateway.process.pid], orders[:1])
    server.kill()


async def kill(gateway: Gateway, orders: Addresses, server: subprocess.Popen[bytes]) -> None:
    """The same without the drain."""
    server.kill()
    tell(gateway, orders[1:])


def tell(gateway: Gateway, orders: Addresses) -> None:
    for service in SERVICES:
        envoy.write_endpoints(gateway.folder, service, orders)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("go", [remove, kill])
async def test_a_drained_server_leaves_nothing_to_retry_and_a_killed_one_does(
    world: World, go: Callable[..., Awaitable[None]], method: str
) -> None:
    """Retries hide much, so they are counted: the gateway had none to make, also of short requests
    beside long ones. A POST without a key could not be repeated either."""
    orders, servers = world.upstreams()
    gateway = await world.gateway(orders)

    async def going() -> None:
        async def busy() -> bool:
            return (await envoy.in_flight(gateway.admin, "orders") or 0) >= CLIENTS // 2

        await wait_until(SystemClock(), busy, what="requests", seconds=30, every=0.01)
        await go(gateway, orders, servers[0])

    async with world.client(gateway.listen) as client:
        quick = load(client, method, keyed=False, seconds=2)
        slow = load(client, method, keyed=False, seconds=2, path="/api/v1/orders/slow")
        statuses, others, _ = await asyncio.gather(quick, slow, going())
        assert (await client.get("/api/v1/orders")).text == str(orders[1][1])
    failed = (statuses + others).total() - (statuses + others)[200]
    retries = await statistic(gateway, "cluster.orders.upstream_rq_retry")
    assert statuses[200] > CLIENTS
    assert bool(failed or retries) == (go is kill)


async def statistic(gateway: Gateway, name: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as admin:
        answer = await admin.get(f"http://127.0.0.1:{gateway.admin}/stats?filter=^{name}$")
    return int(answer.text.rpartition(":")[2])
