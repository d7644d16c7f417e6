"""Kills every process of a platform once in turn, while customers shop, and counts afterwards.

`Crowd` is the customers, `Tour` the killer, `reckoning` what must be true at the end: every
acknowledged order is there, once, with its owner and settled, and all invariants hold.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.system.session import Patient, Platform, Receipts, SessionFailed, Shopper, instances

JSON = dict[str, Any]

RECOVERY_SECONDS = 120.0
SETTLING_SECONDS = 120.0
# One step of a visit is waited for 90 s; the visit in which a platform recovers has one such step.
VISIT_SECONDS = 120.0
LOOK_SECONDS = 0.25
# All customers come from one address, which may log in 60 times a minute.
LOGIN_SECONDS = 1.2
CONTROL_PLANE = "control-plane"
GLOBAL_SUPERVISOR = "supervisor.global"
ORDER = ("service", "envoy", "valkey", "objects", "link", "peer", "postgres")
GONE_STOCK, GONE_MONEY = ("refused", "returned"), ("declined", "void", "refunded")


class Plane:
    """The control plane's API, with the token of the state directory."""

    def __init__(self, address: str, state: Path) -> None:
        token = (state / "control" / "token").read_text().strip()
        self.state = state
        self.http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )

    def get(self, path: str) -> JSON | None:
        """The document; None while the control plane is away."""
        try:
            answer = self.http.get(path)
        except httpx.TransportError:
            return None
        found: JSON | None = answer.json() if answer.is_success else None
        return found

    def status(self) -> JSON | None:
        return self.get("/v1/status")

    def acknowledge(self, database: str) -> None:
        """Lets the database fail over by itself again: this tour is no flapping."""
        path = f"/v1/failovers/{database}/acknowledge"
        self.http.post(path, json={"reason": "kill tour"}).raise_for_status()


class Crowd:
    """`size` customers who shop, one visit after the other, until they are sent home.

    Whoever does not end his visit within `VISIT_SECONDS` then is left alone, and counts as a
    failure that says where he stands; `VISIT_SECONDS` is not waited for when something else failed.
    """

    def __init__(self, platform: Platform, size: int = 2) -> None:
        self.platform = platform
        self.receipts = [Receipts() for _ in range(size)]
        self.failures: list[str] = []
        self._closing = threading.Event()
        self.threads = [
            threading.Thread(target=self._shop, args=(receipts,), daemon=True)
            for receipts in self.receipts
        ]

    def __enter__(self) -> Crowd:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        """Waits until everybody has ended the visit that he is in."""
        self._closing.set()
        seconds = 0.0 if failed else VISIT_SECONDS
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                stack = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))
                where = [line.name for line in stack if line.filename.endswith("session.py")]
                self.failures.append(f"a visit did not end in {seconds:g} s: {' > '.join(where)}")

    @property
    def sessions(self) -> int:
        return sum(receipts.sessions for receipts in self.receipts)

    @property
    def orders(self) -> dict[str, str]:
        return {id: owner for each in self.receipts for id, owner in each.orders.items()}

    @property
    def retries(self) -> int:
        return sum(receipts.retries for receipts in self.receipts)

    def _shop(self, receipts: Receipts) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            shopper = Shopper(self.platform, receipts)
            try:
                shopper.session()
            except Exception as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error!r}"[:1000])
            finally:
                shopper.close()
            pause = LOGIN_SECONDS * len(self.receipts) - (time.monotonic() - began)
            self._closing.wait(max(pause, 0.0))


