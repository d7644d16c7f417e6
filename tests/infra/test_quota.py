"""A limit of processor time for each instance: held by the kernel, or refused."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.local import layout, ports, quota, services
from infra.local.layout import Layout
from infra.local.site import Site
from infra.topology import Topology, load, parse
from infra.topology_policies import ScalingPolicy
from runtime.errors import Invalid, Refused

TOPOLOGY = load("two-regions")
INSTANCE = "orders.us-east-1a"


def limited(cores: float) -> Topology:
    return replace(TOPOLOGY, scaling=ScalingPolicy(cpu_limits=(("orders", cores),)))


def site_of(topology: Topology, folder: Path) -> Site:
    paths = Layout(folder)
    table = ports.table(topology)
    return Site(topology, paths, table, layout.read_secrets(paths), None, Path("/nowhere"))


def possible() -> bool:
    try:
        quota.check(limited(0.25))
    except Refused:
        return False
    return True


def test_version_one_is_where_the_controller_cpu_is_mounted(tmp_path: Path) -> None:
    unified = tmp_path / "unified"
    unified.mkdir()
    mounts = [
        "proc /proc proc rw 0 0",
        f"cgroup2 {unified} cgroup2 rw,nosuid 0 0",
        f"cgroup {tmp_path}/cpuset cgroup rw,cpuset 0 0",
    ]
    assert quota.parent("\n".join(mounts)) is None
    (unified / "cgroup.subtree_control").write_text("memory pids\n")
    assert quota.parent("\n".join(mounts)) is None
    both = [*mounts, f"cgroup {tmp_path}/cpu cgroup rw,relatime,cpu,cpuacct 0 0"]
    assert quota.parent("\n".join(both)) == tmp_path / "cpu"
    (unified / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert quota.parent("\n".join(mounts)) == unified


def test_a_topology_says_which_service_has_how_much() -> None:
    text = (Path(__file__).parents[2] / "infra/topologies/two-regions.yaml").read_text()
    text = text.replace("coolSeconds: 300}", "coolSeconds: 300, cpuLimits: {orders: 0.25}}")
    policy = parse(text, "mine.yaml").scaling
    assert (policy.cpu_limit("orders"), policy.cpu_limit("users")) == (0.25, 1.0)


def test_without_a_limit_nothing_is_asked_of_the_kernel(tmp_path: Path) -> None:
    quota.check(TOPOLOGY)
    for limits, instance in ((TOPOLOGY, INSTANCE), (limited(0.1), "users.us-east-1a")):
        site = site_of(limits, tmp_path)
        quota.prepare(site, instance)
        assert quota.held(site, instance, ("program", "argument")) == ("program", "argument")
        assert services.program(site, instance).command[0] == sys.executable


def test_on_aws_it_is_the_size_of_a_task() -> None:
    text = (Path(__file__).parents[2] / "infra/topologies/aws-two-regions.yaml").read_text()
    with pytest.raises(Invalid, match=r"aws\.services"):
        parse(text + "\nscaling: {cpuLimits: {orders: 0.5}}\n", "mine.yaml")


@pytest.mark.parametrize("cores", [0.01, 1.5])
def test_a_limit_that_no_kernel_can_hold_is_refused(cores: float) -> None:
    text = (Path(__file__).parents[2] / "infra/topologies/two-regions.yaml").read_text()
    text = text.replace("coolSeconds: 300}", f"coolSeconds: 300, cpuLimits: {{orders: {cores}}}}}")
    with pytest.raises(Invalid, match="cpuLimits"):
        parse(text, "mine.yaml")


@pytest.mark.process
@pytest.mark.skipif(not possible(), reason="needs root, and cgroups with the controller cpu")
def test_an_instance_has_the_share_that_it_is_given_and_no_more(tmp_path: Path) -> None:
    site = site_of(limited(0.1), tmp_path)
    quota.prepare(site, INSTANCE)
    busy = (sys.executable, "-c", "print(flush=True)\nwhile True: pass")
    command = quota.held(site, INSTANCE, busy)
    assert services.program(site, INSTANCE).command[: len(command) - len(busy)] == command[:-3]
    group = Path(command[3]).parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            started.stdout.readline()
            process = psutil.Process(started.pid)
            assert process.cmdline() == list(busy)
            assert not throttled(group)  # it starts with all that it needs
            quota.hold(site, [INSTANCE])
            quota.prepare(site, INSTANCE)  # that it is asked for again gives it no more
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                started.wait(1.5)
            used = sum(process.cpu_times()[:2]) - before
            assert 0 < used <= 0.15 * (time.monotonic() - began)
            assert throttled(group)
        finally:
            started.kill()
    quota.forget(site, [INSTANCE])
    assert not group.exists()
    quota.prepare(site, INSTANCE)
    quota.sweep(tmp_path / "another")
    assert group.exists()
    quota.sweep(tmp_path)
    assert not group.exists()


def throttled(group: Path) -> int:
    """In how many periods the group had used up its quota."""
    said = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(said.get("nr_throttled", 0))
