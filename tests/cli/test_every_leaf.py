"""What holds for every command, found by walking the tree of commands: none can be forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import work
from runtime.errors import Exit
from tests.cli.conftest import Plane, control_plane
from tests.cli.console import regionctl
from tests.commands import leaves, options

LEAVES = leaves()
LETTER = "7-0"
VIEWER = "looker"

WORDS = {
    "drill show": "database-failure",
    "drill run": "database-failure --seed 1",
    "drill report": "op-1",
    "drill verify-report": "no-such-report.json",
    "failover plan": "s1",
    "failover run": "s1 --confirm s1",
    "failover acknowledge": "s1 --reason tried",
    "switchover plan": "s1",
    "switchover run": "s1",
    "runbook show": "database-failure",
    "runbook run": "reshard --set to=4 --unattended --from 3",
    "op show": "op-1",
    "monitoring files": "--out {out}",
    "op watch": "op-1",
    "op resume": "op-1",
    "op abort": "op-1",
    "region show": "us-east-1",
    "shard locate": "7",
    "shard plan": "--to 4",
    "shard reshard": "--to 4",
    "shard rollback": "--confirm two-regions",
    "shard abort": "--confirm two-regions",
    "scale set": "orders --to 2",
    "load run": "smoke --seconds 1 --dry-run",
    "backup create": "s1",
    "backup verify": "{backup}",
    "backup restore": "s1 --to new",
    "backup discard": "{restored}",
    "backup point": "before-release-7",
    "events dlq show": LETTER,
    "events dlq replay": "--all",
    "events dlq drop": "--all --confirm us-east-1",
    "token create": "ada --role viewer",
    "token revoke": "{token}",
    "load capacity": "--ceiling 350",
    "load report": "no-such-run",
    "load compare": "no-such-run no-such-run",
    "slo lint": "no-such-file.yaml",
    "slo export": "prometheus",
    "infra plan": "--topology two-regions",
    "infra cost": "--topology two-regions",
    "infra policy": "--topology two-regions",
    "infra up": "--topology two-regions",
    "infra prices refresh": "--out /nowhere/prices.json --region us-east-1",
    "completion": "bash",
}
"""What a command needs to be told; others are run as they are."""

ENDS = {
    "drill report": Exit.USAGE,
    "drill verify-report": Exit.USAGE,
    "failover plan": Exit.REFUSED,
    "failover run": Exit.REFUSED,
    "slo lint": Exit.USAGE,
    "load report": Exit.USAGE,
    "load compare": Exit.USAGE,
    "op resume": Exit.REFUSED,
    "op abort": Exit.REFUSED,
    "shard rollback": Exit.REFUSED,
    "shard finish": Exit.REFUSED,
    "shard abort": Exit.REFUSED,
    "shard pause": Exit.REFUSED,
    "shard resume": Exit.REFUSED,
    "infra plan": Exit.USAGE,
    "infra cost": Exit.USAGE,
    "infra policy": Exit.USAGE,
    "infra up": Exit.USAGE,
    "infra down": Exit.REFUSED,
    "infra drift": Exit.REFUSED,
    "infra outputs": Exit.REFUSED,
    "infra doctor": Exit.REFUSED,
    "infra prices refresh": Exit.AUTH,
}
"""How it ends on a whole platform when not with 0."""

NEED_NO_CONTROL_PLANE = {
    *("config show", "config path", "info"),
    *("drill verify-report", "runbook list", "runbook show", "doctor", "version", "completion"),
    *("load profiles", "load run", "load capacity"),
    *("slo lint", "load report", "load compare", "monitoring files"),
    *("up", "down"),
}

ON_AWS = {path for path in LEAVES if path.startswith("infra ")}
"""They ask Pulumi or AWS, and no control plane."""

SLOW = {"doctor", "version", "monitoring files"} | ON_AWS - {"infra prices show"}
"""They start programs."""

ODD = ("", "a/b", "-1", "\udc80", "x" * 300)
HARMLESS = {"output", "state_dir", "timeout"}
ALONE = SLOW | {"up", "down", "dash", "runbook run"}
"""They start programs or wait for a person."""

HERE = {"up"} | ON_AWS
"""Of who may write the state directory, or has an account: the control plane is not asked."""

NOTHING_TO_REFUSE = {
    "failover run": Exit.REFUSED,
    "failback run": Exit.OK,
    "shard rollback": Exit.REFUSED,
    "shard finish": Exit.REFUSED,
    "shard abort": Exit.REFUSED,
}
"""Of a whole platform these have no plan, and a viewer may see that."""


def changes(path: str) -> bool:
    """What changes something asks why; a plan asks only what its operation would be told."""
    return "--reason" in options(LEAVES[path]) and not path.endswith(" plan")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with control_plane(tmp_path_factory.mktemp("leaves"), automatic=False) as plane:
        plane.provision()
        yield plane


@pytest.fixture(scope="module")
def names(platform: Plane) -> dict[str, str]:
    """What is there to be named: a backup, a server restored from it, a token, a dead letter."""
    assert platform.control is not None
    letter = {"id": LETTER, "group": "mails", "kind": "order-placed", "event": "1", "reason": "x"}
    letter["at"] = "2026-01-01T00:00:00+00:00"
    platform.control.provider.dead["us-east-1"] = {LETTER: letter}  # type: ignore[attr-defined]
    said = {
        "backup": "backup create s1 -o name",
        "restored": "backup restore s1 --to new -o name",
        "viewer": f"token create {VIEWER} --role viewer",
        "token": "token create other --role viewer -o json",
    }
    found = {name: told(platform, *command.split()) for name, command in said.items()}
    found["token"] = json.loads(found["token"])["id"]
    (platform.home / "viewer").write_text(found["viewer"])
    return {**found, "out": str(platform.home / "monitoring")}


def told(platform: Plane, *words: str) -> str:
    ended = platform.run(*words)
    assert ended.code == 0, ended
    return ended.stdout.strip()


def words_of(path: str, names: dict[str, str]) -> list[str]:
    return [*path.split(), *WORDS.get(path, "").format(**names).split(), "--yes"]


@pytest.mark.parametrize("path", LEAVES)
def test_every_leaf_has_the_shared_options_and_help_with_an_example(
    path: str, tmp_path: Path
) -> None:
    ended = regionctl(*path.split(), "--help", home=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    assert "Examples:" in ended.stdout
    assert f"  regionctl {path.removesuffix(' list')}" in ended.stdout
    assert {"-o", "--output", "--yes", "--no-input", "--state-dir"} <= options(LEAVES[path])


@pytest.mark.parametrize("path", LEAVES)
def test_every_leaf_answers_with_one_json_document_or_refuses_in_json(
    path: str, platform: Plane, names: dict[str, str]
) -> None:
    words = words_of(path, names)
    words += ["--dry-run"] if "--dry-run" in options(LEAVES[path]) else []
    ended = platform.run(*words, "-o", "json")
    if ended.code != ENDS.get(path, Exit.OK):
        assert path == "doctor", ended  # this machine may lack something
    if ended.stdout:
        assert json.loads(ended.stdout)["apiVersion"] == "regionctl/v1"
    else:
        error = json.loads(ended.stderr.splitlines()[-1])["error"]
        assert Exit(error["exit"]) == ended.code != Exit.BUG


@pytest.mark.parametrize("path", [path for path in LEAVES if not changes(path) | (path in SLOW)])
def test_every_read_has_a_table_yaml_lines_and_names(
    path: str, platform: Plane, names: dict[str, str]
) -> None:
    for form in ("table", "yaml", "jsonl", "name"):
        if (path, form) == ("dash", "table"):
            continue  # needs a terminal
        ended = platform.run(*words_of(path, names), "-o", form)
        assert ended.code == ENDS.get(path, Exit.OK), ended
        if form == "yaml" and ended.code == Exit.OK:
            assert yaml.safe_load(ended.stdout)["apiVersion"] == "regionctl/v1"
        elif form == "jsonl":
            assert all(isinstance(json.loads(each), dict) for each in ended.stdout.splitlines())


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in ALONE])
def test_no_leaf_takes_an_odd_word_for_a_bug_of_its_own(path: str, platform: Plane) -> None:
    taken = [each for each in LEAVES[path].params if not flag(each) and each.name not in HARMLESS]
    for odd in ODD:
        for parameter in taken:
            words = path.split()
            for each in taken:
                if (each.required or each is parameter) and each.param_type_name == "option":
                    words.append(f"{each.opts[0]}={odd if each is parameter else 's1'}")
            words += [
                "--yes",
                *(["--dry-run"] if "--dry-run" in options(LEAVES[path]) else []),
                "--",
            ]
            for each in taken:
                if (each.required or each is parameter) and each.param_type_name == "argument":
                    words.append(odd if each is parameter else "s1")
            ended = platform.run(*words)
            assert ended.code != Exit.BUG, (words, ended)


def flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


@pytest.mark.parametrize("path", LEAVES)
def test_every_leaf_refuses_an_option_that_it_does_not_have(path: str, tmp_path: Path) -> None:
    ended = regionctl(*path.split(), "--outptu", "json", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert "--output" in ended.stderr


@pytest.mark.parametrize("path", sorted(set(LEAVES) - NEED_NO_CONTROL_PLANE - ON_AWS))
def test_every_leaf_says_that_the_control_plane_is_away(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "RESTART_SECONDS", 0.0)
    (tmp_path / "state" / "control").mkdir(parents=True)
    (tmp_path / "state" / "control" / "token").write_text("secret")
    document = {"format": 1, "topology": "two-regions", "portOffset": 39000, "ownerUid": 0}
    (tmp_path / "state" / "state.json").write_text(json.dumps(document))
    absent = dict.fromkeys(("backup", "restored", "token"), "absent")
    ended = regionctl(*words_of(path, absent), "-o", "json", home=tmp_path)
    assert (ended.code, ended.stdout == "") == (6, path != "runbook run")
    assert json.loads(ended.stderr.splitlines()[-1])["error"]["exit"] == 6


@pytest.mark.parametrize("path", [path for path in LEAVES if changes(path) and path not in HERE])
def test_a_viewer_changes_nothing_by_any_leaf(
    path: str, platform: Plane, names: dict[str, str]
) -> None:
    viewer = {"REGIONCTL_TOKEN_FILE": str(platform.home / "viewer")}
    ended = platform.run(*words_of(path, names), "-o", "json", env=viewer)
    assert ended.code == NOTHING_TO_REFUSE.get(path, Exit.AUTH), ended
    if ended.code == Exit.AUTH:
        assert json.loads(ended.stderr.splitlines()[-1])["error"]["exit"] == Exit.AUTH
    log = json.loads(told(platform, "audit", "--actor", VIEWER, "-o", "json"))["items"]
    assert {entry["kind"] for entry in log} <= {"refused"}
    operations = json.loads(told(platform, "op", "list", "-o", "json"))["items"]
    assert VIEWER not in {each["requestedBy"] for each in operations}
