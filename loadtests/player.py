"""The part of a load worker: walks its share of the plan, and reports what it sees.

Arrivals are started at their time into a bounded pool. When the pool is full, because the target
holds too many visits, later ones wait, and their latency goes on counting from the time at which
they were meant; one that has waited as long as a request may take is dropped and counted.

Where the system lets it, a worker runs before what else the machine has to do. It needs little of a
processor, but at once: what it waits for one is no time of the target's.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
import psutil
from gevent.event import Event
from gevent.pool import Pool

from loadtests import arrivals, journeys
from loadtests.arrivals import Arrival, Plan
from loadtests.cast import Cast
from loadtests.guests import Guests
from loadtests.recorder import ERROR, OK, WHOLE, Recorder, Sample
from loadtests.shopper import Access, Guest, monotonic_since, session

JSON = dict[str, Any]
MOST_IN_FLIGHT = 4000
FEWEST_IN_FLIGHT = 50
STOP_SECONDS = 1.0
KILL_SECONDS = 1.0
WATCH_SECONDS = 1.0
# The processor's share is a mean over so many looks: a moment at its limit saturates nothing.
CPU_LOOKS = 5
JUMP_SECONDS = 0.25
UNSURE_SECONDS = 0.01
# Added to the niceness. Nine times the weight of a process of the platform (sched(7)).
AHEAD = -10


class Player:
    """`done` gets the last report of the share."""

    def __init__(
        self,
        ca: Path | None,
        client: Path | None,
        events: Any,
        done: Callable[[list[JSON]], None],
    ) -> None:
        self._ca = ca
        self._client = client
        self._events = events
        self._done = done
        self._stop = Event()
        self.recorder: Recorder | None = None

    def receive(self, part: Mapping[str, Any]) -> None:
        """Begins to play a part: {"plan", "cast", "url", "beginIn" (seconds from now), "index",
        "workers", "raw"}. Clocks of two machines differ, so that no moment is named.

        In a greenlet of its own and not as a Locust user: users are ended and begun anew on other
        workers when one of these is not heard of for a while.
        """
        if self.recorder is None:
            begin = time.monotonic() + part["beginIn"]
            self.recorder = Recorder(arrivals.read(part["plan"]), raw=part["raw"])
            self.recorder.niceness = hurry()
            gevent.spawn(self._play, dict(part), self.recorder, begin)

    def stop(self) -> None:
        """Begins no more visits, and gives those in flight a moment."""
        self._stop.set()

    def _play(self, part: JSON, recorder: Recorder, begin: float) -> None:
        plan = recorder.plan
        room = math.ceil(places(plan) / part["workers"])
        http = session(part["url"], self._ca, plan.timeout, room, self._events)
        access = Access(http, self._client)
        try:
            access.open()
        except Exception as error:
            recorder.trouble(f"no access token: {error!r}")
            self._done(self.report())
            return
        watch = gevent.spawn(_watch, recorder)
        stage = _Stage(recorder, Cast.read(part["cast"]), http, access, monotonic_since(begin))
        self._walk(stage, arrivals.share(plan, part["index"], part["workers"]), Pool(room))
        watch.kill()
        self._done(self.report())

    def report(self) -> list[JSON]:
        """What has changed since the last report; others may run between its pieces."""
        pieces = []
        for piece in self.recorder.report() if self.recorder else ():
            pieces.append(piece)
            gevent.sleep(0)
        return pieces

    def _walk(self, stage: _Stage, share: Any, pool: Pool) -> None:
        tally, plan, free_at = stage.recorder.tally, stage.recorder.plan, 0.0
        for arrival in share:
            self._stop.wait(max(arrival.at - stage.now(), 0.0))
            if self._stop.is_set():
                break
            tally.due += 1
            if pool.full():
                pool.wait_available(timeout=max(arrival.at + plan.timeout - stage.now(), 0.0))
                free_at = stage.now()
            if pool.full():
                tally.dropped += 1
                continue
            pool.spawn(stage.visit, arrival, free_at)
            tally.in_flight = len(pool)
        last = plan.timeout + journeys.PATIENCE_SECONDS
        pool.join(timeout=STOP_SECONDS if self._stop.is_set() else last)
        # What is under way still counts, with the time that it has taken.
        pool.kill(block=True, timeout=KILL_SECONDS)
        tally.in_flight = len(pool)


class _Stage:
    """What every visit of one worker needs."""

    def __init__(
        self, recorder: Recorder, cast: Cast, http: Any, access: Access, now: Callable[[], float]
    ) -> None:
        self.recorder = recorder
        self.now = now
        self._http = http
        self._access = access
        self._guests = Guests(recorder.plan, cast)

    def visit(self, arrival: Arrival, free_at: float) -> None:
        """One journey. `free_at`: until then the generator was held up by the target."""
        start = self.now()
        self.recorder.started(arrival.at, start - max(arrival.at, free_at))
        guest = Guest(
            self._http, self.recorder, self._access, self.now, arrival.journey, arrival.at
        )
        kind, outcome = "", OK
        try:
            journeys.JOURNEYS[arrival.journey](guest, self._guests.visit(arrival))
        except journeys.Failed as failed:
            kind, outcome = failed.kind, ERROR
        sample = Sample(WHOLE, arrival.journey, arrival.at, start, self.now(), outcome, kind)
        self.recorder.journey(sample)
        self.recorder.tally.in_flight -= 1


def hurry() -> int:
    """Lets this process run before others, if it may. Returns its niceness from now on."""
    # What Locust is made of stays: to look through it again would hold up an arrival.
    gc.collect()
    gc.freeze()
    try:
        return os.nice(AHEAD)
    except PermissionError:
        return os.nice(0)


def places(plan: Plan) -> int:
    """How many visits may be in flight at once: as many as come while one takes all the time
    that it may."""
    most = math.ceil(plan.peak * (plan.timeout + journeys.PATIENCE_SECONDS))
    return min(max(most, FEWEST_IN_FLIGHT), MOST_IN_FLIGHT)


def _watch(recorder: Recorder) -> None:
    """Looks at this process's share of a processor, and whether the clocks agree."""
    process = psutil.Process()
    times: deque[tuple[float, float]] = deque(maxlen=CPU_LOOKS + 1)
    apart: float | None = None
    while True:
        now, spent = time.monotonic(), process.cpu_times()
        times.append((now, spent.user + spent.system))
        if len(times) > 2:
            (begun, before), (ended, after) = times[0], times[-1]
            recorder.tally.cpu = max(recorder.tally.cpu, (after - before) / (ended - begun))
        found = clocks_apart()
        if found is not None:
            recorder.tally.jumps += apart is not None and abs(found - apart) > JUMP_SECONDS
            apart = found
        gevent.sleep(WATCH_SECONDS)


def clocks_apart() -> float | None:
    """Wall clock minus monotonic; None when something came between the two looks."""
    before, wall, after = time.monotonic(), time.time(), time.monotonic()
    return wall - before if after - before < UNSURE_SECONDS else None
