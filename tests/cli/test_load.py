"""regionctl load: what is refused before anything is sent, and what is shown of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.load_live import BARS, bars, lines
from runtime.errors import Exit
from tests.cli.console import regionctl
from tests.control_plane.test_capacity import breakpoint_run

NOWHERE = ("--url", "http://127.0.0.1:9")
IMPOSSIBLE = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: test}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  objectives: [{displayName: answers, target: 0.9}]
x-regionctl:
  gates: [{metric: errors.ratio, op: "<=", value: 1%}]
  burn: [{severity: page, factor: 14.4, long: 1h, short: 5m}]
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("smok",), "did you mean smoke"),
        (("smoke", "--rate-scale", "0"), "rate scale"),
        (("smoke", "--seconds", "-1"), "seconds"),
        (("smoke", "--gate", "no-such-file.yaml"), "no-such-file.yaml"),
    ],
)
def test_a_load_that_cannot_be_is_refused_before_anything_starts(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    ended = regionctl("load", "run", *words, *NOWHERE, "--report-dir", str(folder), home=tmp_path)
    assert (ended.code, ended.stdout) == (Exit.USAGE, "")
    assert said in ended.stderr
    assert not folder.exists()


def test_a_gate_file_with_a_burn_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text(IMPOSSIBLE)
    gate = ("--gate", str(tmp_path / "slo.yaml"))
    ended = regionctl("load", "run", "smoke", *gate, *NOWHERE, home=tmp_path)
    assert "14.4" in ended.stderr
    assert ended.code == Exit.USAGE


def test_a_platform_that_is_only_known_by_its_control_plane_must_be_named(tmp_path: Path) -> None:
    env = {"REGIONCTL_SERVER": "https://control.example", "REGIONCTL_STATE_DIR": ""}
    ended = regionctl("load", "run", "smoke", home=tmp_path, env=env)
    assert ended.code == Exit.REFUSED
    assert "--url" in ended.stderr


def test_the_plan_is_shown_without_a_platform(tmp_path: Path) -> None:
    words = ("load", "run", "spike", "--seconds", "25", "--seed", "7", "--dry-run", "-o", "json")
    plan = json.loads(regionctl(*words, home=tmp_path).stdout)
    assert (plan["kind"], plan["seed"], plan["seconds"]) == ("LoadPlan", 7, 25)
    assert plan["arrivals"] > 100


def test_capacity_is_answered_from_a_run_that_was_made(tmp_path: Path) -> None:
    run = {"kind": "LoadRun", **breakpoint_run((20, 30), (40, 60), (60, 900))}
    (tmp_path / "run.json").write_text(json.dumps(run))
    words = ("load", "capacity", "--run", str(tmp_path), "--users", "6004", "--think", "59.96")
    ended = regionctl(*words, "-o", "json", home=tmp_path)
    answer = json.loads(ended.stdout)
    assert ended.code == Exit.OK
    assert answer["measured"]["ceiling"] == 120
    assert answer["needed"]["requests"] == pytest.approx(300.2)
    assert (answer["needed"]["instances"], answer["needed"]["in_each_zone"]) == (8, 4)
    assert answer["cost"]["computeUsd"] > 0
    table = regionctl(*words, home=tmp_path).stdout
    assert "a month on AWS: 48 tasks" in table
    assert "1 of 2 may be lost; the 4 instances that are left then bear everything" in table


def test_bars_are_as_high_as_their_values() -> None:
    assert bars([]) == ""
    assert bars([0, 0]) == BARS[0] * 2
    assert bars([1, 8, 4]) == BARS[1] + BARS[7] + BARS[4]


def test_the_picture_says_how_far_how_fast_and_how_slow() -> None:
    latest = {
        "t": 12.0, "started": 1200, "ok": 3600, "errors": 4, "inFlight": 7, "dropped": 0,
        "p50Ms": 9.6, "p99Ms": 180.4, "rate": 100.0, "lagMs": 1.5, "cpu": 0.42,
    }  # fmt: skip
    shown = "\n".join(lines(latest, 70.0, [50, 100], [20, 180.4]))
    for word in ("12 of 70 s", "3,600", "errors 4", "p50 9.6 ms", "180 ms", "100.0/s", "42%"):
        assert word in shown
    assert "no errors" in "\n".join(lines({**latest, "errors": 0}, 70.0, [1], [1]))
