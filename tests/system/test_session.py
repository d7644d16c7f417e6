"""What a customer lives through, from registration to refund; also while processes die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.conftest import Operator
from tests.system.session import Shopper
from tests.system.tour import CONTROL_PLANE, Crowd, Tour, reckoning

pytestmark = [pytest.mark.process, pytest.mark.alone]


@pytest.fixture
def shopper(operator: Operator) -> Iterator[Shopper]:
    shopper = Shopper(operator.platform())
    yield shopper
    shopper.close()


def test_a_visit_from_registration_to_refund_leaves_the_stock_as_it_was(shopper: Shopper) -> None:
    order = shopper.session(alone=True)
    about = [mail["subject"] for mail in shopper.mails.get_list("/messages", to=shopper.email)]
    assert len(about) >= 1
    assert shopper.fresh(f"/api/v1/orders/{order}")["status"] == "cancelled"


def test_a_declined_card_ends_with_a_cancelled_order_and_all_stock_back(shopper: Shopper) -> None:
    shopper.register()
    shopper.log_in()
    sku = shopper.product()["sku"]
    before = shopper.stock(sku)
    order = shopper.order(sku, 3, "card-declined")
    found = shopper.await_order(order, status="cancelled", stock="returned", payment="declined")
    assert found["reason"] == "payment-declined"
    assert shopper.stock(sku) == before


def test_an_order_of_somebody_else_is_not_there(operator: Operator, shopper: Shopper) -> None:
    shopper.register()
    shopper.log_in()
    order = shopper.order(shopper.product()["sku"])
    stranger = Shopper(operator.platform())
    try:
        stranger.register()
        stranger.log_in()
        assert stranger.ask("GET", f"/api/v1/orders/{order}").status_code == 404
    finally:
        stranger.close()


def test_while_processes_of_each_kind_are_killed_nothing_acknowledged_is_lost(
    operator: Operator,
) -> None:
    """The most important ones; `make kills` kills every process there is."""
    plane, platform = operator.plane(), operator.platform()
    told: list[str] = []
    tour = Tour(plane, operator.up, told.append)
    serving = tour.whole()["route"]
    with Crowd(platform) as crowd:
        tour.visit([f"{name}.{serving}a" for name in ("orders", "payments", "gateway", "queue")])
        tour.visit(["payment-gateway", "edge", CONTROL_PLANE])
    assert crowd.failures == []
    assert crowd.sessions >= 2
    found = reckoning(platform, plane, crowd.orders)
    assert found.good, (found, told)
