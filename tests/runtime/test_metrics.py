"""What a service tells Prometheus of its requests, databases, cache, queue and itself."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime import checks
from runtime.app import build
from runtime.clock import SystemClock, wait_until
from runtime.machine import Machine
from runtime.reader import CLAIM_SECONDS
from runtime.telemetry import REQUESTS
from tests.runtime.conftest import Platform
from tests.runtime.customers import place, register, sign_in, until_recorded
from tests.runtime.platform_server import served

pytestmark = pytest.mark.process

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
# Names that dashboards and alerts may rely on.
NAMES = {
    "regionctl_request_seconds_bucket",
    "regionctl_request_seconds_count",
    "regionctl_request_seconds_sum",
    "regionctl_database_reads_total",
    "regionctl_database_connections",
    "regionctl_database_connections_limit",
    "regionctl_shard_map_version",
    "regionctl_cache_total",
    "regionctl_outbox_relayed_total",
    "regionctl_events_consumed_total",
    "regionctl_stream_lag",
    "regionctl_stream_pending",
    "regionctl_machine_cpus",
    "regionctl_machine_cpu_busy_seconds_total",
    "regionctl_machine_memory_bytes",
    "regionctl_machine_memory_available_bytes",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
}


async def scrape(client: httpx.AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value for (each, has), value in samples.items() if each == name and labels.items() <= has
    )


async def test_a_service_tells_its_requests_cache_queue_cpu_and_memory(
    platform: Platform, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    async with platform.service("orders") as orders, platform.service("inventory"):
        await sign_in(platform, orders, user)
        before = await scrape(orders)
        placed = (await place(orders, user, "one")).json()
        for _ in range(3):
            assert (await orders.get(f"/api/v1/orders/{placed['id']}")).status_code == 200
        await until_recorded(catalog_db, 1)

        async def reported() -> bool:
            # Stock answered: two events, and both groups have told how far they are.
            found = await scrape(orders)
            groups = {dict(has)["group"] for name, has in found if name == "regionctl_stream_lag"}
            relayed = "regionctl_outbox_relayed_total"
            return {"orders", "inventory"} <= groups and total(found, relayed) >= 2

        wait = 3 * CLAIM_SECONDS
        await wait_until(SystemClock(), reported, what="the lag of both groups", seconds=wait)
        after = await scrape(orders)
    assert {name for name, _ in after} >= NAMES
    route = {"route": "/api/v1/orders", "method": "POST", "status": "201"}
    count = "regionctl_request_seconds_count"
    assert total(after, count, **route) == total(before, count, **route) + 1
    found = {key: after[key] - before.get(key, 0) for key in after}
    hits = total(found, "regionctl_cache_total", outcome="hit")
    misses = total(found, "regionctl_cache_total", outcome="miss")
    assert hits >= 1
    assert 0 < hits / (hits + misses) <= 1
    assert after["process_resident_memory_bytes", frozenset()] > 10_000_000


def test_the_machine_is_busy_for_no_longer_than_it_has_processors() -> None:
    found = {family.name: family.samples[0].value for family in Machine().collect()}
    booted = time.time() - psutil.boot_time() + 60
    assert (
        0 < found["regionctl_machine_cpu_busy_seconds"] < booted * found["regionctl_machine_cpus"]
    )
    free, all_of = (found[f"regionctl_machine_memory_{each}bytes"] for each in ("available_", ""))
    assert 0 < free < all_of


def test_latencies_can_be_judged_by_the_objectives() -> None:
    assert {0.1, 0.5} <= set(REQUESTS._kwargs["buckets"])


async def test_an_unknown_path_makes_no_series_of_its_own(platform: Platform) -> None:
    async with (
        served(build(platform.settings("auth"))) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for number in range(3):
            assert (await client.get(f"/never/{number}")).status_code == 404
        samples = await scrape(client)
    routes = {dict(has).get("route") for _, has in samples}
    assert "unmatched" in routes
    assert not [each for each in routes if each and each.startswith("/never")]
