"""What the control plane tells Prometheus of the platform."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from control_plane.exposition import text
from tests.control_plane import overviews
from tests.control_plane.served import TOKEN, served, state_dir

Samples = dict[tuple[str, tuple[str, ...]], float]
JSON = dict[str, Any]


def told(document: JSON, failovers: Iterable[tuple[str, str, datetime]] = ()) -> Samples:
    """(metric without its prefix, the values of its labels) → value."""
    families = text_string_to_metric_families(text(document, failovers).decode())
    return {
        (sample.name.removeprefix("regionctl_"), tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_healthy_platform_has_no_trouble_and_a_standby_for_every_database() -> None:
    found = told(overviews.healthy())
    troubles = [value for (name, _), value in found.items() if name == "troubles"]
    assert troubles
    assert not any(troubles)
    for database in ("s1", "s2", "catalog"):
        assert found["database_primary_running", (database,)] == 1
        assert found["database_standbys_in_sync", (database,)] == 1
        assert found["archive_gap", (database,)] == 0
    assert found["region_routed", ("us-east-1",)] == 1
    assert found["region_routed", ("us-west-2",)] == 0


def test_what_is_broken_shows_in_its_own_figure() -> None:
    found = told(overviews.degraded())
    assert found["database_standbys_in_sync", ("s2",)] == 0
    assert found["database_standbys_in_sync", ("s1",)] == 1
    assert found["database_lag_seconds", ("s1", "s1.us-west-2a")] == 18.4
    assert found["archive_gap", ("s2",)] == 1
    assert found["troubles", ("s2",)] >= 1
    region = "us-east-1"
    running, all_of = (found["region_instances", (region, each)] for each in ("running", "all"))
    assert running == all_of - 2
    lost = told(overviews.down())
    assert lost["database_primary_running", ("s1",)] == 0
    assert lost["region_routed", (region,)] == 0


def test_only_a_failover_counts_as_one_and_the_newest_is_told() -> None:
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (20, 22, 23)]
    moved = [
        ("s1", "switchover", days[2]),
        ("s1", "failover", days[1]),
        ("s1", "failover", days[0]),
        ("s2", "restore", days[2]),
    ]
    found = told(overviews.healthy(), moved)
    assert found["database_failover_timestamp_seconds", ("s1",)] == days[1].timestamp()
    assert found["database_failover_timestamp_seconds", ("s2",)] == 0


def test_a_platform_that_is_not_provisioned_yet_has_a_page_too() -> None:
    assert told(overviews.empty())["troubles", ("platform",)] == 1


@pytest.mark.process
async def test_prometheus_is_answered_with_a_token_and_refused_without(tmp_path: Path) -> None:
    async with served(state_dir(tmp_path)) as address, httpx.AsyncClient() as client:
        assert (await client.get(f"{address}/metrics")).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        answer = await client.get(f"{address}/metrics", headers=bearer)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "regionctl_troubles" in answer.text
