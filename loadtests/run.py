"""Runs a load test: one plan, from registering users to run.json.

    python -m loadtests.run --profile smoke --url URL [--ca F] [--client F] --out DIR [--gate F]
    python -m loadtests.run --plan plan.json ...

A program of its own, because Locust changes the interpreter. It registers the users (not measured),
starts a Locust master and `--workers` workers on this machine, and waits. Workers elsewhere join by
`--bind HOST:PORT --expect-workers N`. stdout has a line of JSON each second (t, started, ok,
errors, inFlight, p50Ms, p99Ms, rate), before them lines with "stage", last one with "over".

DIR gets run.json (see `loadtests.record`), locust.log, and with `--raw` samples.csv. It is judged
by `python -m loadtests.judge DIR`. Exit: 0 measured, 9 nothing could be measured (run.json says
why), 130 interrupted (run.json has what was measured), 5 refused and nothing was started, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests import arrivals, cast, profiles
from loadtests.arrivals import Plan
from loadtests.calibrate import too_much
from loadtests.processes import Locusts, environment, started
from loadtests.validity import LAG_LIMIT_MS

JSON = dict[str, Any]
MEASURED, USAGE, REFUSED, VOID, INTERRUPTED = 0, 2, 5, 9, 130
NEEDS = {"locust": "locust", "hdrh": "hdrhistogram"}
END_SECONDS = 20.0


def missing() -> str:
    """Why no load can be made by this installation; empty when it can."""
    lacking = [name for module, name in NEEDS.items() if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(lacking)}; pip install 'regionctl[load]'" if lacking else ""


def unwritable(folder: Path) -> str:
    """Why nothing can be written there; empty when it can. Makes the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"


def beyond_this_machine(plan: Plan, workers: int) -> str:
    """Why the plan is too much for the load workers, which is measured first; empty: it is not."""
    words = [sys.executable, "-m", "loadtests.calibrate"]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    if ended.returncode:
        return f"the load workers could not be calibrated: {ended.stderr.strip()[-300:]}"
    found = json.loads(ended.stdout)
    tell(stage="calibrated", **found)
    return too_much(plan, found["requestsPerSecond"], workers)


def tell(**line: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


async def run(asked: argparse.Namespace, plan: Plan) -> int:
    """The whole run. Returns the exit code. To be told to end (SIGTERM) is as good as Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    begun = time.time()
    id = asked.id or time.strftime("load-%Y%m%d-%H%M%S", time.gmtime(begun)) + f"-{os.getpid()}"
    try:
        tell(stage="users", users=plan.users, id=id)
        who = await cast.gather(asked.url, asked.ca, asked.client, plan.users)
        score = {
            "id": id,
            "plan": plan.document(),
            "cast": who.document(),
            "url": asked.url,
            "raw": asked.raw,
            "lagLimitMs": asked.lag_limit_ms,
        }
        (asked.out / "score.json").write_text(json.dumps(score), encoding="utf-8")
        tell(stage="workers", workers=asked.expect_workers, seconds=plan.seconds)
        partial = await _locusts(asked)
    except cast.NoTarget as error:
        return _nothing(asked, plan, id, begun, str(error))
    except asyncio.CancelledError:
        _nothing(asked, plan, id, begun, "interrupted before the load began", partial=True)
        return INTERRUPTED
    if not (asked.out / "run.json").exists():
        last = _last_words(asked.out / "locust.log")
        code = _nothing(asked, plan, id, begun, f"the load generator did not get going: {last}")
        return INTERRUPTED if partial else code
    return INTERRUPTED if partial else MEASURED


def _nothing(
    asked: argparse.Namespace,
    plan: Plan,
    id: str,
    begun: float,
    because: str,
    *,
    partial: bool = False,
) -> int:
    """A record that nothing could be measured, and why."""
    from loadtests import record
    from loadtests.collector import Collector

    end = record.Ending(begun, time.time(), arrivals.due(plan), partial, because)
    seen = Collector(asked.expect_workers)
    run = record.compose(id, plan, asked.url, seen, end, asked.lag_limit_ms)
    record.write(asked.out, run)
    tell(over=True, invalid=because)
    return VOID


async def _locusts(asked: argparse.Namespace) -> bool:
    """Starts them and waits for their end. Returns whether we were interrupted."""
    async with started(asked) as locusts:
        pids = [each.pid for each in locusts.workers]
        tell(stage="started", master=locusts.master.pid, workers=pids)
        try:
            await _follow(locusts)
        except asyncio.CancelledError:
            # Once asked, the master ends by itself and writes down what there is.
            with contextlib.suppress(ProcessLookupError):
                locusts.master.send_signal(signal.SIGUSR1)
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(END_SECONDS):
                    await _follow(locusts)
            return True
    return False


async def _follow(locusts: Locusts) -> None:
    """Passes progress on until the master has gone."""
    while line := await locusts.told.readline():
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(line.decode())
            sys.stdout.flush()
    await locusts.master.wait()


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "it left no log"
    said = [line.strip() for line in lines if line.strip()]
    return f"{said[-1][:200]} ({log})" if said else f"it said nothing ({log})"


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"HOST:PORT is wanted, not {text!r}")
    return host, int(port)


def _plan(asked: argparse.Namespace) -> Plan:
    """Raises `ValueError` or `OSError`."""
    if asked.plan:
        return arrivals.read(json.loads(asked.plan.read_text(encoding="utf-8")))
    return profiles.named(asked.profile, asked.rate_scale, asked.seconds, asked.seed)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="loadtests.run", description=__doc__)
    made.add_argument("--profile", default="smoke")
    made.add_argument("--plan", type=Path, help="a plan by loadtests.profiles, in its place")
    profiles.add_options(made)
    made.add_argument("--url", required=True)
    made.add_argument("--ca", type=Path, help="PEM file; only what it signed is trusted")
    made.add_argument("--client", type=Path, help="file of the OAuth client, mode 0600")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--id", default="")
    made.add_argument("--workers", type=int, default=1, help="on this machine")
    made.add_argument("--expect-workers", type=int, help="here and elsewhere; default: here")
    made.add_argument("--bind", type=_address, metavar="HOST:PORT", help="where workers join")
    made.add_argument("--raw", action="store_true", help="write every sample to samples.csv")
    made.add_argument(
        "--calibrate",
        action="store_true",
        help="measure this machine first; refuse a plan that is more than half of its ceiling",
    )
    made.add_argument(
        "--lag-limit-ms",
        type=float,
        default=LAG_LIMIT_MS,
        help="p99 of late starts up to which this machine is trusted; the record says it",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser()
    asked = made.parse_args(arguments)
    asked.expect_workers = max(asked.expect_workers or 0, asked.workers)
    if asked.workers < 0 or asked.expect_workers < 1:
        made.error("there must be a worker")
    try:
        plan = _plan(asked)
    except (OSError, ValueError) as error:
        made.error(str(error))
    asked.out = asked.out.absolute()
    refusal = missing() or unwritable(asked.out)
    if asked.calibrate and not refusal:
        refusal = beyond_this_machine(plan, asked.expect_workers)
    if refusal:
        sys.stderr.write(f"{refusal}\n")
        return REFUSED
    (asked.out / "run.json").unlink(missing_ok=True)
    return asyncio.run(run(asked, plan))


if __name__ == "__main__":
    sys.exit(main())
