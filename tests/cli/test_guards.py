from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.console import regionctl


def made(home: Path, **changes: object) -> Path:
    """A state directory in which nothing runs, far from anybody's ports."""
    state = home / "state"
    state.mkdir()
    document = {"format": 1, "topology": "two-regions", "portOffset": 39000, "ownerUid": 0}
    (state / "state.json").write_text(json.dumps({**document, **changes}))
    return state


def test_without_a_platform_a_read_exits_6_and_points_to_up(tmp_path: Path) -> None:
    ended = regionctl("events", "-n", "3", home=tmp_path)
    assert (ended.code, ended.stdout) == (6, "")
    assert "try: regionctl up" in ended.stderr


def test_the_same_as_json_is_one_line_on_stderr(tmp_path: Path) -> None:
    ended = regionctl("status", "-o", "json", home=tmp_path)
    assert (ended.code, ended.stdout) == (6, "")
    error = json.loads(ended.stderr)["error"]
    assert (error["id"], error["exit"], error["hint"]) == ("UNAVAILABLE", 6, "regionctl up")


def test_a_usage_error_as_json_is_json_too(tmp_path: Path) -> None:
    ended = regionctl("drill", "run", "-o", "json", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert json.loads(ended.stderr)["error"]["exit"] == 2


def test_a_control_plane_that_is_away_exits_6_and_says_whether_the_edge_answers(
    tmp_path: Path,
) -> None:
    made(tmp_path)
    ended = regionctl("status", home=tmp_path)
    assert (ended.code, ended.stdout) == (6, "")
    assert "does not answer" in ended.stderr
    assert "The edge does not answer" in ended.stderr


def test_a_state_directory_of_another_version_is_refused(tmp_path: Path) -> None:
    made(tmp_path, format=99)
    ended = regionctl("status", home=tmp_path)
    assert ended.code == 5
    assert "format 99" in ended.stderr


def test_a_damaged_state_file_is_refused(tmp_path: Path) -> None:
    (made(tmp_path) / "state.json").write_text("{")
    ended = regionctl("status", home=tmp_path)
    assert ended.code == 5
    assert "damaged" in ended.stderr


@pytest.mark.parametrize("words", [("--state-dir", "x" * 300), ("--state-dir", "/dev/null")])
def test_a_state_directory_that_can_be_none_is_told(words: tuple[str, ...], tmp_path: Path) -> None:
    ended = regionctl("status", *words, home=tmp_path)
    assert ended.code in (2, 6), ended


@pytest.mark.parametrize(
    "words",
    [("op", "show", "\udc80"), ("drill", "verify-report", "x" * 300), ("op", "show", "a/b")],
)
def test_an_argument_that_nothing_can_be_called_is_no_bug(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    state = made(tmp_path)
    (state / "control").mkdir()
    (state / "control" / "token").write_text("secret")
    ended = regionctl(*words, home=tmp_path)
    assert (ended.code, ended.stdout) == (2, ""), ended


def test_a_state_directory_from_elsewhere_cannot_have_a_file_sent_as_its_token(
    tmp_path: Path,
) -> None:
    control = made(tmp_path) / "control"
    control.mkdir()
    (tmp_path / "mine").write_text("my secret")
    (control / "token").symlink_to(tmp_path / "mine")
    ended = regionctl("op", "list", home=tmp_path)
    assert (ended.code, ended.stdout) == (3, "")
    assert "is a link" in ended.stderr


def test_down_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    ended = regionctl("down", "--delete-data", "--confirm", "two-regions", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")


def test_yes_alone_does_not_delete_data(tmp_path: Path) -> None:
    state = made(tmp_path)
    ended = regionctl("down", "--delete-data", "--yes", home=tmp_path)
    assert ended.code == 5
    assert "--confirm two-regions" in ended.stderr
    assert (state / "state.json").exists()


def test_the_wrong_name_does_not_delete_data(tmp_path: Path) -> None:
    state = made(tmp_path)
    ended = regionctl("down", "--delete-data", "--confirm", "prod", home=tmp_path)
    assert ended.code == 5
    assert (state / "state.json").exists()


def test_yes_alone_does_not_fail_over(tmp_path: Path) -> None:
    made(tmp_path)
    ended = regionctl("failover", "run", "s1", "--yes", home=tmp_path)
    assert ended.code == 5
    assert "--confirm s1" in ended.stderr


@pytest.mark.parametrize("guard", ["--accept-data-loss", "--unfenced"])
def test_a_guard_is_not_overridden_without_a_reason(guard: str, tmp_path: Path) -> None:
    made(tmp_path)
    ended = regionctl("failover", "run", "s1", "--confirm", "s1", guard, home=tmp_path)
    assert ended.code == 5
    assert "--reason" in ended.stderr


def test_a_quiet_period_is_not_ended_without_a_reason(tmp_path: Path) -> None:
    made(tmp_path)
    ended = regionctl("failover", "acknowledge", "s1", "--yes", home=tmp_path)
    assert ended.code == 5
    assert "--reason" in ended.stderr


def test_a_switchover_needs_one_target(tmp_path: Path) -> None:
    made(tmp_path)
    ended = regionctl("switchover", "plan", "s1", "--to", "us-west-2", home=tmp_path)
    assert ended.code == 2


def test_a_shard_key_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    made(tmp_path)
    assert regionctl("shard", "locate", "slot:1024", home=tmp_path).code == 2
    assert regionctl("shard", "locate", "alice", home=tmp_path).code == 2


def test_doctor_finds_the_servers_and_says_where_a_taken_port_is_held(tmp_path: Path) -> None:
    import os
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = regionctl("doctor", "--port-offset", str(port - 18000), "-o", "json", home=tmp_path)
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert {"postgres", "valkey", "envoy", "memory", "disk", "user", "state"} <= set(checks)
    assert checks["postgres"]["detail"].startswith("18.")
    assert checks["ports"]["state"] == "fail"
    assert f"pid {os.getpid()}" in checks["ports"]["detail"]
    assert "--port-offset" in checks["ports"]["mend"]
    assert ended.code == 5


def test_version_as_json_names_every_part(tmp_path: Path) -> None:
    ended = regionctl("version", "-o", "json", home=tmp_path)
    assert ended.code == 0
    assert {"regionctl", "python", "postgres", "valkey", "envoy"} <= set(json.loads(ended.stdout))
