"""The archiver on real servers: killed, cut off from its store, led to a new primary, too late."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.infra import archive
from tests.infra.archive import ELSEWHERE, SLOT, World

pytestmark = pytest.mark.process

SLOTS = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}'"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One for all tests, in their order: each leaves an archiver that runs."""
    with archive.world(spool_bytes=64 << 20) as made:
        made.start()
        made.eventually("receiving", lambda: made.status().get("running"))
        yield made


def test_what_is_archived_is_what_the_server_has_byte_by_byte(world: World) -> None:
    first, second = world.switch(), world.switch()
    world.await_archived(second)
    found = world.archived()
    assert found[first] == world.on_server(first)
    assert found[second] == world.on_server(second)


def test_a_commit_is_on_the_archivers_disk_within_a_second_and_in_the_store_soon(
    world: World,
) -> None:
    position = world.write(100)
    world.await_received(position, seconds=5)
    world.eventually("age", lambda: (world.status()["ageSeconds"] or 9) < 3)
    world.eventually("uploaded", lambda: world.status()["uploaded"] >= position, seconds=30)
    (partial,) = (name for name in world.names() if name.endswith(".partial"))
    assert len(world.archived()[partial]) == 16 << 20


def test_a_killed_receiver_leaves_no_gap(world: World) -> None:
    former = world.status()["pid"]
    os.kill(former, signal.SIGKILL)
    position = world.write(1000)
    world.eventually("another receiver", lambda: world.status()["pid"] not in (None, former))
    world.await_received(position)
    assert world.status()["gap"] is None


def test_a_killed_archiver_goes_on_from_its_spool_and_ends_the_receiver_it_left(
    world: World,
) -> None:
    orphan = world.status()["pid"]
    world.kill()
    name, position = world.switch(), world.write(10)
    (world.spool / f"{name}.junk").write_bytes(b"left by somebody")
    world.start()
    world.eventually("another receiver", lambda: world.status().get("pid") not in (None, orphan))
    world.await_received(position)
    world.await_archived(name)
    assert world.archived()[name] == world.on_server(name)
    world.eventually("the orphan gone", lambda: not psutil.pid_exists(orphan))


def test_a_half_written_file_in_the_spool_is_received_again(world: World) -> None:
    world.kill(signal.SIGTERM)
    (partial,) = world.spool.glob("*.partial")
    os.truncate(partial, 12345)
    position = world.write(10)
    world.start()
    world.await_received(position)
    name = world.switch()
    world.await_archived(name)
    assert world.archived()[name] == world.on_server(name)
    assert world.status()["gap"] is None


def test_a_store_that_is_down_stops_nothing_and_is_caught_up_with(world: World) -> None:
    world.objects.stop()
    name = world.switch()
    position = world.write(10)
    world.await_received(position)
    world.eventually("waits", lambda: world.status()["spoolBytes"] >= 16 << 20)
    assert "upload" in world.status()["trouble"]
    world.objects.start()
    world.await_archived(name)
    assert world.archived()[name] == world.on_server(name)
    world.eventually("empty spool", lambda: world.status()["spoolBytes"] < 1 << 20)


def test_a_full_spool_lets_the_server_go_and_the_hole_is_recorded(world: World) -> None:
    world.objects.stop()
    for _ in range(5):
        world.switch()
    world.eventually("held", lambda: world.status()["held"])
    world.eventually("no slot", lambda: world.sql(SLOTS) == 0)
    for _ in range(11):
        world.switch()
    world.sql("CHECKPOINT")
    world.objects.start()
    world.eventually("a gap", lambda: world.status()["gap"], seconds=40)
    name = world.switch()
    world.await_archived(name)
    assert world.archived()[name] == world.on_server(name)
    gap = world.status()["gap"]
    assert gap["begin"] < gap["end"]
    world.kill()
    world.start()
    world.eventually("the gap remembered", lambda: world.status().get("gap") == gap)
    world.list_full(start=gap["end"] - 1)
    world.list_full(start=gap["end"])
    world.eventually("the gap closed", lambda: world.status()["gap"] is None, seconds=40)


def test_a_promoted_standby_is_followed_with_its_history(world: World) -> None:
    world.standby.clone(world.primary)
    world.standby.start()
    position = world.write(10)
    replayed = "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint"
    world.eventually("replayed", lambda: world.sql(replayed, world.standby) >= position)
    world.primary.stop()
    world.standby.promote()
    world.publish(world.standby)
    position = world.write(100, world.standby)
    world.await_received(position)
    name = world.switch(world.standby)
    world.await_archived(name)
    found = world.archived()
    assert found[name] == world.on_server(name, world.standby)
    history = "00000002.history"
    assert found[history] == world.on_server(history, world.standby)
    assert world.status()["timeline"] == 2


def test_a_database_that_comes_home_is_left_to_the_other_regions_archiver(world: World) -> None:
    world.publish(world.standby, home=ELSEWHERE)
    world.eventually("left alone", lambda: not world.status())
    world.eventually("no slot", lambda: world.sql(SLOTS, world.standby) == 0, seconds=45)
    assert world.sql(SLOTS, world.standby) == 0


def test_another_database_of_the_same_name_begins_anew(world: World) -> None:
    """A shard that was given up and made again has other WAL at the same positions."""
    world.kill()
    former = {path.name for path in world.spool.iterdir()}
    world.remake()
    position = world.write(10)
    world.start()
    world.eventually("its WAL", lambda: world.status().get("timeline") == 1)
    world.await_received(position)
    # What it remembers of the former one, a hole perhaps, it tells until it has asked the server.
    world.eventually("no hole", lambda: world.status()["gap"] is None)
    kept = {path.name for path in world.spool.iterdir()} - {"state.json", "receiver.pid"}
    assert not kept & former
    name = world.switch()
    world.await_archived(name)
    assert world.archived()[name] == world.on_server(name)
