"""The validator on small plans: what it says, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from infra.aws import catalogue, validate
from infra.aws.catalogue import Catalogue
from infra.aws.findings import Finding, did_you_mean
from infra.aws.validate_rules import ECS, Graph, rebalancing_has_room
from runtime.errors import Refused

JSON = dict[str, Any]
TYPE = "aws:small/thing:Thing"
SCHEMA = {
    "types": {
        TYPE: {
            "properties": {
                "name": {"kind": "string"},
                "count": {"kind": "number"},
                "public": {"kind": "boolean"},
                "engine": {"kind": "string", "enum": ["one", "two"]},
                "mode": {"kind": "string", "documented": ["FAST", "SLOW"]},
                "tags": {"kind": "map", "of": {"kind": "string"}},
                "network": {"kind": "object", "type": "ecs/Network"},
                "policy": {"kind": "object", "type": "ecs/Network", "orText": True},
            },
            "required": ["name"],
        },
        "ecs/Network": {
            "properties": {"subnets": {"kind": "array", "of": {"kind": "string"}}},
            "required": ["subnets"],
        },
    },
    "unknown": ["aws:new/thing:Thing"],
}


def resource(inputs: JSON, type: str = TYPE) -> JSON:
    return {
        "urn": "urn:a",
        "type": type,
        "name": "a",
        "region": "us-east-1",
        "inputs": inputs,
        "dependencies": [],
        "propertyDependencies": {},
        "options": {},
    }


def found(inputs: JSON, type: str = TYPE) -> list[tuple[str, str, str]]:
    """(rule, path, hint) of what the type hints forbid."""
    given = validate.types(resource(inputs, type), SCHEMA)
    return [(each.rule, each.path, each.hint) for each in given]


@pytest.mark.parametrize(
    ("inputs", "rule", "path"),
    [
        ({"name": "a", "nmae": "b"}, "unknown-key", "nmae"),
        ({}, "required", "name"),
        ({"name": 10}, "type", "name"),
        ({"name": "a", "count": "two"}, "type", "count"),
        ({"name": "a", "count": True}, "type", "count"),
        ({"name": "a", "public": "yes"}, "type", "public"),
        ({"name": "a", "engine": "three"}, "enum", "engine"),
        ({"name": "a", "mode": "FASTT"}, "documented-value", "mode"),
        ({"name": "a", "tags": {"x": 1}}, "type", "tags.x"),
        ({"name": "a", "network": {}}, "required", "network.subnets"),
        ({"name": "a", "network": {"subnets": "one"}}, "type", "network.subnets"),
        ({"name": "a", "network": {"subnets": ["a", 2]}}, "type", "network.subnets[1]"),
        ({"name": "a", "network": "text"}, "type", "network"),
    ],
)
def test_a_mistake_is_named_with_its_place(inputs: JSON, rule: str, path: str) -> None:
    assert [(each[0], each[1]) for each in found(inputs)] == [(rule, path)]


@pytest.mark.parametrize(
    "inputs",
    [
        {"name": "<computed>", "count": "<computed>", "network": "<computed>"},
        {"name": "<secret>", "engine": "<secret>"},
        {"name": "a", "network": {"subnets": ["<computed>", "b"]}},
        {"name": "a", "policy": "{}", "count": None},
        {"name": "a", "__defaults": []},
    ],
)
def test_what_a_plan_cannot_know_is_no_mistake(inputs: JSON) -> None:
    assert found(inputs) == []


def test_a_type_without_hints_is_said_to_be_unchecked() -> None:
    plan = {"resources": [resource({}, "aws:new/thing:Thing")]}
    (finding,) = validate.validate(plan, SCHEMA, Catalogue())
    assert (finding.rule, finding.level) == ("type", "warning")


def test_a_hint_offers_the_nearest_word_or_a_few_of_many() -> None:
    assert did_you_mean("subnetss", ["subnets", "vpc"]) == "did you mean 'subnets'?"
    assert did_you_mean("zzz", [str(n) for n in range(20)], most=2) == "known: 0, 1, … (20 in all)"
    assert did_you_mean("zzz", []) == ""


def test_findings_are_sorted_and_told_once() -> None:
    plan = {"resources": [resource({"name": 1, "count": "x"})] * 2}
    given = validate.validate(plan, SCHEMA, Catalogue())
    assert [finding.path for finding in given] == ["", "count", "name"]
    assert list(given) == sorted(set(given))


@pytest.mark.parametrize(("most", "found"), [(100, 1), (200, 0)])
def test_ecs_moves_tasks_between_zones_only_where_it_may_start_one_more(
    most: int, found: int
) -> None:
    inputs = {"availabilityZoneRebalancing": "ENABLED", "deploymentMaximumPercent": most}
    graph = Graph([resource(inputs, ECS)])
    assert len(list(rebalancing_has_room(graph))) == found


def test_a_circle_of_dependencies_is_found() -> None:
    one, two = resource({"name": "a"}), resource({"name": "b"}) | {"urn": "urn:b"}
    one["dependencies"], two["dependencies"] = ["urn:b"], ["urn:a"]
    given = validate.validate({"resources": [one, two]}, SCHEMA, Catalogue())
    assert any("circle" in finding.message for finding in given)


def test_the_catalogue_knows_regions_versions_and_sizes() -> None:
    known = catalogue.read(["us-east-1", "nowhere-1"])
    assert "db.r6g.large" in known.classes["us-east-1"]
    assert "cache.r7g.large" in known.nodes["us-east-1"]
    assert "nowhere-1" not in known.classes
    assert "16.6" in known.deprecated["aurora-postgresql"]
    assert ("1024", 2048) in known.fargate
    assert ("512", 9999) not in known.fargate


def test_another_layout_of_the_catalogue_is_refused_with_a_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(catalogue, "_root", lambda: tmp_path)
    with pytest.raises(Refused, match="laid out") as refused:
        catalogue.read(["us-east-1"])
    assert "regionctl[aws]" in str(refused.value.hint)


def test_a_finding_is_a_document() -> None:
    document = Finding("urn:a", "x", "type", "wrong").document()
    assert document["level"] == "error"
    assert set(document) == {"urn", "path", "rule", "message", "hint", "level"}
