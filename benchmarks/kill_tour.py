"""Every process of a platform is killed (-9) once in turn while customers shop: is anything lost?

    python benchmarks/kill_tour.py [--customers N] [--only PREFIX ...]

`make kills` runs it. The platform is its own and is removed at the end. Exit 1 unless every visit
went well, every acknowledged order is there and settled, and all invariants hold.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane_kills import call, command
from regionctl_peer import free_offset

from infra.local import leftovers
from tests.system.session import Platform
from tests.system.tour import Crowd, Plane, Reckoning, Tour, reckoning


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--customers", type=int, default=2)
    arguments.add_argument("--only", nargs="*", default=[""], help="kill what begins like this")
    arguments.add_argument("--state-dir", type=Path, help="a platform that is up, and stays")
    asked = arguments.parse_args()
    if asked.state_dir:
        return tour(asked.state_dir, asked)
    with own_platform("tour") as state:
        return tour(state, asked)


@contextmanager
def own_platform(name: str) -> Iterator[Path]:
    """The state directory of a platform that is up, and gone afterwards, also when interrupted."""
    state = Path(tempfile.mkdtemp(prefix=f"regionctl-{name}-", dir="/var/tmp"))
    state.chmod(0o755)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        call(console(state), "up", "--port-offset", str(free_offset()))
        yield state
    finally:
        try:
            down = ("down", "--delete-data", "--confirm", "two-regions")
            subprocess.run(command(console(state), *down), stdin=subprocess.DEVNULL, timeout=300)
        finally:
            leftovers.end(state)
            shutil.rmtree(state, ignore_errors=True)


def tour(state: Path, asked: argparse.Namespace) -> int:
    began = time.monotonic()
    plane = Plane(address(state), state)
    tour = Tour(plane, lambda: up(state), lambda line: print(line, flush=True))
    platform = Platform.of(tour.whole(), state)
    with Crowd(platform, asked.customers) as crowd:
        tour.visit(id for id in tour.targets() if id.startswith(tuple(asked.only)))
    found = reckoning(platform, plane, crowd.orders)
    times = sorted(tour.seconds.values())
    print(
        f"{len(times)} processes killed in {time.monotonic() - began:.0f} s; back after "
        f"p50 {statistics.median(times):.1f} s, max {times[-1]:.1f} s"
    )
    return told(crowd, found)


def told(crowd: Crowd, found: Reckoning) -> int:
    """Prints what came of it; the exit code."""
    print(
        f"{crowd.sessions} visits went well, {len(crowd.failures)} did not; "
        f"{crowd.retries} requests were sent again\n"
        f"{len(crowd.orders)} orders acknowledged, {len(found.lost)} lost, {len(found.astray)} "
        f"with another owner, {len(found.doubled)} doubled, {len(found.unsettled)} not settled; "
        f"broken invariants: {len(found.broken)}"
    )
    for line in (*crowd.failures, *found.unsettled, *found.broken):
        print(line, file=sys.stderr)
    return 0 if found.good and not crowd.failures and crowd.sessions else 1


def up(state: Path) -> None:
    done = subprocess.run(command(console(state), "up"), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"regionctl up ended with exit code {done.returncode}:\n{done.stderr}")


def console(state: Path) -> list[str]:
    return [str(Path(sys.executable).with_name("regionctl")), "--state-dir", str(state)]


def address(state: Path) -> str:
    """The control plane of the platform in `state`."""
    from cli import find

    return find.platform(state).address


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    raise SystemExit(main())
