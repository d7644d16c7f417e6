"""The console against a real control plane whose world is the memory provider."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Plane
from tests.cli.console import environment, program, regionctl


def test_the_program_writes_what_it_answers_to_stdout_and_ends_with_its_code(
    platform: Plane,
) -> None:
    read = program("status", "--exit-status", "-o", "json", home=platform.home)
    assert (read.code, read.stderr) == (0, "")
    assert json.loads(read.stdout)["state"] == "healthy"
    refused = program("failover", "run", "s1", "--confirm", "s1", home=platform.home)
    assert (refused.code, refused.stdout) == (5, "")
    assert refused.stderr.startswith("error: ")


def test_every_read_has_a_table_yaml_lines_and_names(platform: Plane) -> None:
    for form in ("table", "yaml", "jsonl", "name"):
        for command in ("status", "op list", "shard map"):
            ended = platform.run(*command.split(), "-o", form)
            assert (ended.code, ended.stderr) == (0, ""), (command, form)
            assert ended.stdout


def test_the_status_document_is_the_contract(platform: Plane) -> None:
    document = json.loads(platform.run("status", "-o", "json").stdout)
    assert document["kind"] == "PlatformStatus"
    assert {"state", "entryUrl", "regions", "shards", "controlPlane"} <= set(document)
    assert set(document["shards"][0]) >= {"name", "epoch", "home", "primary", "standbys"}
    assert set(document["regions"][0]["instances"][0]) >= {
        *("id", "kind", "service", "zone", "role", "pid", "address", "state"),
    }


def test_status_exits_with_the_state_only_when_asked(plane: Plane) -> None:
    assert plane.run("status").code == 0
    assert plane.run("status", "--exit-status").code == 12


def test_a_healthy_platform_exits_0(platform: Plane) -> None:
    assert platform.run("status", "--exit-status").code == 0


def test_a_switchover_shows_its_steps_on_stderr_and_the_operation_on_stdout(
    platform: Plane,
) -> None:
    ended = platform.run("switchover", "run", "s1", "--yes", "--reason", "patch", "-o", "json")
    assert ended.code == 0
    operation = json.loads(ended.stdout)
    assert (operation["state"], operation["reason"]) == ("succeeded", "patch")
    assert "✓ promote s1.us-east-1b" in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("✓")] != []


def test_a_dry_run_prints_the_steps_that_are_then_carried_out(platform: Plane) -> None:
    planned = json.loads(platform.run("switchover", "run", "s1", "--dry-run", "-o", "json").stdout)
    done = json.loads(platform.run("switchover", "run", "s1", "--yes", "-o", "json").stdout)
    assert [(s["name"], s["args"]) for s in planned["steps"]] == [
        (s["name"], s["args"]) for s in done["steps"]
    ]


ELSEWHERE = {"REGIONCTL_SERVER": "https://ops.example:18000", "REGIONCTL_STATE_DIR": ""}


@pytest.mark.parametrize("words", [["down"], ["up", "--port-offset", "1"], ["up", "--listen", "x"]])
def test_a_platform_elsewhere_is_not_stopped_from_here_nor_told_how_to_run(
    words: list[str], tmp_path: Path
) -> None:
    ended = regionctl(*words, "--dry-run", home=tmp_path, env=ELSEWHERE)
    assert ended.code == 5
    assert "https://ops.example:18000" in ended.stderr
    assert "--state-dir DIR" in ended.stderr
    named = regionctl(
        *words, "--dry-run", "--state-dir", str(tmp_path / "x"), home=tmp_path, env=ELSEWHERE
    )
    assert "There is no platform" in named.stderr


def test_a_platform_elsewhere_is_provisioned_by_its_own_control_plane(plane: Plane) -> None:
    there = {
        "REGIONCTL_SERVER": f"http://127.0.0.1:{plane.port}",
        "REGIONCTL_TOKEN_FILE": str(plane.state / "control" / "token"),
        "REGIONCTL_STATE_DIR": "",
    }
    other = plane.run("up", "--topology", "aws-two-regions", env=there)
    assert other.code == 5
    assert "runs two-regions, not aws-two-regions: nothing was begun" in other.stderr
    planned = plane.run("up", "--dry-run", "-o", "json", env=there)
    assert (json.loads(planned.stdout)["verb"], planned.code) == ("provision", 0)
    made = plane.run("up", "--topology", "two-regions", "-o", "json", env=there)
    document = json.loads(made.stdout)
    assert (made.code, document["state"]) == (0, "healthy")
    assert document["controlPlane"] == there["REGIONCTL_SERVER"]
    again = plane.run("up", env=there)
    assert (again.code, "nothing to do" in again.stderr) == (0, True)
    assert "next: curl https://" in again.stdout


def test_a_plan_exits_20_when_it_has_steps_and_the_code_is_asked_for(platform: Plane) -> None:
    assert platform.run("switchover", "plan", "s1", "--exit-code").code == 20
    assert platform.run("failback", "plan", "--exit-code").code == 0


def test_an_empty_plan_is_nothing_to_do(platform: Plane) -> None:
    ended = platform.run("failback", "run", "--yes")
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "nothing to do\n")


def test_failover_of_a_healthy_database_is_refused_and_points_to_switchover(
    platform: Plane,
) -> None:
    ended = platform.run("failover", "run", "s1", "--confirm", "s1")
    assert (ended.code, ended.stdout) == (5, "")
    assert "regionctl switchover run s1" in ended.stderr


def test_an_acknowledged_failover_ends_the_quiet_period(platform: Plane) -> None:
    with closing(sqlite3.connect(platform.state / "control" / "control.db")) as store, store:
        store.execute(
            "INSERT INTO failover (database, kind, operation_id, at) "
            "VALUES ('s1', 'failover', 'op-1', '2026-01-01T00:00:00+00:00')"
        )
    command = ("failover", "acknowledge", "s1", "--yes", "--reason", "disk replaced")
    document = json.loads(platform.run(*command, "-o", "json").stdout)
    assert (document["database"], document["acknowledged"]) == ("s1", 1)
    again = platform.run(*command)
    assert again.code == 0
    assert "no quiet period" in again.stderr


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("drill run databse-failure", "did you mean database-failure?"),
        ("region show us-est-1", "us-east-1"),
        ("failover plan s9", "s1"),
        ("failover acknowledge s9 --yes --reason x", "s1"),
        ("op show op-99", "regionctl op list"),
        ("events dlq show 9-9", "regionctl events dlq list"),
        ("events dlq drop 9-9 --confirm us-east-1", "regionctl events dlq list"),
        ("events dlq replay", "regionctl events dlq list"),
        ("events lag --region us-est-1", "us-east-1"),
    ],
)
def test_an_unknown_name_exits_2_and_names_the_nearest(
    platform: Plane, command: str, hint: str
) -> None:
    ended = platform.run(*command.split())
    assert (ended.code, ended.stdout) == (2, "")
    assert hint in ended.stderr


def test_events_can_be_taken_as_lines(platform: Plane) -> None:
    lines = platform.run("events", "-n", "5", "-o", "jsonl").stdout.splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[-1] == "operation-succeeded"
    assert len(kinds) == 5


def test_detach_returns_at_once_and_watch_waits(platform: Plane) -> None:
    started = platform.run("switchover", "run", "s1", "--yes", "--detach", "-o", "name")
    watched = platform.run("op", "watch", started.stdout.strip(), "-o", "json")
    assert json.loads(watched.stdout)["state"] == "succeeded"


def test_the_same_key_again_begins_no_other_operation(platform: Plane) -> None:
    command = ("switchover", "run", "s1", "--yes", "--idempotency-key", "INC-441", "-o", "json")
    first, again = (json.loads(platform.run(*command).stdout) for _ in range(2))
    assert (first["id"], first["state"]) == (again["id"], "succeeded")
    assert json.loads(platform.run(*command, "--dry-run").stdout)["kind"] == "Plan"


def test_a_drill_with_the_same_key_again_has_the_same_random_moments(platform: Plane) -> None:
    def planned(*words: str) -> list[str]:
        command = ("drill", "run", "database-failure", "--dry-run", "-o", "json", *words)
        return [platform.run(*command).stdout for _ in range(2)]

    first, again = planned("--idempotency-key", "INC-441")
    assert first == again
    first, again = planned()
    assert first != again


def test_operations_are_chosen_by_state_verb_and_age(platform: Plane) -> None:
    assert platform.run("switchover", "run", "s1", "--yes").code == 0

    def chosen(*words: str) -> list[str]:
        ended = platform.run("op", "list", *words, "-o", "name")
        assert ended.code == 0, ended
        return ended.stdout.split()

    assert chosen() == ["op-2", "op-1"]
    assert chosen("--limit", "1") == ["op-2"]
    assert chosen("--kind", "provision", "--limit", "1") == ["op-1"]
    assert chosen("--kind", "failover") == chosen("--active") == []
    assert chosen("--since", "5m") == ["op-2", "op-1"]
    assert chosen("--since", "2100-01-01") == []
    assert platform.run("op", "list", "--since", "yesterday").code == 2


def test_a_watched_status_is_a_line_for_each_change_until_ctrl_c(platform: Plane) -> None:
    assert platform.run("status", "-w", "-o", "json").code == 2
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "status", "-w", "-o", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(platform.home),
    )
    try:
        assert process.stdout is not None
        before = json.loads(process.stdout.readline())
        assert platform.run("switchover", "run", "s1", "--yes").code == 0
        after = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert before["shards"][0]["primary"] != after["shards"][0]["primary"]
    assert (process.returncode, stderr.strip()) == (130, "interrupted")
    assert all(json.loads(line)["mapVersion"] != before["mapVersion"] for line in rest.splitlines())


def test_ctrl_c_ends_the_wait_and_not_the_operation(plane: Plane) -> None:
    """The events are followed for ever; what they follow is the control plane's business."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "events", "-f", "-o", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(plane.home),
    )
    try:
        plane.provision()
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "operation-created"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert plane.run("status", "--exit-status").code == 0


def test_an_interrupted_up_is_carried_on_by_the_next_and_a_third_finds_nothing_to_do(
    plane: Plane,
) -> None:
    command = [sys.executable, "-m", "cli.main", "up"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(plane.home)
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"state in {plane.state}\n"
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert (process.returncode, "Traceback" in told) == (130, False)
    again = plane.run("up", "-o", "json")
    assert (again.code, json.loads(again.stdout)["state"]) == (0, "healthy")
    third = plane.run("up")
    assert third.code == 0
    assert "nothing to do" in third.stderr
    assert plane.run("op", "list", "-o", "name").stdout.split() == ["op-1"]


def test_a_control_plane_that_dies_and_returns_does_not_end_the_wait(plane: Plane) -> None:
    plane.provision()
    started = time.monotonic()
    plane.end()
    away = plane.run("op", "list")
    assert away.code == 6
    plane.start()
    assert json.loads(plane.run("op", "watch", "op-1", "-o", "json").stdout)["state"] == "succeeded"
    assert time.monotonic() - started < 60
