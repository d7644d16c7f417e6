"""What the control plane tells Prometheus: of the platform as a whole, from the Overview document.
Pure.

Services, gateways and edge speak for themselves; this is about what none of them knows: databases,
regions, archives, error budgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

JSON = Mapping[str, Any]
FAILOVER = "failover"


def text(overview: JSON, failovers: Iterable[tuple[str, str, datetime]]) -> bytes:
    """The page for Prometheus. `overview`: see `control_plane.overview`; `failovers`: (database,
    the verb that moved its primary, when)."""
    registry = CollectorRegistry()
    registry.register(_Page(_metrics(overview, _last(failovers))))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _last(failovers: Iterable[tuple[str, str, datetime]]) -> dict[str, float]:
    """Database → when it last failed over, in seconds of the Unix clock."""
    found: dict[str, float] = {}
    for database, kind, at in failovers:
        if kind == FAILOVER:
            found[database] = max(at.timestamp(), found.get(database, 0.0))
    return found


def _metrics(page: JSON, moved: Mapping[str, float]) -> Iterator[Metric]:
    regions, shards = page["regions"], page["shards"]
    yield _gauge(
        "regionctl_troubles",
        "Rules that are broken, as the dashboard shows them",
        ("about",),
        [(("platform",), len(page["why"]))]
        + [((each["name"],), len(each["why"])) for each in (*regions, *shards)],
    )
    yield _gauge(
        "regionctl_region_routed",
        "1 for the region that the edge sends clients to",
        ("region",),
        [((each["name"],), page["route"] == each["name"]) for each in regions],
    )
    yield _gauge(
        "regionctl_region_instances",
        "Servers of the region, and how many of them run",
        ("region", "state"),
        [
            ((each["name"], state), each["instances"][state])
            for each in regions
            for state in ("running", "all")
        ],
    )
    yield from _databases(shards, moved)
    yield _gauge(
        "regionctl_archive_gap",
        "1 while WAL is missing between the archive and the last full backup",
        ("database",),
        [((each["database"],), bool(each["gap"])) for each in page["archives"]],
    )
    yield _gauge(
        "regionctl_budget_left",
        "Share of the error budget of 30 days that is left",
        ("level",),
        [((level["name"],), level["budgetLeft"]) for level in page["slo"]],
    )


def _databases(shards: Sequence[JSON], moved: Mapping[str, float]) -> Iterator[Metric]:
    name = ("database",)
    yield _gauge(
        "regionctl_database_primary_running",
        "1 while the primary runs",
        name,
        [((each["name"],), each["state"] != "down") for each in shards],
    )
    yield _gauge(
        "regionctl_database_standbys_in_sync",
        "Standbys that commits wait for",
        name,
        [((each["name"],), sum(s["sync"] for s in each["standbys"])) for each in shards],
    )
    yield _gauge(
        "regionctl_database_lag_seconds",
        "How far a replica is behind",
        ("database", "replica"),
        [((e["name"], s["id"]), s["lagSeconds"]) for e in shards for s in e["standbys"]],
    )
    yield _gauge(
        "regionctl_database_epoch",
        "Grows with each change of the primary",
        name,
        [((each["name"],), each["epoch"]) for each in shards],
    )
    yield _gauge(
        "regionctl_database_failover_timestamp_seconds",
        "When the database last failed over; 0: never",
        name,
        [((each["name"],), moved.get(each["name"], 0.0)) for each in shards],
    )


def _gauge(
    name: str,
    meaning: str,
    labels: tuple[str, ...],
    rows: Iterable[tuple[tuple[str, ...], float | None]],
) -> Metric:
    """What is not known is left out."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(values, float(value))
    return family
