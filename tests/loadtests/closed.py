"""Load by the closed model, as Locust makes it by itself: each user waits for its answer.

    CLOSED_OUT=DIR locust -f tests/loadtests/closed.py --headless -u 4 -r 4 --host URL

The users of this file ask for 300 answers a second, and get them while answers come. What they see
goes to run.json by way of the recorder of `loadtests`, so that `loadtests.judge` can judge it as it
judges an open load; a request is meant to start when it does, for nothing else is known here.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant_throughput, events, task

from loadtests import record
from loadtests.arrivals import due
from loadtests.collector import Collector
from loadtests.recorder import ERROR, OK, Recorder, Sample
from loadtests.validity import LAG_LIMIT_MS
from tests.loadtests.shots import STEADY_RUN

REQUESTS = due(STEADY_RUN)
EACH = 75.0
LOOK_SECONDS = 0.1
HOOKS: Any = events
RECORDER = Recorder(STEADY_RUN)
BEGUN = time.time()


class Waiting(FastHttpUser):
    wait_time = constant_throughput(EACH)

    @task
    def browse(self) -> None:
        self.client.get("/api/v1/products", name="GET /products")


def watch(runner: Any, **_: Any) -> None:
    gevent.spawn(end, runner)


def end(runner: Any) -> None:
    """When there are as many answers as an open load of the same plan has."""
    while RECORDER.tally.started < REQUESTS:
        gevent.sleep(LOOK_SECONDS)
    runner.quit()


def saw(name: str, start_time: float, response_time: float, exception: Any, **_: Any) -> None:
    """One answer; times as Locust has them: the start on the wall clock, then milliseconds."""
    start = start_time - BEGUN
    outcome = ERROR if exception else OK
    RECORDER.started(start, 0.0)
    RECORDER.request(Sample(name, "browse", start, start, start + response_time / 1000, outcome))


def write(**_: Any) -> None:
    seen = Collector(1)
    for piece in RECORDER.report():
        seen.add("here", piece)
    seen.workers["here"].walked = True
    ending = record.Ending(BEGUN, time.time(), RECORDER.tally.started)
    run = record.compose("closed", STEADY_RUN, "closed", seen, ending, LAG_LIMIT_MS)
    record.write(Path(os.environ["CLOSED_OUT"]), run)


HOOKS.init.add_listener(watch)
HOOKS.request.add_listener(saw)
HOOKS.quitting.add_listener(write)
