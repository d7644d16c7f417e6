"""The load test as Locust runs it. `python -m loadtests.run` starts it; it also works by itself:

    locust -f loadtests/locustfile.py --headless --host URL --load-profile smoke [--processes 2]
    locust -f loadtests/locustfile.py --worker --master-host HOST [--load-ca F] [--load-client F]

Locust starts one user in each process, which walks its worker's share of the plan: how many visits
there are at once is decided by the plan, not by `--users`. Locust's own statistics show latencies
from the intended start, rounded to two figures; those that count are in run.json (`--load-out`).
A worker on another machine is given the plan by the master, and reads CA and client from its own
files. The connection between them is not encrypted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from locust import User, events, runners, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import profiles
from loadtests.conductor import Conductor, Score
from loadtests.player import Player
from loadtests.validity import LAG_LIMIT_MS

JSON = dict[str, Any]
HERE = "here"
REPORT_SECONDS = 1.0
IDLE_SECONDS = 3600.0
# A worker that is not heard of for so long is lost; Locust's own three would be too few for a
# machine that is busy, and Locust ends a run whose only worker it takes for lost.
SILENT_SECONDS = 8
PLAYERS: dict[Environment, Player] = {}
CONDUCTORS: dict[Environment, Conductor] = {}


def add_options(parser: ArgumentParser) -> None:
    group: Any = parser.add_argument_group("regionctl load")

    def add(name: str, **more: Any) -> None:
        variable = "REGIONCTL_" + name.strip("-").replace("-", "_").upper()
        group.add_argument(name, env_var=variable, **more)

    add("--load-profile", default="smoke", help=f"one of {', '.join(profiles.PROFILES)}")
    add("--load-rate-scale", type=float, default=1.0, help="times the profile's rates")
    add("--load-seconds", type=float, default=None, help="stretch or press the profile into them")
    add("--load-seed", type=int, default=1, help="of the arrivals")
    add("--load-ca", default="", help="PEM file of the CA that signed the target's certificate")
    add("--load-client", default="", help="file of the OAuth client, mode 0600")
    add("--load-out", default="", help="folder for run.json")
    add("--load-score", default="", help="what to play, made by loadtests.run")
    add("--load-progress-fd", type=int, default=-1, help="where progress is written")


class ArrivalUser(User):
    """Locust runs nothing without a user. What is asked is asked by this process's player."""

    @task
    def wait_for_the_end(self) -> None:
        gevent.sleep(IDLE_SECONDS)


def prepare(environment: Environment, runner: Any, **_: Any) -> None:
    """Before Locust starts: a worker becomes a player, a master a conductor, one alone both."""
    asked: Any = environment.parsed_options
    runners.WORKER_REPORT_INTERVAL = REPORT_SECONDS
    runners.HEARTBEAT_LIVENESS = SILENT_SECONDS
    hooks = _hooks(environment)
    if not isinstance(runner, MasterRunner):
        ca, client = (Path(name) if name else None for name in (asked.load_ca, asked.load_client))
        done = partial(_walked, environment, runner)
        PLAYERS[environment] = Player(ca, client, environment.events, done)
    if isinstance(runner, WorkerRunner):
        _join(environment, runner)
    else:
        # Locust deals its users out to the workers, and each worker needs one.
        asked.num_users = max(asked.num_users or 1, asked.expect_workers)
        asked.spawn_rate = max(asked.spawn_rate or 1, asked.num_users)
        hooks.test_start.add_listener(lambda **_: _lead(environment, runner, asked))
        hooks.quitting.add_listener(lambda **_: _close(environment, asked))


def _hooks(environment: Environment) -> Any:
    return environment.events


def _join(environment: Environment, runner: WorkerRunner) -> None:
    """Messages to and from the conductor, which is elsewhere."""
    player, hooks = PLAYERS[environment], _hooks(environment)
    runner.register_message("part", lambda msg, **_: player.receive(msg.data))
    runner.register_message("halt", lambda **_: player.stop())
    hooks.report_to_master.add_listener(lambda client_id, data: data.update(pieces=player.report()))


def _walked(environment: Environment, runner: Any, pieces: list[JSON]) -> None:
    """The last report of this process's share."""
    if isinstance(runner, WorkerRunner):
        runner.send_message("walked", {"pieces": pieces})
    else:
        CONDUCTORS[environment].hear(HERE, pieces, last=True)


def _lead(environment: Environment, runner: Any, asked: Any) -> None:
    """The run begins."""
    score = Score.read(Path(asked.load_score)) if asked.load_score else _own(asked)
    progress = asked.load_progress_fd if asked.load_progress_fd >= 0 else None
    out = Path(asked.load_out) if asked.load_out else None
    if isinstance(runner, MasterRunner):
        conductor = Conductor(score, out, progress, _sender(runner), lambda: _states(runner))
        runner.register_message(
            "walked",
            lambda msg, **_: conductor.hear(msg.node_id, msg.data["pieces"], last=True),
        )
        _hooks(environment).worker_report.add_listener(
            lambda client_id, data: conductor.hear(client_id, data.get("pieces", []))
        )
        names = [node.id for node in runner.clients.all]
    else:
        player = PLAYERS[environment]
        conductor = Conductor(score, out, progress, _to(player), lambda: {HERE: "running"})
        gevent.spawn(_hear, player, conductor)
        names = [HERE]
    CONDUCTORS[environment] = conductor
    conductor.start(names)
    gevent.spawn(_follow, environment, runner, conductor)


def _sender(runner: MasterRunner) -> Any:
    return lambda name, what, data: runner.send_message(what, data, name)


def _states(runner: MasterRunner) -> dict[str, str]:
    return {node.id: str(node.state) for node in runner.clients.all}


def _to(player: Player) -> Any:
    return lambda name, what, data: player.stop() if what == "halt" else player.receive(data)


def _hear(player: Player, conductor: Conductor) -> None:
    while conductor.run is None:
        gevent.sleep(REPORT_SECONDS)
        conductor.hear(HERE, player.report())


def _follow(environment: Environment, runner: Any, conductor: Conductor) -> None:
    conductor.supervise()
    if environment.parsed_options and environment.parsed_options.headless:
        runner.quit()
    else:
        runner.stop()


def _close(environment: Environment, asked: Any) -> None:
    """Locust ends: by itself, or because it was told to."""
    conductor = CONDUCTORS.get(environment)
    if conductor is None:
        return
    because = conductor.finish()["validity"]["because"]
    if because and not asked.load_score:
        sys.stderr.write("invalid: " + "; ".join(because) + "\n")
        environment.process_exit_code = 9


def _own(asked: Any) -> Score:
    """Without `loadtests.run`: the plan by the options, and users registered here."""
    plan = profiles.named(
        asked.load_profile, asked.load_rate_scale, asked.load_seconds, asked.load_seed
    )
    words = ["--url", asked.host or "", "--users", str(plan.users)]
    for option, value in (("--ca", asked.load_ca), ("--client", asked.load_client)):
        words += [option, value] if value else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cast.json"
        command = [sys.executable, "-m", "loadtests.cast", *words, "--out", str(file)]
        ended = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        if ended.returncode:
            sys.stderr.write(ended.stderr.decode("utf-8", "replace"))
            os._exit(1)
        cast = json.loads(file.read_text(encoding="utf-8"))
    return Score(cast["run"], plan, cast, asked.host, False, LAG_LIMIT_MS)


HOOKS: Any = events
HOOKS.init_command_line_parser.add_listener(add_options)
HOOKS.init.add_listener(prepare)
