"""`infra outputs` and `infra doctor` end with what a first run on AWS does next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.infra_stack import after_checks, show_ended, what_is_left
from cli.leaf import Run
from cli.render import Output
from tests.infra.aws.stacks import infra, stack

__all__ = ["stack"]
ORDER = ["make", "delegate", "image", "way-in", "provision", "smoke"]


@pytest.mark.process
def test_a_stack_that_was_made_says_what_comes_next(stack: Path) -> None:
    document = json.loads(infra(stack, "outputs", "-o", "json").stdout)
    assert [each["name"] for each in document["next"]] == ORDER[2:]
    told = infra(stack, "outputs").stdout
    places = [told.index(f"  {name} (") for name in ORDER[2:]]
    assert places == sorted(places)
    assert "regionctl up --topology aws-two-regions" in told


@pytest.mark.parametrize(("state", "told"), [("ok", ORDER), ("warn", ORDER), ("fail", [])])
def test_the_doctor_tells_a_first_run_only_where_nothing_is_missing(
    state: str, told: list[str]
) -> None:
    checks = [{"name": "backend", "state": state, "detail": "", "mend": ""}]
    stages = after_checks(checks, "aws-two-regions", "s3://mine")
    assert [stage.name for stage in stages] == told
    up = "regionctl infra up --topology aws-two-regions --backend s3://mine"
    assert [stage.commands for stage in stages[:1]] == ([(up,)] if told else [])


def test_an_update_ends_with_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    ended = {
        "stack": "aws-two-regions.prod",
        "mode": "applied",
        "steps": [{"op": "create", "urn": "urn::it", "type": "t"}],
        "changes": {"create": 1},
        "outputs": {"entryUrl": "https://it"},
    }
    todo = what_is_left("aws-two-regions", None, ended["outputs"])
    show_ended(Run(), "InfraUpdate", ended, None, todo)
    told = capsys.readouterr().out
    assert told.index("entryUrl: https://it") < told.index("next, the first time:")
    assert told.index("docker push") < told.index("regionctl up --topology aws-two-regions")
    show_ended(Run(output=Output.json), "InfraUpdate", ended, None, todo)
    document = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in document["next"]] == ORDER[2:]
    assert document["next"][-2]["commands"] == ["regionctl up --topology aws-two-regions"]
