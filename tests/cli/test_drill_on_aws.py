"""A drill on AWS as the console shows it: planned offline, agreed to, and handed over."""

from __future__ import annotations

import json

import pytest

from cli.main import run
from runtime.errors import Exit

DRILL = ["drill", "run", "region-failure", "--topology", "aws-two-regions", "--seed", "1"]


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No settings, no server, no account."""
    home = str(tmp_path_factory.mktemp("home"))
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CONFIG_HOME", home)
    for name in ("REGIONCTL_SERVER", "REGIONCTL_STATE_DIR", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)


def test_a_dry_run_shows_the_plan_the_approvals_and_what_is_not_known_of_the_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*DRILL, "--dry-run", "-o", "json"]) == Exit.OK
    made = json.loads(capsys.readouterr().out)
    assert (made["kind"], made["mode"], made["basis"]) == ("Plan", "planned", "design")
    recovery = {step["name"]: step["args"] for step in made["expected"]["recovery"]}
    assert list(recovery)[:3] == ["close-route", "fence-region", "record-unsynced"]
    assert recovery["promote"]["accept_data_loss"] is True
    assert recovery["promote"]["instances"] == [
        *("s1.us-west-2a", "s2.us-west-2a", "catalog.us-west-2a"),
    ]
    assert "gateway.us-west-2b" in recovery["start-servers"]["instances"]
    assert [each["name"] for each in made["approvals"]] == ["us-east-1", "data-loss", "return"]
    assert made["expected"]["lossSeconds"] is None


@pytest.mark.parametrize(
    ("words", "lost", "taker"),
    [
        ([], "us-east-1", "us-west-2"),
        (["--region", "us-east-1"], "us-east-1", "us-west-2"),
        (["--region", "us-west-2"], "us-west-2", "us-east-1"),
    ],
)
def test_either_region_may_be_the_one_that_is_lost(
    words: list[str], lost: str, taker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*DRILL, *words, "--dry-run", "-o", "json"]) == Exit.OK
    made = json.loads(capsys.readouterr().out)
    (fault,) = [s["args"]["fault"] for s in made["steps"] if s["name"] == "inject-fault"]
    assert (fault["kind"], fault["target"]) == ("kill-region", lost)
    recovery = {step["name"]: step["args"] for step in made["expected"]["recovery"]}
    assert recovery["fence-region"]["region"] == lost
    assert recovery["promote"]["instances"] == [f"{n}.{taker}a" for n in ("s1", "s2", "catalog")]
    assert recovery["open-route"] == {"region": taker}
    assert {id.partition(".")[2][:-1] for id in recovery["start-servers"]["instances"]} == {taker}
    assert [each["name"] for each in made["approvals"]] == [lost, "data-loss", "return"]
    assert lost in made["approvals"][0]["consequence"]
    assert made["expected"]["lossSeconds"] is None
    assert run([*DRILL, *words, "--dry-run"]) == Exit.OK
    told = capsys.readouterr().out
    for said in (f"Every service of {lost} ends", "data-loss", "expected loss: unknown"):
        assert said in told


def test_a_region_that_the_topology_has_not_is_not_found_and_those_that_it_has_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*DRILL, "--region", "eu-west-1", "--dry-run"]) == Exit.USAGE
    ended = capsys.readouterr()
    assert ended.out == ""
    assert "'eu-west-1'" in ended.err
    assert "us-east-1" in ended.err
    assert "us-west-2" in ended.err


def test_the_other_region_has_to_be_typed_when_it_is_the_one_that_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--region", "us-west-2", "--no-input", "--yes", "--reason", "game day"]
    assert run([*DRILL, *words, "--confirm", "us-east-1"]) == Exit.REFUSED
    assert "--confirm us-west-2" in capsys.readouterr().err


def test_people_are_told_that_nobody_knows_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*DRILL, "--dry-run"]) == Exit.OK
    told = capsys.readouterr().out
    assert "expected loss: unknown: AWS was not asked" in told
    assert "fence-region" in told


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ([], "--reason"),
        (["--reason", "game day"], "--confirm us-east-1"),
        (["--reason", "game day", "--confirm", "us-west-2"], "--confirm us-east-1"),
        (["--reason", "game day", "--confirm", "us-east-1"], "REGIONCTL_SERVER"),
    ],
)
def test_nothing_is_begun_before_everything_is_agreed_to_and_somebody_can_act(
    words: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*DRILL, "--no-input", "--yes", *words]) == Exit.REFUSED
    ended = capsys.readouterr()
    assert ended.out == ""
    assert missing in ended.err
    assert ended.err.index("to agree to: us-east-1") < ended.err.index("error:")


@pytest.mark.parametrize(
    ("drill", "reason"),
    [
        ("zone-failure", "no API takes a zone away"),
        ("reshard", "local platform only"),
        ("data-corruption", "not in a global database"),
        ("backup-restore", "restore testing"),
    ],
)
def test_a_drill_that_aws_lets_nobody_run_is_refused_before_anything_is_asked(
    drill: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["drill", "run", drill, "--topology", "aws-two-regions", "--dry-run"]
    assert run(words) == Exit.REFUSED
    assert reason in capsys.readouterr().err


def test_a_local_topology_is_left_to_its_own_control_plane(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["drill", "run", "region-failure", "--topology", "two-regions", "--dry-run"]
    assert run(words) == Exit.USAGE
    assert "leave --topology out" in capsys.readouterr().err
