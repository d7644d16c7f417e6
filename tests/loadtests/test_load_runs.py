"""Load runs in trouble: saturated, without a worker, interrupted, without a target."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local import certificates
from loadtests.arrivals import STEADY, WARM_UP, Segment, phases
from tests.cli.console import environment
from tests.loadtests.shots import STEADY_RUN, Shot, judge, patient, read, running
from tests.loadtests.target import open_target
from tests.ports import free_port

pytestmark = pytest.mark.process


def test_a_saturated_generator_proves_nothing(tmp_path: Path) -> None:
    rates = (Segment("constant", 20_000, 20_000, 0.1),)
    plan = replace(
        STEADY_RUN, segments=rates, phases=phases([(WARM_UP, 0.01), (STEADY, 0.1)]), timeout=5.0
    )
    with open_target() as target:
        assert Shot(tmp_path, plan, target.url).end()[0] == 0
    code, run = judge(tmp_path)
    assert (code, run["verdict"]) == (9, "invalid")
    assert any("generator" in why for why in run["validity"]["because"])


def test_a_run_goes_on_without_a_worker_that_is_lost_and_proves_nothing(tmp_path: Path) -> None:
    plan = replace(STEADY_RUN, segments=(Segment("constant", 30, 30, 14),))
    port = free_port()
    elsewhere = ("--bind", f"127.0.0.1:{port}", "--expect-workers", 2)
    worker = ("-f", "loadtests/locustfile.py", "--worker", "--master-port", str(port))
    with open_target() as target:
        shot = Shot(tmp_path, plan, target.url, *elsewhere, *patient())
        with subprocess.Popen([sys.executable, "-m", "locust", *worker]) as joined:
            before = shot.until(lambda line: line.get("started", 0) > 40)
            joined.kill()
        after = [line for line in shot.lines() if "t" in line][-1]
        code, run = shot.end()
    assert code == 0
    assert after["started"] > before["started"] + 50
    assert run["generator"]["missing"] == 1
    assert "1 of 2 workers were lost" in run["validity"]["because"]
    assert not run["partial"]


def test_ctrl_c_leaves_a_report_of_what_was_measured_and_a_rate_limit_is_no_error(
    tmp_path: Path,
) -> None:
    words = ("load", "run", "smoke", "--rate-scale", "0.5", "--report-dir", tmp_path / "out")
    with open_target() as target:
        target.limit_after = 5
        console = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *map(str, words), "--url", target.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
        )
        assert console.stderr is not None
        for line in console.stderr:
            # The interpreter may say something there as well.
            if line.startswith("{") and running(json.loads(line)):
                console.send_signal(signal.SIGINT)
                break
        said, _ = console.communicate(timeout=120)
    run = read(tmp_path / "out")
    assert console.returncode == 130
    assert run["partial"]
    assert run["offered"]["started"] == run["offered"]["planned"] > 0
    assert sum(each["ok"] for each in run["endpoints"]) > 0
    assert sum(each["limited"] for each in run["endpoints"]) > 0
    assert sum(each["errors"] for each in run["endpoints"]) == 0
    assert "smoke: invalid" in said
    assert "partial" in said


def test_locust_alone_runs_a_profile_over_tls_that_the_platforms_ca_vouches_for(
    tmp_path: Path,
) -> None:
    certificates.ensure(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca" / "edge.pem", tmp_path / "ca" / "edge.key")
    with open_target(tls=context) as target:
        words = (
            *("-f", "loadtests/locustfile.py", "--headless", "--only-summary"),
            *("--host", target.url, "--load-ca", tmp_path / "ca" / "ca.pem"),
            *("--load-profile", "smoke", "--load-rate-scale", "1", "--load-seconds", "6"),
            *("--load-out", tmp_path),
        )
        ended = subprocess.run(
            [sys.executable, "-m", "locust", *map(str, words)],
            check=False,
            timeout=120,
            capture_output=True,
            text=True,
        )
    run = read(tmp_path)
    assert ended.returncode == (0 if run["validity"]["valid"] else 9), ended.stderr
    assert run["offered"]["started"] == run["offered"]["planned"] > 0
    assert run["errors"] == []
    assert {row["journey"] for row in run["journeys"]} <= {
        "checkout",
        "refresh",
        "search",
        "cancel",
    }


def test_a_target_that_is_down_is_said_at_once(tmp_path: Path) -> None:
    shot = Shot(tmp_path, STEADY_RUN, "http://127.0.0.1:9")
    code, run = shot.end()
    assert code == 9
    (because,) = run["validity"]["because"]
    assert "http://127.0.0.1:9 cannot be tested" in because


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["--url", "http://127.0.0.1:9", "--out", str(tmp_path / "file" / "out")]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtests.run", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "cannot be written" in ended.stderr