@dataclass
class Tour:
    """`up` runs `regionctl up`, which a killed supervisor needs; `tell` gets a line a kill."""

    plane: Plane
    up: Callable[[], None]
    tell: Callable[[str], None] = print
    seconds: dict[str, float] = field(default_factory=dict)

    def targets(self) -> list[str]:
        """Every process: those that nothing depends on first, supervisors last."""
        status = self.whole()
        primaries = {shard["primary"] for shard in status["shards"]}

        def rank(instance: JSON) -> tuple[int, bool, str]:
            kinds = [*ORDER, "supervisor"]
            return kinds.index(instance["kind"]), instance["id"] in primaries, instance["id"]

        ids = [each["id"] for each in sorted(instances(status).values(), key=rank)]
        regional = [id for id in ids if instances(status)[id]["kind"] == "supervisor"]
        rest = [id for id in ids if id not in regional]
        return [*rest, CONTROL_PLANE, *regional, GLOBAL_SUPERVISOR]

    def visit(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.kill(id)

    def kill(self, id: str) -> None:
        """Kills it and waits until the platform is whole again. Raises `SessionFailed`."""
        status = self.whole()
        for shard in status["shards"]:
            if shard["primary"] == id:
                self.plane.acknowledge(shard["name"])
        pid = self._pid(status, id)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if id.startswith("supervisor."):
            self.up()
        self.whole(lambda status: self._pid(status, id) not in (0, pid), f"{id} to be back")
        self.seconds[id] = time.monotonic() - began
        self.tell(f"{id:28} back after {self.seconds[id]:5.1f} s")

    def whole(self, also: Callable[[JSON], bool] = lambda _: True, what: str = "") -> JSON:
        """The status once everything runs, every database has its standby in sync, and `also`."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            status = self.plane.status()
            if status and status["state"] == "healthy" and also(status):
                return status
            if time.monotonic() > deadline:
                raise SessionFailed(f"waited {RECOVERY_SECONDS:g} s for {what}: {missing(status)}")
            time.sleep(LOOK_SECONDS)

    def _pid(self, status: JSON, id: str) -> int:
        """0 when it does not run."""
        if id == CONTROL_PLANE:
            return int(status["controlPlane"]["pid"])
        if id == GLOBAL_SUPERVISOR:
            parent = psutil.Process(instances(status)["edge"]["pid"]).parent()
            # Orphans have another parent: that of a login session, or the first process.
            return parent.pid if parent and "supervisord" in " ".join(parent.cmdline()) else 0
        return int(instances(status)[id]["pid"] or 0)


def missing(status: JSON | None) -> str:
    if status is None:
        return "the control plane does not answer"
    down = [f"{id} {each['state']}" for id, each in instances(status).items()]
    down = [each for each in down if not each.endswith(" running")]
    alone = [
        shard["name"]
        for shard in status["shards"]
        if not any(standby["sync"] for standby in shard["standbys"])
    ]
    return f"{status['state']}; not running: {down}; without standby in sync: {alone}"


@dataclass(frozen=True)
class Reckoning:
    """What was found after everything: all of it must be empty."""

    lost: list[str]
    astray: list[str]
    doubled: list[str]
    unsettled: list[str]
    broken: list[str]

    @property
    def good(self) -> bool:
        return not (self.lost or self.astray or self.doubled or self.unsettled or self.broken)


def reckoning(platform: Platform, plane: Plane, orders: dict[str, str]) -> Reckoning:
    """Looks for every acknowledged order as the operator, past every cache."""
    operator = Patient(platform.entry, platform.authority, Receipts())
    operator.headers = _token(operator, plane.state / "control" / "clients" / "operator.json")
    lost, astray, doubled, unsettled = [], [], [], []
    deadline = time.monotonic() + SETTLING_SECONDS
    for id, owner in orders.items():
        order = _settled(operator, id, deadline)
        if order is None:
            lost.append(id)
        elif order["user_id"] != owner:
            astray.append(id)
        elif not settled(order):
            unsettled.append(f"{id}: {order['status']} {order['stock']} {order['payment']}")
    for owner in set(orders.values()):
        listed = operator.get("/api/v1/orders", user_id=owner, limit=100)["orders"]
        doubled += [each["id"] for each in listed if each["id"] not in orders]
    operator.http.close()
    return Reckoning(lost, astray, doubled, unsettled, broken(plane))


def settled(order: JSON) -> bool:
    if order["status"] == "cancelled":
        return order["stock"] in GONE_STOCK and order["payment"] in GONE_MONEY
    return bool(order["status"] == "confirmed")


def _settled(operator: Patient, id: str, deadline: float) -> JSON | None:
    """The order when it has come to rest, or as it is at the deadline; None when there is none."""
    while True:
        path = f"/api/v1/orders/{id}"
        answer = operator.ask("GET", path, headers={"Cache-Control": "no-cache"})
        if answer.status_code == 404:
            return None
        order: JSON = answer.json()
        if answer.status_code != 200 or settled(order) or time.monotonic() > deadline:
            return order
        time.sleep(LOOK_SECONDS)


def broken(plane: Plane) -> list[str]:
    """The invariants that do not hold, once events have had their time."""
    deadline = time.monotonic() + SETTLING_SECONDS
    while True:
        found = plane.get("/v1/invariants")
        broken = ["the control plane does not answer"] if found is None else []
        for each in found["items"] if found else ():
            if not each["held"]:
                broken.append(f"{each['name']}: {each['detail']}")
        if not broken or time.monotonic() > deadline:
            return broken
        time.sleep(1.0)


def _token(http: Patient, file: Path) -> dict[str, str]:
    client = json.loads(file.read_text())
    answer = http.ask(
        "POST",
        "/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(client["client_id"], client["client_secret"]),
    )
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}
