"""A first run on AWS is told in the order in which it works, in commands that exist."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.session import get_session

from infra.aws import first_run, images
from infra.aws.naming import CONTROL_PLANE
from infra.aws.spec import platform
from infra.topology import parse, read
from tests.cli.console import regionctl

TEXT, SOURCE = read("aws-two-regions")
PLATFORM = platform(parse(TEXT, SOURCE), TEXT)
STAGES = first_run.stages(PLATFORM, "aws-two-regions", backend="s3://my state")

LEAVES = {"infra", "up", "status", "drill", "run"}


def commands(name: str) -> str:
    (stage,) = [one for one in STAGES if one.name == name]
    return "\n".join(stage.commands)


def test_the_order_is_that_in_which_each_needs_what_was_before() -> None:
    names = [stage.name for stage in STAGES]
    assert names == ["make", "delegate", "image", "way-in", "provision", "smoke"]
    assert [stage.name for stage in first_run.remaining(STAGES, {})] == names
    made = first_run.remaining(STAGES, {"entryUrl": "https://api.shop.example.com"})
    assert [stage.name for stage in made] == names[2:]


def test_the_commands_say_the_names_that_the_program_gives() -> None:
    serving, waiting = sorted(PLATFORM.regions, key=lambda region: not region.serves)
    whole = images.image(PLATFORM, serving, "ACCOUNT")
    assert whole.removeprefix("ACCOUNT.dkr.ecr.us-east-1.amazonaws.com/") in commands("image")
    assert f"--region {waiting.name}" in commands("way-in"), "where the control plane stands"
    assert PLATFORM.names.ecs_cluster(waiting.name) in commands("way-in")
    (task,) = [one for one in waiting.tasks if one.component == CONTROL_PLANE]
    assert f"portNumber={task.port}" in commands("way-in")
    assert images.secrets(PLATFORM, task)["REGIONCTL_ROOT"] == "root"
    assert PLATFORM.names.secret("root") in commands("way-in")
    assert "--backend 's3://my state'" in commands("make")
    assert "https://api.shop.example.com/" in commands("smoke")
    assert "regionctl up --topology aws-two-regions" in commands("provision")


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_a_shell_understands_every_command(stage: first_run.Stage) -> None:
    script = "\n".join(stage.commands)
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_of_regionctl_exists(tmp_path: Path) -> None:
    typed = [c for stage in STAGES for c in stage.commands if c.startswith("regionctl ")]
    assert len(typed) == 4
    for command in typed:
        path = itertools.takewhile(lambda word: word in LEAVES, shlex.split(command)[1:])
        assert regionctl(*path, "--help", home=tmp_path).code == 0, command


def test_every_operation_of_aws_and_its_options_exist() -> None:
    """By the models that the AWS CLI itself is made of; `get-login-password` is its own."""
    session = get_session()
    text = "\n".join(c for stage in STAGES for c in (*stage.commands, stage.when))
    asked = re.findall(r"\baws ([a-z0-9]+) ([a-z-]+)([^|)$\n]*)", text)
    for service, operation, options in asked:
        if operation == "get-login-password":
            continue
        model = session.get_service_model(service)
        known = {xform_name(name, "-"): name for name in model.operation_names}
        shape = model.operation_model(known[operation]).input_shape
        members = {xform_name(name, "-") for name in (shape.members if shape else {})}
        given = set(re.findall(r"--([a-z-]+)", options))
        assert given <= members | {"region", "query", "output"}, (service, operation)
    assert len(asked) >= 8
