"""Every metric that a rule or a dashboard names is told by something that is scraped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from control_plane import exposition
from infra.observability.dashboards import dashboards, expressions
from infra.observability.files import files
from infra.observability.prometheus import ENVOY_SERIES
from infra.topology import load
from runtime import telemetry
from tests.control_plane import overviews
from tests.infra.frontdoor import front_door
from tests.infra.observability.promql import LABEL, looked_at
from tests.infra.observability.tools import monitoring

# What Prometheus adds to every series, and what it makes itself.
TARGET = frozenset(["job", "instance", "component", "region", "zone", "platform"])
OWN = {"up": TARGET, "ALERTS": frozenset(["alertname", "alertstate", "severity"])}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
SAMPLE = re.compile(r"^([a-z_]+)\{([^}]*)\} ", re.MULTILINE)
LEVELS = load("two-regions").service_levels


def told(families: Iterable[Metric]) -> dict[str, frozenset[str]]:
    """Metric → the names of its labels."""
    return {sample.name: frozenset(sample.labels) for each in families for sample in each.samples}


def of_services() -> dict[str, frozenset[str]]:
    """Of a metric with labels nothing is told before something happened: then it is as declared."""
    found = told(REGISTRY.collect())
    for each in vars(telemetry).values():
        if isinstance(each, telemetry.Counter | telemetry.Gauge | telemetry.Histogram):
            labels = frozenset(each._labelnames)
            for family in each.describe():
                for suffix in SUFFIXES[family.type]:
                    le = ["le"] if suffix == "_bucket" else []
                    found[family.name + suffix] = labels | frozenset(le)
    return found


def of_envoys(folder: Path) -> dict[str, frozenset[str]]:
    """Those that Prometheus asks a real edge and a real gateway for, after a request."""
    only = {"filter": f"^({'|'.join(ENVOY_SERIES)})$"}
    found: dict[str, frozenset[str]] = {}
    with front_door(folder) as door:
        with door.client() as client:
            assert client.get("/api/v1/orders", headers=door.bearer()).status_code == 200
        for port in (door.edge_admin, door.gateway_admin):
            url = f"http://127.0.0.1:{port}/stats/prometheus"
            page = httpx.get(url, params=only, trust_env=False).text
            # The client library's parser gives counters the names that it thinks right.
            for name, labels in SAMPLE.findall(page):
                found[name] = frozenset(LABEL.findall(labels))
    return found


def of_the_control_plane() -> dict[str, frozenset[str]]:
    page = exposition.text(overviews.degraded(), []).decode()
    return told(text_string_to_metric_families(page))


def rules() -> list[dict[str, str]]:
    written = files(monitoring())
    documents = [
        yaml.safe_load(text) for path, text in written.items() if path.startswith("rules/")
    ]
    return [rule for each in documents for group in each["groups"] for rule in group["rules"]]


@pytest.mark.process
def test_every_metric_of_rules_and_dashboards_is_told_with_the_labels_it_is_chosen_by(
    tmp_path: Path,
) -> None:
    known: dict[str, frozenset[str]] = {
        **OWN,
        **of_services(),
        **of_envoys(tmp_path),
        **of_the_control_plane(),
    }
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = frozenset(rule["labels"])
    asked = [*expressions(dashboards(LEVELS)), *(rule["expr"] for rule in rules())]
    for expression in asked:
        found = list(looked_at(expression))
        assert found or expression.startswith("vector("), expression
        for metric, labels in found:
            assert metric in known, f"{metric} of {expression}"
            assert labels <= known[metric] | TARGET, f"{metric}: {set(labels)} of {expression}"


def test_what_an_expression_looks_at_is_found() -> None:
    ratio = (
        'sum by (a) (rate(x_total{code="5",zone=~"a|b"}[5m])) / on (b) y:z > bool 0 or vector(0)'
    )
    assert dict(looked_at(ratio)) == {"x_total": {"code", "zone"}, "y:z": frozenset()}
    asked = "histogram_quantile(0.99, sum by (le) (rate(t_bucket[$w])))"
    assert dict(looked_at(asked)) == {"t_bucket": frozenset()}
