"""The whole platform as its users meet it: the command line, real servers, a client at the edge.

One platform serves the folder; the tests run in order, as one evening of an operator does.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import pytest

from tests.system.conftest import Operator
from tests.system.session import Platform, Shopper

pytestmark = [pytest.mark.process, pytest.mark.alone]

RECOVERY_SECONDS = 30.0


class Customers:
    """Eight of them, so that every shard has some; requests wait while the platform recovers."""

    def __init__(self, platform: Platform) -> None:
        self.shoppers = [Shopper(platform) for _ in range(8)]
        for shopper in self.shoppers:
            shopper.register()
            shopper.log_in()
        self.sku = self.shoppers[0].product()["sku"]

    def order_everywhere(self) -> dict[str, Shopper]:
        """One order of each, by its id."""
        return {shopper.order(self.sku): shopper for shopper in self.shoppers}

    @property
    def retries(self) -> int:
        """How many requests had to be sent again."""
        return sum(shopper.receipts.retries for shopper in self.shoppers)

    def see(self, orders: dict[str, Shopper]) -> bool:
        paths = {f"/api/v1/orders/{id}": shopper for id, shopper in orders.items()}
        return all(shopper.fresh(path)["id"] in path for path, shopper in paths.items())


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def customers(operator: Operator) -> Iterator[Customers]:
    customers = Customers(operator.platform())
    yield customers
    for shopper in customers.shoppers:
        shopper.close()


def test_orders_are_taken_as_soon_as_up_has_ended(customers: Customers) -> None:
    assert customers.see(customers.order_everywhere())


def test_up_again_has_nothing_to_do(operator: Operator) -> None:
    code, stdout, stderr = operator.run("up")
    assert code == 0
    assert "nothing to do" in stdout + stderr


def test_orders_go_on_while_the_control_plane_is_dead_and_it_comes_back(
    operator: Operator, customers: Customers
) -> None:
    dead = operator.status()["controlPlane"]["pid"]
    os.kill(dead, signal.SIGKILL)
    assert customers.see(customers.order_everywhere())

    def back() -> bool:
        code, stdout, _ = operator.run("status", "-o", "json")
        return code == 0 and json.loads(stdout)["controlPlane"]["pid"] not in (None, dead)

    until(back, RECOVERY_SECONDS, "the control plane to come back")


def test_a_killed_primary_is_replaced_and_no_order_is_refused_or_lost(
    operator: Operator, customers: Customers
) -> None:
    before = customers.order_everywhere()
    retries = customers.retries
    primary = operator.shard("s1")["primary"]
    os.kill(operator.instance(primary)["pid"], signal.SIGKILL)
    during = customers.order_everywhere()
    assert customers.see(before | during)
    assert customers.retries == retries

    def redundant() -> bool:
        shard = operator.shard("s1")
        joined = any(standby["sync"] for standby in shard["standbys"])
        return shard["primary"] != primary and joined

    until(redundant, RECOVERY_SECONDS, "the old primary to stand by in sync")
    assert operator.instance(primary)["role"] == "standby"


def test_a_service_grows_and_shrinks_and_no_request_has_to_be_sent_again(
    operator: Operator, customers: Customers
) -> None:
    retries, over = customers.retries, threading.Event()

    def buy(shoppers: list[Shopper]) -> dict[str, Shopper]:
        """They take turns, so that nobody is told to wait, until it is over."""
        orders: dict[str, Shopper] = {}
        for shopper in cycle(shoppers):
            id = shopper.order(customers.sku)
            assert shopper.fresh(f"/api/v1/orders/{id}")["id"] == id
            orders[id] = shopper
            if over.wait(0.75):
                break
        return orders

    extra = ["orders-2.us-east-1a", "orders-2.us-east-1b"]
    with ThreadPoolExecutor(2) as pool:
        try:
            halves = (customers.shoppers[:4], customers.shoppers[4:])
            bought = [pool.submit(buy, half) for half in halves]
            code, _, stderr = operator.run("scale", "orders", "--to", "2", "--reason", "a sale")
            assert code == 0, stderr
            grown = {id: operator.instance(id)["state"] for id in extra}
            code, _, stderr = operator.run("scale", "orders", "--to", "1")
            assert code == 0, stderr
        finally:
            over.set()
        orders = {**bought[0].result(), **bought[1].result()}
    assert grown == dict.fromkeys(extra, "running")
    assert customers.see(orders)
    assert customers.retries == retries
    left = [each["id"] for region in operator.status()["regions"] for each in region["instances"]]
    assert not set(extra) & set(left)
    assert operator.status()["state"] == "healthy"


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
