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
from typing import Any

import httpx

from tests.system.session import SessionFailed, instances
from tests.system.tour import CONTROL_PLANE, Plane, missing

JSON = dict[str, Any]

SHARDS = (2, 3, 4)
DISTURBANCES = ("kill-primary", "kill-control-plane", "kill-service", "backup", "point")
ROUND_SECONDS = 240.0
LOOK_SECONDS = 0.3
FINAL = ("succeeded", "failed", "aborted")


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
    """Rounds without end; each goes to another count of shards than the one before."""
    chance = random.Random(seed)  # nosec B311: not for secrets
    shards = start
    while True:
        shards = chance.choice([count for count in SHARDS if count != shards])
        disturbances = tuple(
            Disturbance(chance.choice(DISTURBANCES), chance.uniform(0.2, 6.0), chance.random())
            for _ in range(chance.randint(1, 3))
        )
        yield Round(shards, disturbances)


@dataclass
class Soak:
    """`tell` gets a line for everything that is done."""

    plane: Plane
    tell: Callable[[str], None] = print
    done: list[str] = field(default_factory=list)

    def run(self, seed: int, seconds: float) -> None:
        """Whole rounds until the time is up, then back to two shards. Raises `SessionFailed`."""
        began = time.monotonic()
        for each in script(seed):
            self.round(each)
            if time.monotonic() - began >= seconds:
                break
        if self.shards() != 2:
            self.round(Round(2, ()))

    def round(self, each: Round) -> None:
        self.whole()
        self.note(f"reshard to {each.shards}")
        operation = self.start("reshard", to=each.shards, soak=0.0, batch=64)
        for disturbance in each.disturbances:
            time.sleep(disturbance.after)
            self.disturb(disturbance)
        self.finished(operation)
        self.settled()

    def disturb(self, each: Disturbance) -> None:
        self.note(f"{each.kind} after {each.after:.1f} s")
        status = self.status()
        if each.kind == "kill-primary":
            shard = status["shards"][int(each.pick * len(status["shards"]))]
            self.plane.acknowledge(shard["name"])
            self.kill(int(instances(status)[shard["primary"]]["pid"] or 0))
        elif each.kind == "kill-control-plane":
            self.kill(int(status["controlPlane"]["pid"]))
        elif each.kind == "kill-service":
            services = [one for one in instances(status).values() if one["kind"] == "service"]
            self.kill(int(services[int(each.pick * len(services))]["pid"] or 0))
        elif each.kind == "backup":
            self.attempt("backup", target="s1", kind="incremental" if each.pick < 0.7 else "full")
        else:
            self.attempt("restore-point", name=f"soak-{len(self.done)}")

    def kill(self, pid: int) -> None:
        """What has died by itself meanwhile needs no killing."""
        if pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def attempt(self, verb: str, **asked: Any) -> None:
        """A guard may refuse it: something else goes on just then."""
        answer = self.post("/v1/operations", {"verb": verb, "args": asked})
        if not answer.is_success and answer.status_code not in (404, 409, 422, 503):
            raise SessionFailed(f"{verb}: {answer.status_code} {answer.text[:300]}")
        self.note(f"{verb}: {answer.status_code}")

    def start(self, verb: str, **asked: Any) -> str:
        """The operation, once nothing else holds its locks."""
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            answer = self.post("/v1/operations", {"verb": verb, "args": asked})
            if answer.is_success:
                return str(answer.json()["id"])
            if time.monotonic() > deadline:
                raise SessionFailed(f"{verb} was not begun: {answer.text[:500]}")
            time.sleep(1.0)

    def finished(self, operation: str) -> None:
        """It has succeeded, resumed as often as a disturbance made it fail."""
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            found = self.plane.get(f"/v1/operations/{operation}") or {}
            if found.get("state") == "succeeded":
                return
            if found.get("state") in FINAL:
                self.note(f"resume {operation}: {(found.get('problem') or {}).get('detail')}")
                self.post(f"/v1/operations/{operation}/resume", {})
            if time.monotonic() > deadline:
                raise SessionFailed(f"{operation} did not end: {found.get('state')} {found}"[:900])
            time.sleep(LOOK_SECONDS)

    def settled(self) -> None:
        """No move is left, and the platform is whole."""
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            left = self.plane.get("/v1/reshard")
            if left is not None and not left["items"] and left["operation"] is None:
                self.whole()
                return
            if time.monotonic() > deadline:
                raise SessionFailed(f"moves are left: {left}"[:900])
            time.sleep(LOOK_SECONDS)

    def whole(self) -> JSON:
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            status = self.plane.status()
            if status and status["state"] == "healthy":
                return status
            if time.monotonic() > deadline:
                raise SessionFailed(f"not whole: {missing(status)}")
            time.sleep(LOOK_SECONDS)

    def status(self) -> JSON:
        """Of a control plane that may just be starting again."""
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            status = self.plane.status()
            if status:
                return status
            if time.monotonic() > deadline:
                raise SessionFailed(f"{CONTROL_PLANE} does not answer")
            time.sleep(LOOK_SECONDS)

    def shards(self) -> int:
        return sum(each["name"] != "catalog" for each in self.status()["shards"])

    def post(self, path: str, document: JSON) -> Any:
        """Asked again while the control plane is away, under one key where that counts."""
        deadline = time.monotonic() + ROUND_SECONDS
        if "verb" in document:
            document = {**document, "idempotencyKey": f"soak-{time.time_ns()}"}
        while True:
            try:
                return self.plane.http.post(path, json=document)
            except httpx.TransportError as failure:
                if time.monotonic() > deadline:
                    raise SessionFailed(f"{path}: {failure!r}") from failure
            time.sleep(LOOK_SECONDS)

    def note(self, line: str) -> None:
        self.done.append(line)
        self.tell(line)
