"""Dashboards, logs and traces: whole, and about things that there are."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from infra.local.layout import Layout
from infra.observability import logs
from infra.observability.dashboards import dashboards, expressions
from infra.observability.files import everything
from infra.observability.grafana import COLUMNS, document
from infra.topology import load
from runtime.telemetry import JsonLines
from tests.infra.observability.tools import monitoring, run

LEVELS = load("two-regions").service_levels


def test_prometheus_can_parse_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    records = [
        {"record": f"panel:{n}", "expr": expr}
        for n, expr in enumerate(expressions(dashboards(LEVELS)))
    ]
    assert len(records) > 30
    rules = {"groups": [{"name": "panels", "rules": records}]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(rules))
    run("promtool", "check", "rules", "panels.yml", folder=tmp_path)


@pytest.mark.parametrize("dashboard", dashboards(LEVELS), ids=lambda each: each.uid)
def test_no_panel_covers_another_and_each_has_a_source_that_is_provisioned(
    dashboard: object,
) -> None:
    texts = everything(monitoring(), LEVELS, ["/logs/*.log"])
    sources = yaml.safe_load(texts["grafana/provisioning/datasources/regionctl.yml"])
    known = {each["uid"] for each in sources["datasources"]}
    made = document(dashboard)  # type: ignore[arg-type]
    assert json.loads(texts[f"grafana/dashboards/{made['uid']}.json"]) == made
    taken = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        assert (place["x"], place["y"]) not in taken
        taken.add((place["x"], place["y"]))
        assert {target["datasource"]["uid"] for target in panel["targets"]} <= known
        assert all(
            "$region" not in t["expr"] or made["templating"]["list"] for t in panel["targets"]
        )
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])


# What stands for what in a layout of Go's package time, the longest first.
GO = (
    ("Z07:00", r"(?P<zone>Z|[+-]\d\d:\d\d)"),
    ("2006", r"\d{4}"),
    (".000", r"\.\d{3}"),
    *((two, r"\d\d") for two in ("01", "02", "15", "04", "05")),
)
# Names that the collector gives a severity by itself (pkg/stanza, severity_builder.go, "default").
SEVERITIES = {"trace", "debug", "info", "warn", "warning", "error", "err", "fatal"}


def parsed(layout: str, text: str) -> float | None:
    """The moment, if the layout says everything about `text`: its zone too, and which letters
    merely stand there."""
    pattern, literal = "", layout
    while literal:
        token, meant = next((each for each in GO if literal.startswith(each[0])), ("", ""))
        assert token or literal[0] in "-T:"
        pattern += meant or re.escape(literal[0])
        literal = literal[len(token) or 1 :]
    found = re.fullmatch(pattern, text)
    return datetime.fromisoformat(text).timestamp() if found and found["zone"] else None


@pytest.mark.parametrize("name", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_a_line_of_a_service_has_a_time_and_a_level_that_the_collector_understands(
    name: str,
) -> None:
    record = logging.makeLogRecord({"levelname": name, "msg": "hello", "created": 1e9, "msecs": 7})
    line = json.loads(JsonLines("orders.us-east-1a").format(record))
    receiver = logs.collector("two-regions", ["/logs/*.log"])["receivers"]["filelog"]
    (parser,) = (each for each in receiver["operators"] if each["type"] == "json_parser")
    assert parser["timestamp"]["parse_from"] == "attributes.at"
    assert parsed(parser["timestamp"]["layout"], line["at"]) == pytest.approx(1e9 + 0.007)
    assert line["level"] in SEVERITIES | set(parser["severity"]["mapping"].values())


@pytest.mark.parametrize("name", ["otel-collector.yml", "jaeger.yml"])
def test_a_pipeline_has_only_parts_that_are_configured(name: str) -> None:
    made = yaml.safe_load(everything(monitoring(), LEVELS, ["/logs/*.log"])[name])
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in made["service"]["pipelines"].values():
        for part, names in pipeline.items():
            used[part] |= set(names)
    for part, names in used.items():
        assert names == set(made[part])
    assert set(made["service"].get("extensions", ())) == set(made.get("extensions", ()))


@pytest.mark.parametrize(
    ("instance", "component"),
    [
        ("orders.us-east-1a", "orders"),
        ("orders-2.us-east-1a", "orders"),
        ("s1.us-west-2a", "s1"),
        ("payment-gateway", "payment-gateway"),
        ("edge", "edge"),
        ("control-plane", "control-plane"),
    ],
)
def test_whose_a_line_is_is_known_from_its_file(
    tmp_path: Path, instance: str, component: str
) -> None:
    path = Layout(tmp_path).log("us-east-1", instance)
    found = re.search(logs.NAMED, str(path))
    assert found is not None
    assert found.groupdict() == {"instance": instance, "component": component}
