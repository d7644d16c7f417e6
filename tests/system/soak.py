"""Reshards, failovers, kills and backups in an order that a seed fixes, while customers shop.

`script` is pure: a seed that found a failure finds the same disturbances again. One round is a
reshard with disturbances beside it; it ends when the platform is whole and no move is left.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from tests.system.session import SessionFailed, instances
from tests.system.tour import Plane, missing

JSON = dict[str, Any]
T = TypeVar("T")

SHARDS = (2, 3, 4)
DISTURBANCES = ("kill-primary", "kill-control-plane", "kill-service", "backup", "point")
PATIENCE_SECONDS = 240.0
LOOK_SECONDS = 0.3
BUSY = (404, 409, 422, 503)


@dataclass(frozen=True)
class Disturbance:
    """`after`: seconds from the one before; `pick` (0 to 1) chooses among what is there then."""

    kind: str
    after: float
    pick: float


@dataclass(frozen=True)
class Round:
    shards: int
    disturbances: tuple[Disturbance, ...]


def script(seed: int, start: int = 2) -> Iterator[Round]:
    """Rounds without end; each goes to another count of shards than the one before.

    Every kind of disturbance comes before one of them comes again: a short soak has them all.
    """
    chance = random.Random(seed)  # nosec B311: not for secrets
    shards = start
    deck: list[str] = []
    while True:
        shards = chance.choice([count for count in SHARDS if count != shards])
        disturbances = []
        for _ in range(chance.randint(3, 5)):
            deck = deck or chance.sample(DISTURBANCES, len(DISTURBANCES))
            after, pick = chance.uniform(0.2, 5.0), chance.random()
            disturbances.append(Disturbance(deck.pop(), after, pick))
        yield Round(shards, tuple(disturbances))


@dataclass
class Soak:
    """`tell` gets a line for everything that is done. No wait is longer than `patience` (s)."""

    plane: Plane
    tell: Callable[[str], None] = print
    patience: float = PATIENCE_SECONDS
    disturbed: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)

    def run(self, seed: int, seconds: float) -> None:
        """Whole rounds until the time is up and every kind of disturbance has come.

        Raises `SessionFailed`, which names the seed.
        """
        ends = time.monotonic() + seconds
        try:
            for each in script(seed, start=self.shards()):
                self.round(each)
                if time.monotonic() >= ends and set(self.disturbed) == set(DISTURBANCES):
                    return
        except SessionFailed as failure:
            raise SessionFailed(f"seed {seed}: {failure}") from failure

    def round(self, each: Round) -> None:
        self.whole()
        self.tell(f"reshard to {each.shards}")
        operation = self.start("reshard", to=each.shards, soak=0.0, batch=64)
        for disturbance in each.disturbances:
            time.sleep(disturbance.after)
            self.disturb(disturbance)
        self.finish(operation)
        self.settle()

    def disturb(self, each: Disturbance) -> None:
        self.disturbed.append(each.kind)
        self.tell(f"{each.kind} after {each.after:.1f} s")
        if each.kind == "backup":
            self.attempt("backup", target="s1", kind="incremental" if each.pick < 0.7 else "full")
        elif each.kind == "point":
            self.attempt("restore-point", name=f"soak-{time.time_ns()}")
        else:
            self.kill(each)

    def kill(self, each: Disturbance) -> None:
        """What has died by itself meanwhile needs no killing."""
        status = self.status()
        if each.kind == "kill-primary":
            pid = self.primary(status, each.pick)
        elif each.kind == "kill-control-plane":
            pid = int(status["controlPlane"]["pid"])
        else:
            services = [one for one in instances(status).values() if one["kind"] == "service"]
            pid = int(services[int(each.pick * len(services))]["pid"] or 0)
        if pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def primary(self, status: JSON, pick: float) -> int:
        """The pid of a primary that may fail over: losing the only copy would need a person."""
        safe = [
            shard
            for shard in status["shards"]
            if any(standby["sync"] for standby in shard["standbys"])
        ]
        if not safe:
            return 0
        shard = safe[int(pick * len(safe))]
        self.acknowledge(shard["name"])
        self.tell(f"{shard['primary']} is killed")
        return int(instances(status)[shard["primary"]]["pid"] or 0)

    def acknowledge(self, database: str) -> None:
        """Lets the database fail over by itself again."""
        answer = self.post(f"/v1/failovers/{database}/acknowledge", {"reason": "soak"})
        if not answer.is_success and answer.status_code not in BUSY:
            raise SessionFailed(f"acknowledge {database}: {answer.text[:300]}")

    def attempt(self, verb: str, **asked: Any) -> None:
        """A guard may refuse it: something else goes on just then."""
        answer = self.ask(verb, asked)
        if not answer.is_success and answer.status_code not in BUSY:
            raise SessionFailed(f"{verb}: {answer.status_code} {answer.text[:300]}")
        self.tell(f"{verb}: {answer.status_code}")

    def start(self, verb: str, **asked: Any) -> str:
        """The operation, once nothing else holds its locks."""
        said = ""

        def begun() -> str | None:
            nonlocal said
            answer = self.ask(verb, asked)
            said = answer.text[:500]
            return str(answer.json()["id"]) if answer.is_success else None

        return self.until(begun, lambda: f"{verb} to begin: {said}")

    def finish(self, operation: str) -> None:
        """It has succeeded, resumed as often as a disturbance made it fail."""
        found: JSON = {}

        def succeeded() -> bool:
            nonlocal found
            found = self.plane.get(f"/v1/operations/{operation}") or found
            if found.get("state") == "failed":
                said = f"{operation} is resumed: {found['problem']['detail']}"
                self.resumed.append(said)
                self.tell(said)
                self.post(f"/v1/operations/{operation}/resume", {})
            return bool(found.get("state") == "succeeded")

        self.until(succeeded, lambda: f"{operation} to succeed: {_where(found)}")

    def settle(self) -> None:
        """No move is left, and the platform is whole."""
        left: JSON | None = None

        def over() -> bool:
            nonlocal left
            left = self.plane.get("/v1/reshard")
            return left is not None and not left["items"] and left["operation"] is None

        self.until(over, lambda: f"moves to be over: {left}"[:900])
        self.whole()

    def whole(self) -> JSON:
        status: JSON | None = None

        def healthy() -> JSON | None:
            nonlocal status
            status = self.plane.status()
            return status if status and status["state"] == "healthy" else None

        return self.until(healthy, lambda: f"the platform to be whole: {missing(status)}")

    def status(self) -> JSON:
        """Of a control plane that may just be starting again."""
        return self.until(self.plane.status, lambda: "the control plane to answer")

    def shards(self) -> int:
        return sum(each["name"] != "catalog" for each in self.status()["shards"])

    def ask(self, verb: str, asked: JSON) -> httpx.Response:
        key = f"soak-{time.time_ns()}"
        return self.post("/v1/operations", {"verb": verb, "args": asked, "idempotencyKey": key})

    def post(self, path: str, document: JSON) -> httpx.Response:
        """Asked again while the control plane is away."""
        failure = ""

        def answered() -> httpx.Response | None:
            nonlocal failure
            try:
                return self.plane.http.post(path, json=document)
            except httpx.TransportError as error:
                failure = repr(error)
                return None

        return self.until(answered, lambda: f"an answer to POST {path}: {failure}")

    def until(self, ask: Callable[[], T | None], what: Callable[[], str]) -> T:
        """The first answer that is neither None nor False. Raises `SessionFailed`."""
        deadline = time.monotonic() + self.patience
        while True:
            found = ask()
            if found is not None and found is not False:
                return found
            if time.monotonic() > deadline:
                raise SessionFailed(f"waited {self.patience:g} s for {what()}")
            time.sleep(LOOK_SECONDS)


def _where(operation: JSON) -> str:
    """The step in which an operation is, and what stopped it."""
    steps = [each for each in operation.get("steps", ()) if each["state"] != "succeeded"]
    step = f"{steps[0]['name']} {steps[0]['args']}" if steps else "no step left"
    return f"{operation.get('state')} in {step}: {operation.get('problem')}"[:900]
