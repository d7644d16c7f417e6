"""Doctor says of each failure what mends it, whoever asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.local import binaries, certificates, doctor
from infra.local.doctor import Asked, Check


def checks(
    state_dir: Path, topology: str = "two-regions", bin: Path | None = None
) -> dict[str, Check]:
    found = doctor.examine(Asked(state_dir, topology, 39_000, bin))
    assert all(check.mend for check in found if check.state != "ok")
    return {check.name: check for check in found}


def test_a_check_that_cannot_be_made_is_a_failed_one_with_a_mend() -> None:
    for error in (PermissionError(13, "no", "/x"), OSError("odd"), psutil.AccessDenied(1)):

        def fails(error: Exception = error) -> Check:
            raise error

        made = doctor._made("state", fails)
        assert (made.name, made.state, bool(made.mend)) == ("state", "fail", True)


def test_the_lock_that_a_refused_up_leaves_is_no_platform(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    assert checks(tmp_path)["state"].state == "ok"
    (tmp_path / "secrets.json").write_text("{}")
    assert "half made" in checks(tmp_path)["state"].detail


def test_a_topology_that_does_not_exist_fails_the_check_of_its_ports(tmp_path: Path) -> None:
    found = checks(tmp_path, topology="nowhere")
    assert (found["ports"].state, "two-regions" in found["ports"].mend) == ("fail", True)


def test_a_postgresql_that_is_not_whole_or_not_18_is_told_before_it_is_used(
    tmp_path: Path,
) -> None:
    server = tmp_path / "postgres"
    assert "does not run" in checks(tmp_path, bin=tmp_path)["postgres"].detail
    server.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.4'\n")
    server.chmod(0o755)
    assert "initdb" in checks(tmp_path, bin=tmp_path)["postgres"].detail
    for tool in binaries.NEEDED:
        if tool != "postgres":
            (tmp_path / tool).symlink_to(server)
    told = checks(tmp_path, bin=tmp_path)["postgres"]
    assert "16.4; 18 is needed" in told.detail
    assert "REGIONCTL_POSTGRES_BIN" in told.mend


@pytest.mark.parametrize(("age_days", "state"), [(0, "ok"), (340, "warn"), (366, "fail")])
def test_the_certificate_that_ends_first_is_told_before_clients_refuse_it(
    tmp_path: Path, age_days: int, state: str
) -> None:
    assert checks(tmp_path)["certificates"].state == "ok"
    certificates.ensure(tmp_path / "ca", now=datetime.now(UTC) - timedelta(days=age_days))
    found = checks(tmp_path)["certificates"]
    assert (found.state, "edge.pem" in found.detail) == (state, True)
    assert state == "ok" or "runbook run certificate-expired" in found.mend
