"""The Automation API is driven as it should be. Pulumi's CLI is a double here; AWS is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.aws.applied import as_plan
from infra.aws.engine_request import Request
from infra.aws.engine_troubles import problem
from infra.aws.plan import diff
from runtime.errors import Exit, NotFound, OperationFailed, Problem, Refused, Unauthorized

JSON = dict[str, Any]
ROOT = Path(__file__).parents[3]
KEY = "urn:pulumi:small.test::regionctl::aws:kms/key:Key::key"
LOGS = "urn:pulumi:small.test::regionctl::aws:cloudwatch/logGroup:LogGroup::logs"


def with_double(folder: Path) -> dict[str, str]:
    """An environment whose `pulumi` is the double, and in which nobody has credentials."""
    binaries = folder / "bin"
    binaries.mkdir()
    program = binaries / "pulumi"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.infra.aws.double.cli "$@"\n')
    program.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return {
        **kept,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[JSON]]:
    """What the engine said in each case of `double/drive.py`, its exit code at the end."""
    folder = tmp_path_factory.mktemp("backend")
    done = subprocess.run(
        [sys.executable, "-m", "tests.infra.aws.double.drive", str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=with_double(folder),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    cases: dict[str, list[JSON]] = {}
    said: list[JSON] = []
    for line in done.stdout.splitlines():
        document = json.loads(line)
        said.append(document)
        if "case" in document:
            cases[document["case"]] = said
            said = []
    return cases


def ended(driven: dict[str, list[JSON]], case: str) -> JSON:
    *_, last, mark = driven[case]
    assert mark["code"] == 0, driven[case]
    assert last["event"] == "ended"
    return last


def refused(driven: dict[str, list[JSON]], case: str) -> tuple[int, Problem]:
    *_, last, mark = driven[case]
    return mark["code"], Problem.from_document(last)


process = pytest.mark.process


@process
def test_an_up_makes_it_once(
    driven: dict[str, list[JSON]],
) -> None:
    first = ended(driven, "first up")
    assert (first["mode"], first["changes"]) == ("applied", {"create": 3})
    assert first["outputs"] == {"group": "/test"}
    assert ended(driven, "second up")["steps"] == []


@process
def test_progress_comes_as_events(driven: dict[str, list[JSON]]) -> None:
    steps = [line for line in driven["first up"] if line.get("event") == "step"]
    assert [line["phase"] for line in steps if line["urn"] == KEY] == ["begin", "done"]
    assert {"event": "summary", "changes": {"create": 3}} in driven["first up"]


@process
def test_only_what_differs_is_changed(driven: dict[str, list[JSON]]) -> None:
    assert ended(driven, "changed preview")["steps"] == [
        {"op": "update", "urn": LOGS, "type": "aws:cloudwatch/logGroup:LogGroup"}
    ]


@process
def test_the_state_is_read_back(driven: dict[str, list[JSON]]) -> None:
    state = ended(driven, "export")["export"]["deployment"]["resources"]
    assert KEY in {one["urn"] for one in state}


@process
def test_the_policy_pack_stops_an_up(driven: dict[str, list[JSON]]) -> None:
    code, trouble = refused(driven, "forbidden")
    assert (code, type(trouble)) == (Exit.REFUSED, Refused)
    assert "key-rotation" in trouble.detail


@pytest.mark.parametrize(
    ("case", "code", "kind", "mend"),
    [
        ("nothing there", Exit.USAGE, NotFound, "infra up"),
        ("program fails", Exit.FAILED, OperationFailed, "run the same again"),
        ("locked", Exit.REFUSED, Refused, "pulumi cancel --stack small.test"),
        ("no plugin", Exit.REFUSED, Refused, "pulumi plugin install resource aws"),
        ("no passphrase", Exit.REFUSED, Refused, "PULUMI_CONFIG_PASSPHRASE_FILE"),
        ("protected", Exit.REFUSED, Refused, "--keep-data"),
        ("no cli", Exit.REFUSED, Refused, "https://www.pulumi.com/docs/install/"),
    ],
)
@process
def test_what_is_missing_is_said_with_its_mend(
    driven: dict[str, list[JSON]], case: str, code: Exit, kind: type[Problem], mend: str
) -> None:
    given, trouble = refused(driven, case)
    assert (given, type(trouble)) == (code, kind)
    assert mend in str(trouble.hint)


@process
def test_a_programs_own_error_is_told(driven: dict[str, list[JSON]]) -> None:
    _, trouble = refused(driven, "program fails")
    assert any("a planted mistake" in line for line in trouble.extra["lines"])


@process
def test_the_doctor_finds_what_is_there_and_names_what_is_not(tmp_path: Path) -> None:
    request = Request("aws-two-regions", tmp_path / "work", f"file://{tmp_path}")
    environment = with_double(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "infra.aws.engine_doctor"],
        input=json.dumps(request.document()),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=environment,
        cwd=ROOT,
    )
    found = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    for name in ("pulumi", "backend", "secrets", "Pulumi CLI", "AWS plugin", "backend opens"):
        assert found[name]["state"] == "ok", found[name]
    assert found["credentials"]["state"] == "fail"
    assert found["credentials"]["mend"]


class CommandError(Exception):
    """The SDK's general error, by its name."""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("error: No valid credential sources found", Unauthorized),
        ("error: ExpiredToken: The security token included in the request", Unauthorized),
        ("error: incorrect passphrase", Refused),
        ("error: resource x cannot be deleted because it is protected", Refused),
        ("error: unable to open bucket s3://x", Refused),
        ("error: update canceled", OperationFailed),
        ("error: creating RDS Cluster: quota exceeded", OperationFailed),
    ],
)
def test_a_message_of_the_cli_becomes_a_problem_with_a_hint(text: str, kind: type[Problem]) -> None:
    found = problem(CommandError(f"\n code: 255\n stdout: \n stderr: {text}"), "a.prod")
    assert type(found) is kind
    assert found.hint
    assert any(text.partition("error: ")[2] in line for line in found.extra["lines"])


def test_a_state_is_compared_by_what_is_declared_and_known() -> None:
    def planned(**inputs: Any) -> JSON:
        one = {"urn": "urn:a", "type": "aws:x/y:Y", "name": "a", "inputs": inputs, "options": {}}
        head = {"apiVersion": "regionctl/v1", "kind": "InfraPlan", "topology": "t"}
        return {**head, "resources": [one]}

    state = {"urn": "urn:a", "type": "aws:x/y:Y", "inputs": {"size": 1, "key": "k", "made": "up"}}
    export = {"deployment": {"resources": [state]}}
    same = planned(size=1, key="<computed>")
    assert diff(as_plan(export, same), same) == ()
    other = planned(size=2, key="<computed>")
    (change,) = diff(as_plan(export, other), other)
    assert change.fields == (("size", 1, 2),)
    gone = {**same, "resources": []}
    assert [each.kind for each in diff(as_plan(export, gone), gone)] == ["removed"]


def test_a_request_survives_its_way_to_the_engine() -> None:
    request = Request("t", Path("/x"), "s3://b", "awskms://k", ("urn:a",), "why", True, True)
    assert Request.read(json.loads(json.dumps(request.document()))) == request
