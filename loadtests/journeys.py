"""What a customer does between arriving and leaving: the unit of arrival of a load test.

checkout   browse → order → pay → check: waits until the order's payment is settled
refresh    the page of one's orders, and one's profile, are loaded again
search     looks for words in the products and in one's orders
cancel     orders, and takes it back
browse     the product list alone: what static content costs

A journey is a list of requests, one after the other, ended by the first that fails. It knows
nothing of HTTP or clocks: `Shopper` sends, measures and judges the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

JSON = dict[str, Any]
Check = Callable[[Any], bool]
SETTLED = ("captured", "declined", "void", "refunded")
POLL_SECONDS = 0.25
# An order takes four events to come to rest; who has waited so long has left.
PATIENCE_SECONDS = 10.0


class Failed(Exception):
    """A request of the journey failed, and is recorded; or the journey itself: `kind` says how."""

    def __init__(self, kind: str = "") -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    document: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Visit:
    """Who comes, what for, and a key that no other visit of any run has."""

    user: str
    sku: str
    quantity: int
    key: str


class Shopper(Protocol):
    def ask(
        self,
        endpoint: str,
        path: str,
        *,
        method: str = "GET",
        body: JSON | None = None,
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200,),
        check: Check | None = None,
    ) -> Answer:
        """Sends one request under the name `endpoint`. Raises `Failed`, also when `check` finds
        the answer's document wrong."""

    def pause(self, seconds: float) -> None:
        """Waits; what follows is meant to start afterwards."""

    def waited(self) -> float:
        """Seconds since the journey was meant to begin."""


def browse(shopper: Shopper, visit: Visit) -> None:
    shopper.ask("GET /products", "/api/v1/products", check=_has_products)


def checkout(shopper: Shopper, visit: Visit) -> None:
    browse(shopper, visit)
    shopper.ask("GET /products/{sku}", f"/api/v1/products/{visit.sku}", check=_is("sku", visit.sku))
    id, seen = _order(shopper, visit)
    _await_payment(shopper, id, seen)
    path = f"/api/v1/orders/{id}"
    shopper.ask("GET /orders/{id}", path, headers=seen, check=_is("id", id))


def refresh(shopper: Shopper, visit: Visit) -> None:
    path = f"/api/v1/orders?user_id={visit.user}&limit=20"
    shopper.ask("GET /orders", path, check=lambda found: isinstance(found["orders"], list))
    shopper.ask("GET /users/{id}", f"/api/v1/users/{visit.user}", check=_is("id", visit.user))


def search(shopper: Shopper, visit: Visit) -> None:
    word = visit.sku.partition("-")[0]
    shopper.ask("GET /products?q", f"/api/v1/products?q={word}", check=_has_list)
    path = f"/api/v1/orders/search?user_id={visit.user}&q={word}"
    shopper.ask("GET /orders/search", path, check=_has_list)


def cancel(shopper: Shopper, visit: Visit) -> None:
    id, _ = _order(shopper, visit)
    shopper.ask(
        "POST /orders/{id}/cancel",
        f"/api/v1/orders/{id}/cancel",
        method="POST",
        check=_is("status", "cancelled"),
    )


JOURNEYS: Mapping[str, Callable[[Shopper, Visit], None]] = {
    "checkout": checkout,
    "refresh": refresh,
    "search": search,
    "cancel": cancel,
    "browse": browse,
}


def _order(shopper: Shopper, visit: Visit) -> tuple[str, dict[str, str]]:
    """The new order's id, and the headers with which a reader is sure to see it."""
    answer = shopper.ask(
        "POST /orders",
        "/api/v1/orders",
        method="POST",
        body={
            "user_id": visit.user,
            "items": [{"sku": visit.sku, "quantity": visit.quantity}],
        },
        headers={"Idempotency-Key": visit.key},
        expect=(201,),
        check=_is("user_id", visit.user),
    )
    position = answer.headers.get("x-regionctl-position")
    return str(answer.document["id"]), {"X-Regionctl-Position": position} if position else {}


def _await_payment(shopper: Shopper, id: str, seen: dict[str, str]) -> None:
    """That it was declined, or the stock was out, is an answer too. Raises `Failed`."""
    begun = shopper.waited()
    while True:
        answer = shopper.ask(
            "GET /orders/{id}/payment",
            f"/api/v1/orders/{id}/payment",
            headers=seen,
            check=_is("order_id", id),
        )
        if answer.document.get("status") in SETTLED:
            return
        if shopper.waited() - begun > PATIENCE_SECONDS:
            raise Failed(f"not paid after {PATIENCE_SECONDS:g} s")
        shopper.pause(POLL_SECONDS)


def _is(key: str, value: str) -> Check:
    return lambda found: str(found[key]) == value


def _has_list(found: Any) -> bool:
    return isinstance(found, dict) and any(isinstance(each, list) for each in found.values())


def _has_products(found: Any) -> bool:
    return any(isinstance(each, list) and each for each in found.values())
