"""The real program of aws-two-regions, applied from its beginning to its end, as it is typed.

Pulumi is the double; AWS is not there. That the real engine and AWS would do the same is not shown.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.aws import plan as plans
from infra.aws.engine_request import Request
from runtime.errors import Exit
from tests.cli.console import environment
from tests.infra.aws.test_engine import ROOT, with_double

JSON = dict[str, Any]
TOPOLOGY, STACK = "aws-two-regions", "aws-two-regions.prod"
REGION = "us-west-2"
PAUSE_AFTER = 40
SECONDS = 300


class Typed:
    """`regionctl infra …` typed where `pulumi` is the double and its backend a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = environment(folder, with_double(folder))

    def infra(self, *words: str) -> tuple[int, JSON]:
        """The exit code, and the answer or the problem."""
        done = self.wait(self.begin(*words, "-o", "json"))
        return done.returncode, json.loads(done.stdout or done.stderr.splitlines()[-1])

    def begin(self, *words: str) -> subprocess.Popen[str]:
        backend = ("--backend", f"file://{self.folder}")
        return self.process("cli.main", "infra", *words, *backend)

    def process(self, module: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=ROOT,
        )

    def wait(
        self, process: subprocess.Popen[str], given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        out, errors = process.communicate(given, timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    @property
    def state(self) -> JSON:
        return dict(json.loads((self.folder / f"{STACK}.json").read_text()))


def interrupted(typed: Typed, *words: str) -> str:
    """What is said by a change that gets a ^C after so many steps; it has unlocked the stack."""
    (typed.folder / "pause-after").write_text(str(PAUSE_AFTER))
    process = typed.begin(*words)
    deadline = time.monotonic() + SECONDS
    while not (typed.folder / "paused").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.poll() is None, typed.wait(process).stderr
    assert (typed.folder / f"{STACK}.lock").exists()
    process.send_signal(signal.SIGINT)
    done = typed.wait(process)
    (typed.folder / "pause-after").unlink()
    assert done.returncode == Exit.INTERRUPTED, done.stderr
    assert not (typed.folder / f"{STACK}.lock").exists()
    return done.stderr


def gone_on(typed: Typed) -> JSON:
    """What the engine says at the end of an `up` as `infra up` asks it for."""
    request = Request(TOPOLOGY, typed.folder / "work", f"file://{typed.folder}", may_create=True)
    process = typed.process("infra.aws.engine", "up")
    done = typed.wait(process, json.dumps(request.document()))
    assert done.returncode == Exit.OK, done.stdout[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def unknown(planned: Any, applied: Any, path: str) -> Iterator[str]:
    """Where a plan leaves open what nobody knew when it was applied either."""
    if planned == plans.COMPUTED:
        if applied in (None, "", plans.COMPUTED):
            yield path
    elif isinstance(planned, dict):
        for key, value in planned.items():
            yield from unknown(value, applied[key], f"{path}.{key}")
    elif isinstance(planned, list):
        for index, (left, right) in enumerate(zip(planned, applied, strict=True)):
            yield from unknown(left, right, f"{path}[{index}]")


@pytest.mark.process
def test_the_whole_program_is_applied_interrupted_gone_on_with_looked_at_and_deleted(
    plan: plans.JSON, tmp_path: Path
) -> None:
    typed = Typed(tmp_path)
    planned = {one["urn"]: one for one in plan["resources"]}

    region = plans.targets(plan, REGION, ())
    said = interrupted(typed, "up", "--region", REGION, "--yes")
    assert f"{STACK} would: create {len(region)}" in said
    assert f"{REGION} needs " in said
    waiting = said.index("waiting until Pulumi has finished what it is at")
    assert waiting < said.index("regionctl infra up again goes on from there")
    began = [one for one in typed.state["resources"] if one["urn"] in planned]
    assert PAUSE_AFTER <= len(began) < len(region)
    assert {one["urn"] for one in began} <= {*region}

    ended = gone_on(typed)
    assert ended["changes"] == {"create": len(planned) - len(began), "same": len(began)}
    made = {one["urn"]: one for one in typed.state["resources"]}
    assert made.keys() >= planned.keys()
    assert [
        where
        for urn, one in planned.items()
        if one["type"] != plans.PROVIDER_TYPE
        for where in unknown(one["inputs"], made[urn]["inputs"], one["name"])
    ] == []
    text = json.dumps(typed.state["resources"]) + json.dumps(ended)
    hidden = set(re.findall(r"\b[0-9a-f]{32}\b", json.dumps(typed.state["kept"])))
    assert len(hidden) > len(plan["outputs"]["writers"])
    assert not [password for password in hidden if password in text]

    code, shown = typed.infra("outputs")
    assert (code, shown["mode"]) == (Exit.OK, "applied")
    assert shown["outputs"].keys() == plan["outputs"].keys()
    assert shown["outputs"]["entryUrl"] == "https://api.shop.example.com"

    (tmp_path / f"{STACK}.json").write_text(json.dumps(drifted(typed.state)))
    code, shown = typed.infra("drift")
    assert code == Exit.CHANGES
    assert [step["urn"].rpartition("::")[2] for step in shown["steps"]] == ["us-east-1-vpc"]

    code, refused = typed.infra("down", "--keep-data", "--yes")
    assert code == Exit.REFUSED
    assert f"--confirm {TOPOLOGY}" in json.dumps(refused)
    assert len(typed.state["resources"]) == len(made)
    code, shown = typed.infra("down", "--keep-data", "--confirm", TOPOLOGY)
    assert code == Exit.OK
    left = {one["urn"] for one in typed.state["resources"]}
    data = {urn for urn, one in planned.items() if one["options"].get("protect")}
    assert data <= left
    assert {step["urn"] for step in shown["steps"]} == made.keys() - left
    kinds = {planned[urn]["type"] for urn in left & planned.keys()}
    assert "aws:ecs/service:Service" not in kinds

    log = typed.wait(typed.process("cli.main", "audit", "-o", "json"))
    told = [
        (each["log"], each["kind"], each["action"], each["target"], each["outcome"])
        for each in json.loads(log.stdout)["items"]
    ]
    assert told == [
        ("infra", "asked", "infra up", TOPOLOGY, None),
        ("infra", "ended", "infra up", TOPOLOGY, "interrupted"),
        ("infra", "asked", "infra down", TOPOLOGY, None),
        ("infra", "ended", "infra down", TOPOLOGY, "succeeded"),
    ]


def drifted(state: JSON) -> JSON:
    """Somebody changes a network by hand."""
    for one in state["resources"]:
        one["drifted"] = one["name"] == "us-east-1-vpc"
    return state
