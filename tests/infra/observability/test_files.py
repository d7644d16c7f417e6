"""The files are ones that Prometheus and Alertmanager accept, whoever is to be told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from infra.observability import alerts
from infra.observability.files import files
from infra.observability.model import Pace, Receivers
from infra.topology import load
from runbooks.book import read as runbook
from tests.infra.observability.tools import monitoring, run, write

PAGER = Receivers(pagerduty_key_file="secrets/pagerduty")
CHAT = Receivers(slack_url_file="secrets/slack")
BOTH = Receivers("secrets/pagerduty", "secrets/slack")
ALL = Receivers("secrets/pagerduty", "secrets/slack", webhook_url="http://127.0.0.1:9/")
HOOK = Receivers(webhook_url="http://127.0.0.1:9/")


def test_prometheus_accepts_its_configuration_and_every_rule(tmp_path: Path) -> None:
    write(tmp_path, monitoring())
    said = run("promtool", "check", "config", "prometheus.yml", folder=tmp_path)
    rules = sum(len(group["rules"]) for group in alerts.document(Pace())["groups"])
    assert f"{rules} rules found" in said


def test_rules_may_be_as_quick_as_a_test_needs_them(tmp_path: Path) -> None:
    write(tmp_path, monitoring(HOOK, Pace.every(1)))
    run("promtool", "check", "config", "prometheus.yml", folder=tmp_path)
    run("amtool", "check-config", "alertmanager.yml", folder=tmp_path)


@pytest.mark.parametrize(
    ("receivers", "critical", "warning"),
    [
        (Receivers(), "nobody", "nobody"),
        (PAGER, "pagerduty", "nobody"),
        (CHAT, "slack", "slack"),
        (BOTH, "pagerduty", "slack"),
        (HOOK, "webhook", "webhook"),
        (ALL, "webhook,pagerduty", "webhook,slack"),
    ],
)
def test_critical_alerts_wake_somebody_up_and_warnings_are_for_the_chat(
    tmp_path: Path, receivers: Receivers, critical: str, warning: str
) -> None:
    write(tmp_path, monitoring(receivers))
    run("amtool", "check-config", "alertmanager.yml", folder=tmp_path)
    for severity, told in (("critical", critical), ("warning", warning)):
        route = ("config", "routes", "test", "--config.file=alertmanager.yml")
        said = run(
            "amtool", *route, f"--verify.receivers={told}", f"severity={severity}", folder=tmp_path
        )
        assert said.strip() == told


def test_no_secret_is_in_any_file() -> None:
    texts = files(monitoring(ALL))
    assert "secrets/pagerduty" in texts["alertmanager.yml"]
    assert not [
        name for name, text in texts.items() if "routing_key:" in text or "api_url:" in text
    ]


def test_every_service_gateway_and_the_edge_are_looked_at_by_their_own_names() -> None:
    topology = load("two-regions")
    written = files(monitoring())
    seen = {
        row["labels"]["instance"]
        for name, text in written.items()
        if name.startswith("targets/")
        for row in json.loads(text)
    }
    wanted = {spec.id for spec in topology.by_id.values() if spec.kind in ("service", "envoy")}
    assert seen == wanted | {"control-plane"}


def test_every_alert_says_what_to_do_in_a_runbook_that_says_its_name() -> None:
    written = files(monitoring())
    documents = [yaml.safe_load(written[f"rules/{name}.yml"]) for name in ("alerts", "slo")]
    rules = [rule for each in documents for group in each["groups"] for rule in group["rules"]]
    found = {(rule["alert"], rule["annotations"]["runbook"]) for rule in rules if "alert" in rule}
    assert len(found) == len({alert for alert, _ in found}) > 20
    for alert, name in found:
        assert re.search(rf"\b{alert}\b", runbook(name).alert), (alert, name)
    for rule in rules:
        assert rule["labels"].get("severity") in ("critical", "warning") or "record" in rule
