"""A spike of load on a platform that scales by itself: do instances come and go, and does it help?

    python benchmarks/autoscale.py [--control] [--cores C] [--cpu P] [--hold S] [--cool S]
                                   [--times T | --rate-scale X] [--seconds S] [--mix refresh=1]
                                   [--service orders] [--target-ms 100] [--json FILE]

The platform is its own and is removed at the end. Each instance of the service may use `--cores` of
a processor (`scaling.cpuLimits`, a quota of the kernel's; root), as a task on AWS has its size: on
one machine that has to do everything, instances and not the machine are then what is short. The
load is the profile `spike` of `loadtests` (open model: time counts from when a request was intended
to start; that the generator was late counts too), whose customers all reload the page of their
orders. How many come is measured first: in the spike `--times` as many as one instance in each zone
can serve, by what a request costs it here and now. That is measured at a low rate, where a request
costs more than in a spike, by a fifth to a half: 1.6 times is a little more than it can serve.

Prints a line every few seconds, then what came of it: p99 of the spike's first half and of its
second half, and how busy the machine was in the spike. Exit 1 unless instances grew and shrank, no
request failed, and p99 in the spike's second half is within the target; 2 when the load generator
could not be trusted. `--control` is the same with `scaling.automatic` off: exit 1 unless the target
is missed, for then something else than scaling keeps it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
from control_plane_kills import call, command
from kill_tour import address
from regionctl_peer import free_offset

from infra.local import leftovers
from infra.topology import BUILT_IN
from loadtests import profiles
from loadtests.arrivals import STEADY, WARM_UP, Plan, Segment, phases
from tests.system.tour import Plane

EVERY_SECONDS = 5.0
HEAD = ("time", "instances", "used", "rate/s", "p99 ms", "failed", "machine")
JSON = dict[str, Any]
NOTHING = {"t": 0, "started": 0, "ok": 0, "errors": 0}
CALIBRATION_RATE, CALIBRATION_SECONDS = 40.0, 32.0


@dataclass(frozen=True)
class Row:
    """`seconds` since the load began; of `service` in all zones that serve: `instances` that run
    and the share of its cores (percent) that each uses. `rate` (requests a second), `p99_ms`,
    `failed` and how busy all processors were (`machine`, percent) are of the seconds since the row
    before; None: no request ended in them."""

    seconds: float
    instances: int
    used: float | None
    rate: float
    p99_ms: float | None
    failed: int
    machine: float = 0.0


@dataclass
class Told:
    """What the load program has said: one document for each second, whose counts are sums."""

    seconds: list[JSON] = field(default_factory=list)
    began: float | None = None

    def follow(self, program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        for text in program.stdout:
            line: JSON = json.loads(text)
            if line.get("stage") == "started":
                self.began = time.monotonic()
            if "t" in line:
                self.seconds.append(line)


def main() -> int:
    asked = options()
    with own_platform(asked) as state:
        plane = Plane(address(state), state)
        status = plane.status()
        assert status is not None
        if asked.rate_scale is None:
            asked.rate_scale = rate_scale(plane, status["entryUrl"], state, asked)
        plan = plan_of(asked)
        out = Path(tempfile.mkdtemp(prefix="load-", dir=state))
        told = Told()
        load = begin(status["entryUrl"], state, out, plan, asked, told)
        rows = list(watch(plane, told, load, asked))
        operations: list[JSON] = plane.http.get("/v1/operations?limit=1000").json()
        run: JSON = json.loads((out / "run.json").read_text())
        if not rows or not (out / "samples.csv").exists():
            print("nothing was measured: " + "; ".join(run["validity"]["because"]))
            return 2
        found = outcome(rows, run, out / "samples.csv", plan, asked)
        found["operations"] = [
            {"target": each["target"], "state": each["state"], "reason": each["reason"]}
            for each in operations
            if each["kind"] == "scale"
        ]
    show(found, asked)
    if asked.json:
        document = {**found, "rows": [asdict(row) for row in rows], "asked": vars(asked)}
        asked.json.write_text(json.dumps(document, indent=1, default=str) + "\n")
    if not found["valid"] and not asked.control:
        return 2
    return 0 if found["passed"] else 1


def plan_of(asked: argparse.Namespace) -> Plan:
    """The profile `spike` with a mix of its own, and as many users as that needs."""
    plan = profiles.named("spike", asked.rate_scale, asked.seconds, asked.seed)
    parts = (each.split("=") for each in asked.mix.split(","))
    mix = {journey: float(weight) for journey, weight in parts}
    return replace(plan, mix=mix, skew=0.0, users=profiles.users_for(plan.peak, mix, 0.0))


def rate_scale(plane: Plane, url: str, state: Path, asked: argparse.Namespace) -> float:
    """By how much the profile's rates are multiplied, so that its spike is `--times` what one
    instance in each zone bears: from what they use at rest, and at a constant rate."""
    time.sleep(2 * EVERY_SECONDS)  # what has just begun still warms up
    rest = used(plane, asked, 2)
    spike = plan_of(argparse.Namespace(**{**vars(asked), "rate_scale": 1.0}))
    constant = Segment("constant", CALIBRATION_RATE, CALIBRATION_RATE, CALIBRATION_SECONDS)
    warm = phases([(WARM_UP, 1.0), (STEADY, CALIBRATION_SECONDS)])
    plan = replace(spike, segments=(constant,), phases=warm, users=64)
    out = Path(tempfile.mkdtemp(prefix="load-", dir=state))
    told = Told()
    load = begin(url, state, out, plan, asked, told)
    while told.began is None and load.poll() is None:
        time.sleep(0.1)
    time.sleep(2 * EVERY_SECONDS)
    first = told.seconds[-1] if told.seconds else NOTHING
    busy = used(plane, asked, 3)
    last = told.seconds[-1] if told.seconds else NOTHING
    load.wait()
    rate = (last["started"] - first["started"]) / max(1, last["t"] - first["t"])
    if busy <= rest or not rate:
        raise SystemExit("no load could be made before the spike: see load-*/locust.log")
    zones = len(mine_of(plane, asked))
    each = (busy - rest) * zones / rate
    most = (100 - rest) / each * zones
    print(
        f"{asked.service}: {rest:.0f} % of {asked.cores:g} cores at rest, {busy:.0f} % with "
        f"{rate:.0f} arrivals/s; one instance in each zone bears {most:.0f}/s"
    )
    return float(asked.times * most / spike.peak)


def used(plane: Plane, asked: argparse.Namespace, looks: int) -> float:
    """Mean of what the service's instances used (percent of their share) in the next looks."""
    found: list[float] = []
    for _ in range(looks):
        time.sleep(EVERY_SECONDS)
        found += [each["usedPercent"] for each in mine_of(plane, asked) if each["usedPercent"]]
    return mean(found)


