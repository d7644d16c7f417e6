"""The whole platform as its users meet it: the command line, real servers, a client at the edge.

One platform serves the module; the tests run in order, as one evening of an operator does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import leftovers
from infra.local.ports import holder, table
from infra.topology import load

pytestmark = pytest.mark.process

RECOVERY_SECONDS = 30.0


class Operator:
    """`regionctl` on one state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *words: str, seconds: float = 240.0) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words, "--state-dir", str(self.root)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, *words: str) -> Any:
        code, stdout, stderr = self.run(*words, "-o", "json")
        assert stdout, (code, stderr)
        return json.loads(stdout)

    def status(self) -> Any:
        return self.ask("status")

    def instance(self, id: str) -> Any:
        regions = self.status()["regions"]
        return next(each for region in regions for each in region["instances"] if each["id"] == id)

    def shard(self, name: str) -> Any:
        return next(shard for shard in self.status()["shards"] if shard["name"] == name)


class Customer:
    """A client that trusts the platform's own authority and keeps its keys when it tries again."""

    def __init__(self, entry: str, authority: Path) -> None:
        trust = ssl.create_default_context(cafile=str(authority))
        self.http = httpx.Client(base_url=entry, verify=trust, timeout=15)
        sku = self.http.get("/api/v1/products").json()["products"][0]["sku"]
        self.items = [{"sku": sku, "quantity": 1}]
        self.users = [self._register() for _ in range(8)]

    def _register(self) -> str:
        who = uuid.uuid4().hex
        answer = self.http.post(
            "/api/v1/users",
            json={"email": f"{who}@customer.invalid", "name": "Customer"},
            headers={"Idempotency-Key": who},
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def order(self, user: str) -> str:
        answer = self.http.post(
            "/api/v1/orders",
            json={"user_id": user, "items": self.items},
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def order_everywhere(self) -> list[str]:
        """One order of each user, so on every shard."""
        return [self.order(user) for user in self.users]

    def sees(self, order: str) -> bool:
        return self.http.get(f"/api/v1/orders/{order}").status_code == 200


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def free_offset() -> int:
    topology = load("two-regions")
    for offset in range(2_000 + os.getpid() % 100 * 100, 14_000, 100):
        if not any(holder(port) for port in table(topology, offset).all()):
            return offset
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    folder = Path(tempfile.mkdtemp(prefix="regionctl-system-"))
    folder.chmod(0o711)
    root = folder / "state"
    try:
        code, _, stderr = Operator(root).run("up", "--port-offset", str(free_offset()))
        assert code == 0, stderr
        yield Operator(root)
    finally:
        leftovers.end(root)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def customer(operator: Operator) -> Iterator[Customer]:
    customer = Customer(operator.status()["entryUrl"], operator.root / "ca" / "ca.pem")
    yield customer
    customer.http.close()


def test_orders_are_taken_as_soon_as_up_has_ended(customer: Customer) -> None:
    assert all(customer.sees(order) for order in customer.order_everywhere())


def test_up_again_has_nothing_to_do(operator: Operator) -> None:
    code, stdout, stderr = operator.run("up")
    assert code == 0
    assert "nothing to do" in stdout + stderr


def test_orders_go_on_while_the_control_plane_is_dead_and_it_comes_back(
    operator: Operator, customer: Customer
) -> None:
    dead = operator.status()["controlPlane"]["pid"]
    os.kill(dead, signal.SIGKILL)
    assert all(customer.sees(order) for order in customer.order_everywhere())

    def back() -> bool:
        code, stdout, _ = operator.run("status", "-o", "json")
        return code == 0 and json.loads(stdout)["controlPlane"]["pid"] not in (None, dead)

    until(back, RECOVERY_SECONDS, "the control plane to come back")


def test_a_killed_primary_is_replaced_and_no_order_is_refused_or_lost(
    operator: Operator, customer: Customer
) -> None:
    before = customer.order_everywhere()
    primary = operator.shard("s1")["primary"]
    os.kill(operator.instance(primary)["pid"], signal.SIGKILL)
    during = customer.order_everywhere()
    assert all(customer.sees(order) for order in before + during)

    def redundant() -> bool:
        shard = operator.shard("s1")
        joined = any(standby["sync"] for standby in shard["standbys"])
        return shard["primary"] != primary and joined

    until(redundant, RECOVERY_SECONDS, "the old primary to stand by in sync")
    assert operator.instance(primary)["role"] == "standby"


def test_the_drill_passes_is_verified_and_proves_its_row(operator: Operator) -> None:
    code, stdout, stderr = operator.run("drill", "run", "database-failure", "-o", "json")
    assert code == 0, stderr
    report = json.loads(stdout)
    assert report["verdict"] == "passed"
    assert report["ledger"]["lost"] == 0
    assert report["selfTest"]["planted"] == report["selfTest"]["caught"] > 0
    written = operator.root / "drills" / report["operation"] / "report.json"
    code, _, stderr = operator.run("drill", "verify-report", str(written))
    assert code == 0, stderr
    rows = {row["scenario"]: row["state"] for row in operator.ask("dr")["items"]}
    assert rows["database-failure"] == "proven"
    assert rows["data-corruption"] == "not proven"


def test_down_with_delete_leaves_no_process_and_no_file(operator: Operator) -> None:
    code, _, stderr = operator.run("down", "--delete-data", "--confirm", "two-regions")
    assert code == 0, stderr
    assert not operator.root.exists()
    assert leftovers.find(operator.root) == []
