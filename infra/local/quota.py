"""At most so much of a processor for each instance of a service, held by the kernel (cgroups).

The topology's `scaling.cpuLimits` are what the size of a task is on AWS: what one instance can do
at most, so that more instances can do more before the machine is full. An instance's process joins
a group of its own before it becomes the service, so that a restart by the supervisor is held to it
too. One that is started on purpose has a whole core until it is well: to start takes a second of a
core, which would be half a minute of a small share.

Both versions of cgroups are known: a quota of processor time in each period
(kernel.org, "CFS Bandwidth Control" and "Control Group v2", cpu.max). Groups can be made by root.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from infra.local.site import Site
from infra.topology import Topology
from runtime.errors import Refused

# Short, so that who has used its share waits for some milliseconds and not for a tenth of a second.
# What it leaves of a period it may use in the next one, where the kernel knows that (Linux 5.14).
PERIOD_MICROSECONDS = 20_000
MOUNTS = Path("/proc/mounts")
JOIN = 'echo $$ > "$0" && exec "$@"'


def check(topology: Topology) -> None:
    """Raises `Refused` where the topology has a limit that this machine does not let us hold."""
    if topology.scaling.cpu_limits:
        _parent()


def prepare(site: Site, instance: str) -> None:
    """The instance is about to be started: its group is there. While nobody is in it, it holds
    nobody back."""
    if _limit(site, instance) < 1:
        group = _group(site, instance)
        try:
            group.mkdir(exist_ok=True)
            if not (group / "cgroup.procs").read_text():
                _write(group, None)
        except OSError as error:
            raise _refused(str(error)) from error


def hold(site: Site, instances: Iterable[str]) -> None:
    """From now on they have no more than their limit."""
    for instance in instances:
        if site.spec(instance).kind == "service" and (cores := _limit(site, instance)) < 1:
            try:
                _write(_group(site, instance), round(cores * PERIOD_MICROSECONDS))
            except OSError as error:
                raise _refused(str(error)) from error


def _write(group: Path, quota: int | None) -> None:
    """Microseconds of each period; None: all of it."""
    if (group / "cpu.max").exists():
        burst = group / "cpu.max.burst"
        (group / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_MICROSECONDS}")
    else:
        burst = group / "cpu.cfs_burst_us"
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
        (group / "cpu.cfs_quota_us").write_text(str(quota or -1))
    if quota and burst.exists():
        burst.write_text(str(quota))


def held(site: Site, instance: str, command: tuple[str, ...]) -> tuple[str, ...]:
    """The command that runs as a member of the instance's group, under the same process id."""
    if _limit(site, instance) >= 1:
        return command
    return ("/bin/sh", "-c", JOIN, str(_group(site, instance) / "cgroup.procs"), *command)


def forget(site: Site, instances: Iterable[str]) -> None:
    """The groups of instances that have ended are gone; one with a process in it stays."""
    if site.topology.scaling.cpu_limits:
        for instance in instances:
            with contextlib.suppress(OSError, Refused):
                _group(site, instance).rmdir()


def sweep(root: Path) -> None:
    """No process of the platform in the state directory `root` runs any more: no group stays."""
    with contextlib.suppress(Refused):
        for group in _parent().glob(f"{_prefix(root)}*"):
            with contextlib.suppress(OSError):
                group.rmdir()


def _limit(site: Site, instance: str) -> float:
    return site.topology.scaling.cpu_limit(site.spec(instance).component)


def _group(site: Site, instance: str) -> Path:
    return _parent() / f"{_prefix(site.layout.root)}{instance}"


def _prefix(root: Path) -> str:
    """Another one for each platform on this machine."""
    return f"regionctl-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}-"


def _parent() -> Path:
    """The folder in which groups with a share of processor time can be made."""
    found = parent(MOUNTS.read_text(encoding="utf-8"))
    if found is None:
        raise _refused("no hierarchy of cgroups has the controller cpu")
    if not os.access(found, os.W_OK):
        raise _refused(f"{found} cannot be written")
    return found


def parent(mounts: str) -> Path | None:
    """By the text of /proc/mounts: where version 1 has the controller cpu, else where version 2
    gives it to the groups below its root."""
    for line in mounts.splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(where)
        if kind == "cgroup2":
            with contextlib.suppress(OSError):
                if "cpu" in (Path(where) / "cgroup.subtree_control").read_text().split():
                    return Path(where)
    return None


def _refused(why: str) -> Refused:
    return Refused(
        f"scaling.cpuLimits: this machine does not let regionctl limit processor time: {why}.",
        hint="Run as root where cgroups have the controller cpu, or leave cpuLimits away.",
    )
