"""`regionctl infra` as it is typed, without AWS. Stacks: `tests/infra/aws/test_engine_whole.py`."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli import infra_children
from cli.infra import verdict
from cli.infra_children import Planned
from infra.aws.plan import managed, text
from runtime.errors import Exit
from tests.cli.console import program, regionctl
from tests.infra.aws.surveyed import TOPOLOGY, survey

JSON = dict[str, Any]


def planned(*levels: str, violation: str = "advisory") -> Planned:
    findings = tuple({"level": level} for level in levels)
    return Planned({}, findings, {"violations": [{"level": violation}]})


@pytest.mark.parametrize(
    ("given", "changes", "code"),
    [
        (planned(), None, Exit.OK),
        (planned("warning"), [], Exit.OK),
        (planned("warning"), [{"kind": "added"}], Exit.CHANGES),
        (planned("error"), [{"kind": "added"}], Exit.REFUSED),
        (planned(violation="mandatory"), None, Exit.REFUSED),
    ],
)
def test_what_is_in_the_way_comes_before_what_differs(
    given: Planned, changes: list[JSON] | None, code: Exit
) -> None:
    assert verdict(given, changes) == code


@pytest.mark.process
def test_a_plan_is_the_same_bytes_twice_and_differs_from_another_only_where_that_does(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    usual = survey(tmp_path_factory)["plan"]
    old = copy.deepcopy(usual)
    clusters = [one for one in old["resources"] if one["type"] == "aws:rds/cluster:Cluster"]
    for cluster in clusters:
        assert cluster["inputs"]["engineVersion"] == "18.6"
        cluster["inputs"]["engineVersion"] = "16.6"
    (tmp_path / "old.json").write_text(json.dumps(old))
    ended = program(
        *("infra", "plan", "--topology", TOPOLOGY, "-o", "json"),
        *("--diff", str(tmp_path / "old.json")),
        home=tmp_path,
    )
    assert ended.code == Exit.CHANGES, ended.stderr
    plan = json.loads(ended.stdout)
    assert text({key: plan[key] for key in usual}) == text(usual), "two runs, in two processes"
    assert (plan["kind"], plan["mode"]) == ("InfraPlan", "planned")
    assert len(managed(plan)) >= 150
    assert plan["findings"] == []
    assert len(plan["policies"]["policies"]) == 12
    assert all(each["level"] == "advisory" for each in plan["policies"]["violations"])
    assert plan["cost"]["totalUsd"] > 0
    told = plan["diff"]["declaredInputs"]
    assert {each["urn"] for each in told} == {cluster["urn"] for cluster in clusters}
    for each in told:
        assert each["fields"] == [{"path": "engineVersion", "old": "16.6", "new": "18.6"}]


@pytest.mark.process
def test_a_topology_that_is_not_for_aws_is_refused_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    ended = regionctl("infra", "plan", "--topology", "two-regions", home=tmp_path)
    assert ended.code == Exit.USAGE
    assert "aws-two-regions" in ended.stderr
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before


def test_without_the_packages_it_says_which_and_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra_children, "NEEDED", ("json", "no_such_package"))
    ended = regionctl("infra", "plan", home=tmp_path)
    assert ended.code == Exit.REFUSED
    assert "no_such_package" in ended.stderr
    assert "pip install 'regionctl[aws]'" in ended.stderr


def test_the_price_list_shows_where_each_price_is_from(tmp_path: Path) -> None:
    ended = regionctl("infra", "prices", "show", "--sku", "fargate", "-o", "json", home=tmp_path)
    rows = json.loads(ended.stdout)["items"]
    assert {row["sku"] for row in rows} == {
        f"fargate-{kind}-{what}" for kind in ("arm", "x86") for what in ("memory", "vcpu")
    }
    assert all(row["source"] and row["date"] for row in rows)


def test_the_console_and_the_judgement_import_no_pulumi() -> None:
    modules = "cli.infra, infra.aws.validate, infra.aws.cost, infra.aws.savings, infra.aws.applied"
    code = f"import json, sys, {modules}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"pulumi", "pulumi_aws", "grpc", "boto3", "cfnlint"} & set(json.loads(done.stdout))
