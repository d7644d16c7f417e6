"""A whole shard is lost under live orders and comes back from its backup: what is missing then?

    python benchmarks/shard_loss.py [--repeat N] [--rate N] [--state-dir DIR]

Primary, standby and replica are killed (-9) together and their data directories removed. Then
`regionctl backup restore SHARD --to in-place` brings back everything that was archived: a section
of benchmarks/RESULTS.md. Exit 1 unless orders are taken again, at most a second of them is missing
(RPO), none is doubled and every invariant holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import results
from control_plane_kills import call, command
from failover import versions
from kill_tour import address, console, own_platform

from control_plane import ledger
from control_plane.ledger import CREATE_ORDER, Ledger
from infra.local import faults
from infra.local.layout import Layout
from tests.system.session import instances
from tests.system.tour import Plane, Tour, broken

JSON = dict[str, Any]
TITLE = "The loss of a whole shard"
SHARD = "s1"
RPO_SECONDS = 1.0
HOLD_SECONDS = 5.0
RECOVERY_SECONDS = 300.0
# A `.partial` segment goes to the object storage every ten seconds: any phase of that may be hit.
PHASE_SECONDS = (3.0, 15.0)


@dataclass(frozen=True)
class Fault:
    """When the kills began and the last process was gone (CLOCK_MONOTONIC, seconds), up to where
    the object storage had the WAL then, and which nodes were lost."""

    began: float
    effective: float
    uploaded: int
    nodes: Sequence[str]


@dataclass(frozen=True)
class Round:
    """`rpo` is 0 when nothing is missing; `beyond`: bytes of WAL that the restored shard has and
    the object storage had not when the shard was lost. Times are seconds, `rto` from the kills."""

    acknowledged: int
    lost: int
    rpo: float
    rto: float
    restore: float
    beyond: int
    whole: float
    wrong: Sequence[str]

    @property
    def good(self) -> bool:
        return self.rpo <= RPO_SECONDS and not self.wrong


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--rate", type=float, default=30.0, help="requests a second")
    arguments.add_argument("--state-dir", type=Path, help="a platform that is up; nothing written")
    asked = arguments.parse_args()
    if asked.state_dir:
        rounds = [round(asked.state_dir, n, asked.rate) for n in range(asked.repeat)]
        print(document(rounds, asked.rate))
    else:
        with own_platform("loss") as state:
            rounds = [round(state, n, asked.rate) for n in range(asked.repeat)]
        print(document(rounds, asked.rate))
        results.replace(TITLE, document(rounds, asked.rate))
    return 0 if all(each.good for each in rounds) else 1


def round(state: Path, number: int, rate: float) -> Round:
    plane = Plane(address(state), state)
    tour = Tour(plane, lambda: None)
    tour.whole()
    call(console(state), "backup", "create", SHARD, "--kind", "full", "-o", "name")
    folder = state / "drills" / f"shard-loss-{time.time_ns()}"
    folder.mkdir(parents=True)
    with probe(state, folder, rate):
        time.sleep(random.uniform(*PHASE_SECONDS))  # nosec B311: not for secrets
        fault = lose(state, plane)
        (folder / "fault.json").write_text(json.dumps(asdict(fault)))
        say(number, f"lost {', '.join(fault.nodes)}")
        began = time.monotonic()
        reached = restore(state)
        restored = time.monotonic() - began
        say(number, f"restored within {restored:.1f} s")
        rto = await_orders(folder, fault)
        say(number, f"orders again after {rto:.1f} s")
        tour.whole()
        whole = time.monotonic() - fault.began
    found, missing = reckon(state, folder, fault)
    wrong = [*found, *broken(plane)]
    for line in wrong:
        print(line, file=sys.stderr)
    beyond = reached - fault.uploaded
    known = ledger.counts(read(folder)).writes.acknowledged
    rpo = max(0.0, missing.seconds or 0.0)
    say(number, f"{missing.count} of {known} writes missing, RPO {rpo:.3f} s")
    return Round(known, missing.count, rpo, rto, restored, beyond, whole, wrong)


def say(number: int, line: str) -> None:
    print(f"round {number + 1}: {line}", file=sys.stderr, flush=True)


@contextmanager
def probe(state: Path, folder: Path, rate: float) -> Iterator[None]:
    """Meanwhile customers order, in an open loop; everything is in `folder`/journal.jsonl."""
    files = ["--journal", str(folder / "journal.jsonl"), "--stop", str(folder / "stop")]
    words = [*client(state), *files, "--rate", str(rate), "--users", "64"]
    started = subprocess.Popen([sys.executable, "-m", "loadtests.probe", *words])
    try:
        await_ready(folder / "journal.jsonl", started)
        yield
    finally:
        (folder / "stop").touch()
        started.wait(60)


def client(state: Path) -> list[str]:
    paths = Layout(state)
    status = Plane(address(state), state).status()
    assert status is not None
    where = ["--url", status["entryUrl"], "--ca", str(paths.ca / "ca.pem")]
    return [*where, "--client", str(paths.client("probe"))]


def await_ready(journal: Path, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not journal.exists() or '"line": "ready"' not in journal.read_text():
        if started.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the probe could not begin")
        time.sleep(0.1)


def lose(state: Path, plane: Plane) -> Fault:
    """All nodes of the shard are killed together, and nothing is left of their data."""
    status = plane.status()
    assert status is not None
    shard = next(each for each in status["shards"] if each["name"] == SHARD)
    nodes = [shard["primary"], *(standby["id"] for standby in shard["standbys"])]
    pids = [int(instances(status)[node]["pid"]) for node in nodes]
    regions = {
        each["id"]: region["name"] for region in status["regions"] for each in region["instances"]
    }
    stored = uploaded(plane)
    began = time.monotonic()
    faults.kill_tree(pids)
    effective = time.monotonic()
    for node in nodes:
        shutil.rmtree(Layout(state).data(regions[node], node))
    return Fault(began, effective, stored, nodes)


def uploaded(plane: Plane) -> int:
    """Up to where the object storage has the shard's WAL."""
    archives: Any = plane.get("/v1/archives")
    return next(int(each["uploaded"] or 0) for each in archives if each["database"] == SHARD)


