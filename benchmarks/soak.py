"""Reshards, failovers, kills and backups in random order while customers shop: is anything lost?

    python benchmarks/soak.py [--seed N] [--seconds N] [--customers N]

`make soak` runs it for ten minutes. The platform is its own and is removed at the end. The seed is
printed first: it brings the same disturbances again. Exit 1 unless every visit went well, every
acknowledged order is there and settled, and all invariants hold.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

from kill_tour import address, own_platform, told

from tests.system.session import Platform, SessionFailed
from tests.system.soak import Soak
from tests.system.tour import Crowd, Plane, reckoning


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=random.randrange(10_000))  # nosec B311
    arguments.add_argument("--seconds", type=float, default=600.0)
    arguments.add_argument("--customers", type=int, default=2)
    asked = arguments.parse_args()
    try:
        with own_platform("soak") as state:
            return soak(state, asked)
    except SessionFailed as failure:
        print(f"{failure}\nmake soak SEED={asked.seed} repeats it", file=sys.stderr)
        return 1


def soak(state: Path, asked: argparse.Namespace) -> int:
    began = time.monotonic()
    print(f"seed {asked.seed}", flush=True)
    plane = Plane(address(state), state)

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    run = Soak(plane, tell)
    platform = Platform.of(run.whole(), state)
    with Crowd(platform, asked.customers) as crowd:
        run.run(asked.seed, asked.seconds)
    found = reckoning(platform, plane, crowd.orders)
    print(
        f"{time.monotonic() - began:.0f} s, {len(run.disturbed)} disturbances, {len(run.resumed)} "
        f"operations resumed by hand, seed {asked.seed}"
    )
    return told(crowd, found)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    raise SystemExit(main())
