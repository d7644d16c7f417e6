"""The description of the API says what the services do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from runtime import openapi
from runtime.app import SERVICES, build
from runtime.inventory import static
from runtime.operations import LINKS, NAMES
from runtime.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.merged()


def operations(document: dict[str, Any]) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    return [
        ((method, path), operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_the_file_in_the_repository_is_what_the_services_say_now() -> None:
    assert openapi.FILE.read_text() == openapi.text(), "run: python -m runtime.openapi"


def test_the_merged_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            found = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return found + [each for value in part.values() for each in references(value)]
        if isinstance(part, list):
            return [each for value in part for each in references(value)]
        return []

    for reference in set(references(document)):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_every_operation_has_a_name_and_every_name_an_operation(document: dict[str, Any]) -> None:
    found = dict(operations(document))
    assert set(found) == set(NAMES)
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)
    for links in LINKS.values():
        assert {link["operationId"] for link in links.values()} <= set(names)


def test_health_and_metrics_are_not_public(document: dict[str, Any]) -> None:
    assert not [path for path in document["paths"] if path.startswith(("/health", "/metrics"))]


def test_every_refusal_is_a_problem_document(document: dict[str, Any]) -> None:
    for key, operation in operations(document):
        refusals = {status for status in operation["responses"] if status >= "4"}
        assert "503" in refusals, key
        if operation["security"]:
            assert "401" in refusals, key
        for status in refusals:
            name = operation["responses"][status]["$ref"].rpartition("/")[2]
            content = document["components"]["responses"][name]["content"]
            assert list(content) == ["application/problem+json"], key


def test_every_answer_of_json_has_a_schema(document: dict[str, Any]) -> None:
    for key, operation in operations(document):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/json")
            if status.startswith("2") and content is not None and key[1] != "/static/{name}":
                assert content.get("schema"), (key, status)


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_describes_itself_alone(service: str) -> None:
    settings = Settings(service, service, "", "", Path(), "", "", entry_url="https://shop.example")
    own = build(settings).openapi()
    assert own["paths"]
    flows = own["components"]["securitySchemes"]["oauth2"]["flows"]
    assert flows["password"]["tokenUrl"] == "https://shop.example/oauth/token"
    assert build(settings).openapi() == own


def test_inventory_has_the_file_to_give() -> None:
    assert json.loads(static.load()[static.API].body)["info"]["title"] == "regionctl"
