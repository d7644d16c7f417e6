"""The part of Locust's master: tells the workers what to do, and makes one record of it all.

Runs in the master, or beside the only player where there are no workers. Must only be imported by
a process that runs Locust.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gevent

from loadtests import journeys, record
from loadtests.arrivals import Plan, due, read
from loadtests.collector import WINDOW, Collector
from loadtests.record import Ending
from loadtests.recorder import COLUMNS, Second, quantiles
from loadtests.validity import CPU_LIMIT

JSON = dict[str, Any]
# Until everybody has heard of it.
LEAD_SECONDS = 1.0
LOOK_SECONDS = 0.2
GRACE_SECONDS = 5.0
STOP_SECONDS = 10.0
# So many looks, a second apart, must find a limit passed: one slow moment is not the ceiling.
BEYOND_LOOKS = 5
# A target of which not one answer has come by then is down.
SILENCE_SECONDS = 10.0
LOST = "missing"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """What is to be played: `cast` as `cast.Cast.document`, `id` of the run."""

    id: str
    plan: Plan
    cast: JSON
    url: str
    raw: bool
    lag_limit: float

    @staticmethod
    def read(path: Path) -> Score:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Score(
            id=found["id"],
            plan=read(found["plan"]),
            cast=found["cast"],
            url=found["url"],
            raw=bool(found["raw"]),
            lag_limit=float(found["lagLimitMs"]),
        )


class Conductor:
    """`workers` maps each worker's id to its state, as Locust has it. `send` tells one of them."""

    def __init__(
        self,
        score: Score,
        out: Path | None,
        progress: int | None,
        send: Callable[[str, str, Any], None],
        workers: Callable[[], Mapping[str, str]],
    ) -> None:
        self.score = score
        self.out = out
        self._progress = progress
        self._send = send
        self._workers = workers
        self._names: list[str] = []
        self._stopped_at: float | None = None
        self._broke: JSON | None = None
        self._beyond = 0
        self._samples: Any = None
        self.begin = 0.0
        self.seen = Collector(0)
        self.run: JSON | None = None

    def start(self, names: list[str]) -> None:
        """Deals the parts out to the workers of these names."""
        self._names = names
        self.seen = Collector(len(names))
        self.begin = time.time() + LEAD_SECONDS
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
        if self.score.raw and self.out:
            self._samples = (self.out / "samples.csv").open("w", encoding="utf-8", newline="")
            csv.writer(self._samples).writerow(COLUMNS)
        for index, name in enumerate(names):
            part = {
                "plan": self.score.plan.document(),
                "cast": self.score.cast,
                "url": self.score.url,
                "raw": self.score.raw,
                "beginIn": self.begin - time.time(),
                "index": index,
                "workers": len(names),
            }
            self._send(name, "part", part)
        with_signal = getattr(signal, "SIGUSR1", None)
        if with_signal is not None:
            gevent.signal_handler(with_signal, self.stop)

    def hear(self, name: str, pieces: list[JSON], *, last: bool = False) -> None:
        """A worker's report."""
        for piece in pieces:
            self.seen.add(name, piece)
            if self._samples is not None and piece.get("samples"):
                csv.writer(self._samples).writerows(piece["samples"])
        if last:
            self.seen.workers[name].walked = True

    def stop(self) -> None:
        """Ends the run now; what was measured is kept."""
        if self._stopped_at is None:
            self._stopped_at = time.time()
            for name in self._names:
                self._send(name, "halt", {})

    def supervise(self) -> JSON:
        """Follows the run to its end, and writes it down."""
        told = 0.0
        while not self._over():
            gevent.sleep(LOOK_SECONDS)
            at = time.time() - self.begin
            if at >= told + 1:
                told = at
                self._tell(self.seen.progress(at))
                self._look(at)
        return self.finish()

    def finish(self) -> JSON:
        """The record, made once: at the run's end, or when Locust is told to go."""
        if self.run is not None:
            return self.run
        plan, now = self.score.plan, time.time()
        at = now - self.begin if self._names else 0.0
        cut = at < plan.seconds and not self._over()
        partial = self._stopped_at is not None or cut
        planned = self.seen.tally.due if partial else due(plan)
        end = Ending(self.begin or now, now, planned, partial, broke=self._broke)
        self.run = record.compose(
            self.score.id, plan, self.score.url, self.seen, end, self.score.lag_limit
        )
        if self._samples is not None:
            self._samples.close()
        if self.out:
            record.write(self.out, self.run)
        self._tell({**self.seen.progress(at), "over": True})
        return self.run

    def _over(self) -> bool:
        """Everybody who is still there has come to the end, or must have."""
        if self._stopped_at is not None and time.time() > self._stopped_at + STOP_SECONDS:
            return True
        plan = self.score.plan
        longest = plan.seconds + plan.timeout + journeys.PATIENCE_SECONDS + GRACE_SECONDS
        if time.time() > self.begin + longest:
            return True
        states = self._workers()
        return all(
            self.seen.workers[name].walked or states.get(name, LOST) == LOST for name in self._names
        )

    def _look(self, at: float) -> None:
        """Ends a run against a target that is down, and one whose plan has limits when they have
        been passed for some seconds."""
        tally = self.seen.tally
        if at > SILENCE_SECONDS and tally.errors and not tally.ok:
            self.stop()
        if not self.score.plan.limits or self._broke or not self._judged(at):
            return
        # The last second is still being answered.
        seconds = self.seen.seconds(max(int(at) - WINDOW, 0))
        whole = [each for number, each in seconds.items() if number < int(at) - 1]
        by, p99 = beyond(whole, self.score.plan.limits, self.score.lag_limit)
        if tally.cpu > CPU_LIMIT:
            by = "generator"
        self._beyond = self._beyond + 1 if by else 0
        if self._beyond >= BEYOND_LOOKS:
            rate = sum(each.started for each in whole) / max(len(whole), 1)
            self._broke = {"by": by, "t": round(at, 1), "rate": round(rate, 1), "p99Ms": p99}
            self.stop()

    def _judged(self, at: float) -> bool:
        plan = self.score.plan
        return plan.phase_at(at) != plan.phases[0].name

    def _tell(self, line: JSON) -> None:
        """A line of progress. When who started the run has gone, it is ended."""
        if self._progress is None:
            return
        try:
            os.write(self._progress, json.dumps(line).encode() + b"\n")
        except OSError:
            self._progress = None
            self.stop()


def beyond(
    seconds: Sequence[Second], limits: Mapping[str, float], lag_limit: float
) -> tuple[str, float | None]:
    """What was too much in these seconds ("": nothing), and their p99 in ms.

    A generator that is late itself says nothing of the target's latency, so it is looked at first.
    """
    slow: Counter[int] = Counter()
    for second in seconds:
        slow.update(second.slow)
    (p99,) = quantiles(slow, (0.99,))
    errors = sum(second.errors for second in seconds)
    answered = errors + sum(second.ok for second in seconds)
    if seconds and median(second.late for second in seconds) * 1000 > lag_limit:
        return "generator", p99
    if p99 is not None and p99 > limits["p99Ms"]:
        return "latency", p99
    return ("errors" if errors > limits["errors"] * answered else ""), p99