def mine_of(plane: Plane, asked: argparse.Namespace) -> list[JSON]:
    """The service in each zone that serves."""
    scaling = plane.get("/v1/scaling") or {"items": []}
    return [
        each
        for each in scaling["items"]
        if each["service"] == asked.service and each["zone"].startswith("us-east-1")
    ]


def begin(
    url: str, state: Path, out: Path, plan: Plan, asked: argparse.Namespace, told: Told
) -> subprocess.Popen[str]:
    """The load program, which tells what it does on its stdout."""
    (out / "plan.json").write_text(json.dumps(plan.document()))
    command = load_command(url, state, out, asked)
    load = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    threading.Thread(target=told.follow, args=(load,), daemon=True).start()
    return load


def options() -> argparse.Namespace:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--control", action="store_true", help="without scaling")
    made.add_argument("--rate-scale", type=float, help="of the profile; default: by --times")
    made.add_argument("--times", type=float, default=1.6, help="what one instance per zone bears")
    made.add_argument("--mix", default="refresh=1", help="journeys and their weights")
    made.add_argument("--cores", type=float, default=0.07, help="cpuLimits of the service")
    made.add_argument(
        "--lag-limit-ms", type=float, default=25.0, help="by how much the generator may be late"
    )
    made.add_argument("--seconds", type=float, default=500.0, help="the whole profile")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--cpu", type=float, default=70.0, help="cpuPercent of the topology")
    made.add_argument("--hold", type=float, default=5.0, help="holdSeconds")
    made.add_argument("--cool", type=float, default=60.0, help="coolSeconds")
    made.add_argument("--most", type=int, default=4, help="maxInstances")
    made.add_argument("--service", default="orders")
    made.add_argument("--target-ms", type=float, default=100.0)
    made.add_argument("--port-offset", type=int, help="of the platform; default: a free one")
    made.add_argument("--json", type=Path, help="where all of it goes")
    return made.parse_args()


