"""What Envoy says of its counts, and counts of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.traffic import count, lets_in
from infra.traffic import BOUNDS, Traffic
from tests.infra.frontdoor import front_door

SERVICES = "cluster.{}.external.upstream_rq_{}"


def histogram(name: str, *cumulative: int) -> dict[str, object]:
    bounds = (5, 10, 3e5)
    buckets = [
        {"upper_bound": bound, "interval": 0, "cumulative": known}
        for bound, known in zip(bounds, cumulative, strict=True)
    ]
    return {"name": name, "buckets": buckets}


def test_a_gateway_has_done_what_it_did_for_all_services_together() -> None:
    said = {
        "stats": [
            {"name": SERVICES.format("orders", "completed"), "value": 23},
            {"name": SERVICES.format("users", "completed"), "value": 2},
            {"name": SERVICES.format("users", "5xx"), "value": 1},
            {
                "histograms": [
                    histogram(SERVICES.format("orders", "time"), 14, 20, 23),
                    histogram(SERVICES.format("users", "time"), 0, 1, 1),
                ]
            },
        ]
    }
    assert count(said) == Traffic(25, 1, ((5.0, 14), (10.0, 21), (300_000.0, 24)))


def test_an_envoy_that_has_served_nobody_has_counted_nothing() -> None:
    assert count({"stats": []}) == Traffic()


@given(st.lists(st.floats(0.0, 100_000.0), max_size=50))
def test_every_request_is_in_its_bucket_and_in_all_above(times: list[float]) -> None:
    traffic = Traffic()
    for milliseconds in times:
        traffic = traffic.with_request(milliseconds, failed=False)
    assert traffic.requests == len(times)
    for bound, known in traffic.buckets[:-1]:
        assert known == sum(each <= bound for each in times)
    if times:
        assert traffic.buckets[-1] == (BOUNDS[-1], len(times))


@pytest.mark.process
def test_an_edge_that_is_frozen_or_dead_lets_nobody_in(tmp_path: Path) -> None:
    authority = tmp_path / "ca" / "ca.pem"
    with front_door(tmp_path) as door:
        assert asyncio.run(lets_in(door.edge, authority))
        door.freeze_edge()
        assert not asyncio.run(lets_in(door.edge, authority))
        door.kill_edge()
        assert not asyncio.run(lets_in(door.edge, authority))
