"""Costs: every dollar has a price, every price a source, and nothing unknown counts as 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.aws import cost, prices, savings, usage
from infra.aws.prices import Price, Prices
from infra.aws.quantities import GROUPS, quantities, uncounted
from infra.aws.usage import HOURS, Usage
from runtime.errors import Invalid

JSON = dict[str, Any]
EXAMPLE = Path(__file__).parent / "example_plan.json"
AMOUNTS = st.floats(min_value=0, max_value=1e9)


@pytest.fixture(scope="module")
def plan() -> JSON:
    return dict(json.loads(EXAMPLE.read_text()))


def resource(type: str, region: str = "us-east-1", **inputs: Any) -> JSON:
    name = f"{type}-{region}"
    return {
        "urn": f"urn:{name}",
        "type": type,
        "name": name,
        "region": region,
        "inputs": inputs,
        "dependencies": [],
        "propertyDependencies": {},
        "options": {},
    }


def price(usd: float, above: float = 0, sku: str = "thing", region: str = "us-east-1") -> Price:
    return Price(sku, region, "hour", usd, "a test", "2026-01-01", above)


def test_every_line_is_traceable_to_a_price_with_date_and_source(plan: JSON) -> None:
    document = cost.estimate(plan, prices.load(), Usage()).document()
    assert document["lines"]
    for line in document["lines"]:
        assert line["resources"]
        assert line["prices"]
        for row in line["prices"]:
            assert row["source"]
            assert row["date"] >= "2025"
        exact = sum(row["usd"] * row["quantity"] for row in line["prices"])
        assert line["usd"] == pytest.approx(exact, abs=0.02 + 0.01 * max(1, exact) / 100)


def test_what_has_no_price_is_listed_and_not_in_the_total(plan: JSON) -> None:
    known = prices.load()
    without = Prices([row for row in known.rows if not row.sku.startswith("fargate")], ())
    document = cost.estimate(plan, without, Usage()).document()
    missing = {(line["sku"], line["region"]) for line in document["unpriced"]}
    assert {("fargate-x86-vcpu", "us-east-1"), ("nat-gateway", "us-west-2")} <= missing
    assert not any((line["sku"], line["region"]) in missing for line in document["lines"])
    assert all("usd" not in line for line in document["unpriced"])
    assert document["totalUsd"] == round(sum(line["usd"] for line in document["lines"]), 2)


def test_groups_come_in_the_order_of_the_breakdown_and_add_up(plan: JSON) -> None:
    document = cost.estimate(plan, prices.load(), Usage()).document()
    assert [each["group"] for each in document["groups"]] == list(GROUPS)
    assert document["order"]["designed"] == ["compute", "database", "transfer", "storage"]
    measured = {each["group"]: each["usd"] for each in document["groups"]}
    order = document["order"]["measured"]
    assert [measured[group] for group in order] == sorted(
        (measured[group] for group in order), reverse=True
    )
    assert document["order"]["same"] == (order == document["order"]["designed"])
    total = sum(measured.values())
    assert document["totalUsd"] == pytest.approx(total, abs=0.05)


def test_another_regions_price_is_said_to_be_assumed(plan: JSON) -> None:
    document = cost.estimate(plan, prices.load(), Usage()).document()
    west = [line for line in document["lines"] if line["region"] == "us-west-2"]
    assert west
    assumed = [line for line in west if line["prices"][0]["region"] != "global"]
    assert {line["pricedAs"] for line in assumed} == {"us-east-1"}
    assert document["assumedUsd"] == pytest.approx(sum(line["usd"] for line in assumed), abs=0.2)


def test_the_same_plan_costs_the_same_twice(plan: JSON) -> None:
    first, second = (cost.estimate(plan, prices.load(), Usage()).document() for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_a_fargate_service_is_its_tasks_for_a_month() -> None:
    task = resource("aws:ecs/taskDefinition:TaskDefinition", cpu="2048", memory="4096")
    service = resource("aws:ecs/service:Service", desiredCount=3)
    service["propertyDependencies"] = {"taskDefinition": [task["urn"]]}
    found = {each.sku: each.amount for each in quantities([task, service], Usage())}
    assert found == {"fargate-x86-vcpu": 6 * HOURS, "fargate-x86-memory": 12 * HOURS}


def test_a_type_that_nothing_counts_is_named() -> None:
    given_ = [resource("aws:new/thing:Thing"), resource("aws:ec2/vpc:Vpc")]
    assert uncounted(given_) == ["aws:new/thing:Thing"]


@given(st.lists(AMOUNTS, min_size=1, max_size=5), st.lists(AMOUNTS, max_size=3, unique=True))
def test_tiers_are_used_up_once_however_the_quantity_is_split(
    parts: list[float], steps: list[float]
) -> None:
    rising = sorted(step for step in steps if step > 0)
    tiers = [price(1.0), *(price(1 / (2 + i), above) for i, above in enumerate(rising))]
    used, split = 0.0, 0.0
    for part in parts:
        split += sum(share.usd for share in cost.spread(part, tiers, used))
        used += part
    whole = cost.spread(sum(parts), tiers)
    assert sum(share.quantity for share in whole) == pytest.approx(sum(parts))
    assert split == pytest.approx(sum(share.usd for share in whole), rel=1e-6, abs=1e-6)


def test_tiers_that_do_not_rise_from_nothing_are_refused() -> None:
    with pytest.raises(Invalid, match="tiers"):
        Prices([price(1.0, above=5)])
    with pytest.raises(Invalid, match="tiers"):
        Prices([price(1.0), price(2.0)])


def test_the_price_file_has_a_source_and_a_date_in_every_row_and_is_written_as_it_is_read() -> None:
    document = json.loads(prices.BUILT_IN.read_text())
    assert all(row["source"] and row["date"] for row in document["prices"])
    assert all(each["source"] and each["date"] for each in document["sameAs"])
    assert prices.text(document) == prices.BUILT_IN.read_text()


def test_a_price_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"prices": [{"sku": "x"}]}')
    with pytest.raises(Invalid, match=r"wrong\.json"):
        prices.load(tmp_path / "wrong.json")


def test_use_is_read_from_a_file_and_what_it_leaves_out_is_as_usual(tmp_path: Path) -> None:
    file = tmp_path / "busy.yaml"
    file.write_text("requestsPerSecond: 50\n")
    assert usage.load(file) == Usage(requests_per_second=50)
    file.write_text("requestsPerSeconds: 50\n")
    with pytest.raises(Invalid) as wrong:
        usage.load(file)
    assert "requestsPerSecond" in str(wrong.value.hint)


def test_more_use_costs_more_and_changes_nothing_that_is_declared(plan: JSON) -> None:
    little = cost.estimate(plan, prices.load(), Usage(requests_per_second=10))
    much = cost.estimate(plan, prices.load(), Usage(requests_per_second=5000))
    assert much.usd > little.usd
    for group in GROUPS:
        assert much.of(group, "declared") == little.of(group, "declared")


def hints(plan: JSON) -> dict[str, savings.Hint]:
    known = prices.load()
    found = savings.hints(plan["resources"], cost.estimate(plan, known, Usage()), known)
    return {hint.name: hint for hint in found}


def test_hints_follow_from_the_graph(plan: JSON) -> None:
    found = hints(plan)
    assert {"compute-savings-plan", "reserved-databases", "graviton", "nat-or-endpoints"} <= set(
        found
    )
    saved = found["graviton"].monthly_usd
    assert saved is not None
    assert saved > 0


def test_a_hint_goes_when_its_reason_goes(plan: JSON) -> None:
    arm = json.loads(json.dumps(plan))
    for one in arm["resources"]:
        if one["type"] == "aws:ecs/taskDefinition:TaskDefinition":
            one["inputs"]["runtimePlatform"] = {"cpuArchitecture": "ARM64"}
    assert "graviton" not in hints(arm)