@contextmanager
def own_platform(asked: argparse.Namespace) -> Iterator[Path]:
    """A platform with the scaling that is asked for; gone afterwards, also when interrupted."""
    state = Path(tempfile.mkdtemp(prefix="regionctl-scale-", dir="/var/tmp"))
    state.chmod(0o755)
    topology = Path(tempfile.mkdtemp()) / "two-regions.yaml"
    scaling = (
        f"scaling: {{automatic: {'false' if asked.control else 'true'}, "
        f"maxInstances: {asked.most}, cpuPercent: {asked.cpu:g}, "
        f"idlePercent: {min(40.0, asked.cpu / 2):g}, holdSeconds: {asked.hold:g}, "
        f"coolSeconds: {asked.cool:g}, cpuLimits: {{{asked.service}: {asked.cores:g}}}}}"
    )
    text = (BUILT_IN / "two-regions.yaml").read_text()
    topology.write_text(re.sub(r"(?m)^scaling: \{[^}]*\}", scaling, text))
    console = [str(Path(sys.executable).with_name("regionctl")), "--state-dir", str(state)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        offset = free_offset() if asked.port_offset is None else asked.port_offset
        where = ("--topology", str(topology), "--port-offset", str(offset))
        call(console, "up", *where)
        print(scaling, file=sys.stderr)
        yield state
    finally:
        try:
            down = ("down", "--delete-data", "--confirm", "two-regions")
            subprocess.run(command(console, *down), stdin=subprocess.DEVNULL, timeout=300)
        finally:
            leftovers.end(state)
            shutil.rmtree(state, ignore_errors=True)
            shutil.rmtree(topology.parent, ignore_errors=True)


def load_command(url: str, state: Path, out: Path, asked: argparse.Namespace) -> list[str]:
    return [
        *(sys.executable, "-m", "loadtests.run", "--plan", str(out / "plan.json"), "--raw"),
        *("--lag-limit-ms", str(asked.lag_limit_ms), "--url", url, "--out", str(out)),
        *("--ca", str(state / "ca" / "ca.pem")),
        *("--client", str(state / "control" / "clients" / "probe.json")),
    ]


def watch(
    plane: Plane, told: Told, load: subprocess.Popen[str], asked: argparse.Namespace
) -> Iterator[Row]:
    """A row every few seconds, printed too, until the load has ended and instances are few again,
    or should be: each step down takes `--cool` seconds, and there may be several."""
    print(("{:>10}" * len(HEAD)).format(*HEAD))
    seen, ended, instances = 0, 0.0, 0
    patience = asked.most * (asked.cool + 30.0)
    zones = 0
    while not ended or (instances > zones and time.monotonic() < ended + patience):
        time.sleep(EVERY_SECONDS)
        if load.poll() is not None and not ended:
            ended = time.monotonic()
        if told.began is None:
            continue
        mine = mine_of(plane, asked)
        if not mine:
            continue
        zones, instances = len(mine), sum(each["running"] for each in mine)
        known = [each["usedPercent"] for each in mine if each["usedPercent"] is not None]
        fresh = told.seconds[max(0, seen - 1) :]
        seen = len(told.seconds)
        row = row_of(time.monotonic() - told.began, instances, known, fresh)
        row = replace(row, machine=psutil.cpu_percent())
        print_row(row)
        yield row


def row_of(seconds: float, instances: int, known: list[float], fresh: list[JSON]) -> Row:
    """`fresh`: the last that the load program had said at the row before, and what it said since.
    Of its p99s the worst counts."""
    late = [each["p99Ms"] for each in fresh[1:] if each["p99Ms"] is not None]
    first, last = (fresh[0], fresh[-1]) if fresh else (NOTHING, NOTHING)
    ended = sum(last[name] - first[name] for name in ("ok", "errors"))
    return Row(
        seconds=round(seconds, 1),
        instances=instances,
        used=mean(known) if known else None,
        rate=ended / max(1, last["t"] - first["t"]),
        p99_ms=max(late) if late else None,
        failed=last["errors"] - first["errors"],
    )


def print_row(row: Row) -> None:
    cells = (
        f"{row.seconds:.0f} s",
        f"{row.instances}",
        "-" if row.used is None else f"{row.used:.0f} %",
        f"{row.rate:.0f}",
        "-" if row.p99_ms is None else f"{row.p99_ms:.0f}",
        f"{row.failed}",
        f"{row.machine:.0f} %",
    )
    print(("{:>10}" * len(cells)).format(*cells), flush=True)


def outcome(
    rows: list[Row], run: JSON, samples: Path, plan: Plan, asked: argparse.Namespace
) -> JSON:
    counts = [row.instances for row in rows]
    start = sum(each.seconds for each in plan.segments[:1])
    end = start + plan.segments[1].seconds
    latencies = read(samples)
    second_half = p99(latencies, (start + end) / 2, end)
    failed = sum(each["errors"] for each in run["endpoints"])
    found = {
        "arrivals": run["offered"]["started"],
        "requests": len(latencies),
        "failed": failed,
        "instances": {"first": counts[0], "most": max(counts), "last": counts[-1]},
        "spikeP99Ms": {
            "firstHalf": p99(latencies, start, (start + end) / 2),
            "secondHalf": second_half,
        },
        "machinePercent": mean([row.machine for row in rows if start <= row.seconds < end]),
        "targetMs": asked.target_ms,
        "errors": run["errors"],
        "generator": run["generator"],
        "valid": run["validity"]["valid"],
        "because": run["validity"]["because"],
    }
    grew, shrank = max(counts) > counts[0], counts[-1] < max(counts)
    met = second_half is not None and second_half <= asked.target_ms and not failed
    passed = not (met or grew) if asked.control else met and grew and shrank
    return {**found, "grew": grew, "shrank": shrank, "passed": passed}


def read(samples: Path) -> list[tuple[float, float]]:
    """(intended start in seconds, milliseconds from then to the end) of every request, in the
    order of the starts; those that failed took as long as they took."""
    with samples.open(encoding="utf-8", newline="") as file:
        rows = [
            (int(row["intendedNs"]) / 1e9, (int(row["endNs"]) - int(row["intendedNs"])) / 1e6)
            for row in csv.DictReader(file)
        ]
    return sorted(rows)


def p99(latencies: list[tuple[float, float]], begin: float, end: float) -> float | None:
    """Of the requests intended in this time (seconds), by nearest rank; None: there were none."""
    found = sorted(took for at, took in latencies if begin <= at < end)
    return found[math.ceil(0.99 * len(found)) - 1] if found else None


def show(found: JSON, asked: argparse.Namespace) -> None:
    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f} ms"

    counts, spike = found["instances"], found["spikeP99Ms"]
    for each in reversed(found["operations"]):
        print(f"scale {each['target']}: {each['state']}: {each['reason']}")
    print(
        f"{asked.service}: {counts['first']} instances, {counts['most']} at most, "
        f"{counts['last']} at the end; {found['requests']} requests, {found['failed']} failed\n"
        f"p99 in the spike's first half {ms(spike['firstHalf'])}, in its second half "
        f"{ms(spike['secondHalf'])}, target {asked.target_ms:g} ms; the machine's processors were "
        f"{found['machinePercent']:.0f} % busy, the generator at most "
        f"{found['generator']['lagP99Ms']:.1f} ms late (p99)"
    )
    for each in found["errors"]:
        print(f"error: {each['endpoint']}: {each['kind']}, {each['count']} times")
    for why in found["because"]:
        print(f"not valid: {why}")
    if asked.control:
        print("missed, as it must be" if found["passed"] else "kept without scaling: no spike")
    else:
        print("passed" if found["passed"] and found["valid"] else "not passed")


if __name__ == "__main__":
    raise SystemExit(main())
