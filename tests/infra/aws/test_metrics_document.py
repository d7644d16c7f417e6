"""What the documents tell an operator to scrape is there in the plan, by those very names."""

from __future__ import annotations

from pathlib import Path

import yaml

from infra.aws import plan as plans
from infra.aws.naming import Names
from infra.aws.spec import SERVICE_PORT
from infra.observability.model import SERVICES
from infra.topology import load

DOCUMENT = Path(__file__).parents[3] / "docs" / "aws-metrics.md"
TOPOLOGY = load("aws-two-regions")
NAMES = Names("regionctl", "prod", "shop.example.com")


def test_the_list_of_what_to_scrape_names_every_service_as_the_plan_does(plan: plans.JSON) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    block = text.partition("```yaml\n")[2].partition("```")[0]
    (job,) = yaml.safe_load(block)["scrape_configs"]
    assert job["job_name"] == SERVICES, "the name by which rules know them"
    (found,) = job["dns_sd_configs"]
    region = TOPOLOGY.primary_region.name
    namespace = NAMES.namespace(region)
    assert found["names"] == [f"{service}.{namespace}" for service in TOPOLOGY.services]
    assert (found["type"], found["port"]) == ("A", SERVICE_PORT)
    registered = {
        one["inputs"]["name"]
        for one in plan["resources"]
        if one["type"] == "aws:servicediscovery/service:Service" and one["region"] == region
    }
    assert set(TOPOLOGY.services) <= registered
    assert job["relabel_configs"][1] == {"target_label": "region", "replacement": region}
    group = f"{NAMES.stem}-service"
    assert group in {one["inputs"].get("name") for one in plan["resources"]}
    assert group.replace(NAMES.stem, "PROJECT-ENVIRONMENT") in text


def test_every_kind_of_alarm_is_in_the_documents_table(plan: plans.JSON) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    alarms = [one for one in plan["resources"] if one["type"].endswith(":MetricAlarm")]
    spaces = {one["inputs"].get("namespace") for one in alarms} - {None}
    assert spaces
    assert all(f"`{space}`" in text for space in spaces)
    # What this document is for goes when such a thing is made.
    made = {one["type"].partition("/")[0] for one in plan["resources"]}
    assert not made & {"aws:amp", "aws:grafana"}