def restore(state: Path) -> int:
    """As an operator types it, right after the loss. The position that the shard came back to."""
    words = ["backup", "restore", SHARD, "--to", "in-place", "--confirm", SHARD, "-o", "json"]
    done = subprocess.run(
        command(console(state), *words, "--reason", "the whole shard is lost"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"the restore ended with exit code {done.returncode}:\n{done.stderr}")
    steps = json.loads(done.stdout)["steps"]
    return next(int(each["result"]["lsn"]) for each in steps if each["name"] == "restore-into")


def read(folder: Path) -> Ledger:
    with (folder / "journal.jsonl").open() as lines:
        return ledger.parse(list(lines))


def await_orders(folder: Path, fault: Fault) -> float:
    """Seconds from the kills until orders of the shard's users are taken again, by the rules of
    the drills."""
    deadline = fault.began + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        found = ledger.rto(
            read(folder),
            [SHARD],
            began=fault.began,
            effective=fault.effective,
            hold_seconds=HOLD_SECONDS,
        )[CREATE_ORDER]
        if found is not None:
            return found
        time.sleep(1.0)
    raise SystemExit(f"no orders of {SHARD} within {RECOVERY_SECONDS:g} s")


def reckon(state: Path, folder: Path, fault: Fault) -> tuple[list[str], ledger.Loss]:
    """Every acknowledged write is looked for as a client; what is wrong beside the loss."""
    files = ["--journal", str(folder / "journal.jsonl"), "--out", str(folder / "readback.json")]
    words = [sys.executable, "-m", "loadtests.readback", *client(state), *files]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    found = json.loads((folder / "readback.json").read_text())
    missing = ledger.loss(read(folder), found, until=fault.effective)
    wrong = [f"wrong: {each}" for each in found["wrong"]]
    wrong += [f"doubled: {each}" for each in found["duplicates"]]
    wrong += [f"not answered: {each}" for each in found["unanswered"]]
    return wrong, missing


def document(rounds: Sequence[Round], rate: float) -> str:
    lines = [
        "| round | acknowledged | missing | RPO s | beyond the storage, bytes of WAL | restore s "
        "| orders again s | redundant again s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, each in enumerate(rounds, start=1):
        lines.append(
            f"| {number} | {each.acknowledged} | {each.lost} | {each.rpo:.3f} | {each.beyond} "
            f"| {each.restore:.1f} | {each.rto:.1f} | {each.whole:.1f} |"
        )
    worst = max(each.rpo for each in rounds)
    table = "\n".join(lines)
    return f"""\
Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {rate:g} requests a second, of which most
are orders, on two shards.

{table}

RPO: {worst:.3f} s at worst (bar: {RPO_SECONDS:g} s). Duplicates, wrong rows, broken invariants:
{sum(len(each.wrong) for each in rounds)}.

## Method

{METHOD}

{versions()}
"""


METHOD = """\
The drills' probe orders through the edge, in an open loop, and journals each acknowledgement. At a
random moment the primary, the standby and the replica of one shard are killed (-9) and their data
directories removed, so that only the other region's archive is left: backups and WAL in its object
storage, and what its archiver had received and not uploaded yet (*beyond the storage*: so much WAL
came from there). `regionctl backup restore s1 --to in-place` follows at once. Every write that was
ever acknowledged is then looked for. *RPO* is the age, at the loss, of the oldest one that is
missing; *restore* is the command's own time, replicas included; *orders again* and *redundant
again* are timed from the kills."""


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    raise SystemExit(main())
