"""What one server's files say, without a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.local.backups.chain import Stop
from infra.local.backups.recover import recovery_settings
from infra.local.postgres import ControlData, clear_lock, common, end_helpers, final_position
from infra.topology import load
from runtime.errors import OperationFailed
from runtime.shards import POOL_SIZE


def test_a_database_has_room_for_the_pools_of_as_many_instances_as_there_may_ever_be() -> None:
    topology = load("two-regions")
    grown = topology
    for service in topology.services:
        for zone in ("us-east-1a", "us-east-1b", "us-west-2a"):
            grown = grown.with_instances(service, zone, topology.scaling.max_instances)
    pools = len(grown.instances(kind="service", region="us-east-1")) * POOL_SIZE
    assert f"max_connections = {pools + 64}\n" in common(grown)
    assert common(grown) == common(topology)


def test_a_clean_stop_ends_behind_its_shutdown_checkpoint() -> None:
    assert final_position("s1.a", ControlData(True, 1, 100), standby=False) == 101


def test_where_a_killed_primary_ended_is_not_guessed_from_its_last_checkpoint() -> None:
    with pytest.raises(OperationFailed, match="not stopped cleanly"):
        final_position("s1.a", ControlData(False, 1, 100), standby=False)


def test_a_stopped_standby_is_asked_for_no_clean_end() -> None:
    assert final_position("s1.b", ControlData(False, 1, 100), standby=True) == 101


@pytest.mark.process
def test_what_a_dead_control_plane_left_writing_ends_before_another_copy_begins(
    tmp_path: Path,
) -> None:
    site: Any = SimpleNamespace(pgdata=lambda instance: tmp_path / instance)
    program = tmp_path / "pg_basebackup"
    shutil.copy(Path(sys.executable).resolve(), program)
    code = "import sys; print(flush=True); sys.stdin.read()"
    mine, other = (
        subprocess.Popen(
            [str(program), "-S", "-c", code, "-D", str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHOME": sys.base_prefix},
        )
        for name in ("a", "b")
    )
    with mine, other:
        assert mine.stdout
        assert other.stdout
        assert mine.stdout.readline() == other.stdout.readline() == b"\n"
        end_helpers(site, "a")
        assert mine.wait(5) == -9
        assert other.poll() is None
        other.kill()


def test_a_lock_file_is_removed_only_when_its_process_id_is_somebody_elses(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    clear_lock(tmp_path)
    lock.write_text("4194305\n")  # above the greatest pid of Linux
    clear_lock(tmp_path)
    assert lock.exists()
    lock.write_text(f"{os.getpid()}\n/data\n")
    clear_lock(tmp_path)
    assert not lock.exists()


def test_wal_is_found_in_a_folder_of_any_name(tmp_path: Path) -> None:
    wal = tmp_path / "it's 100 % mine"
    wal.mkdir()
    (wal / "000000010000000000000002").write_text("wal")
    line = recovery_settings(wal, 1, Stop()).splitlines()[0]
    command = line.removeprefix("restore_command = '").removesuffix("'").replace("''", "'")
    into = str(tmp_path / "into")
    # What PostgreSQL puts in for its placeholders (archive recovery, "restore_command").
    for placeholder, value in (("%f", "000000010000000000000002"), ("%p", into), ("%%", "%")):
        command = command.replace(placeholder, value)
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "into").read_text() == "wal"
