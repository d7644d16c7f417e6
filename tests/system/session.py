"""A customer of the shop, with nothing but HTTP: what the API promises is all that it knows.

`Shopper.session` is one visit from registration to the refund. It behaves as a decent client does:
every POST carries an idempotency key and is sent again with the same key while the platform
recovers, a 429 is obeyed, and an acknowledged order is never forgotten.
"""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

JSON = dict[str, Any]

PATIENCE_SECONDS = 90.0
ANSWER_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
POLL_SECONDS = 0.3
TRY_AGAIN = frozenset({401, 408, 425, 429, 500, 502, 503, 504})


class SessionFailed(AssertionError):
    """The platform broke a promise, or did not keep it in time."""


@dataclass(frozen=True)
class Platform:
    """Where a platform is: its edge, the authority of its certificate, its mailbox's HTTP."""

    entry: str
    authority: Path
    mailbox: str

    @staticmethod
    def of(status: JSON, state: Path) -> Platform:
        """From the document of `regionctl status`."""
        host, _, port = instances(status)["mailbox"]["address"].rpartition(":")
        # The mailbox takes mails on the port that services dial; the next one is its HTTP.
        mailbox = f"http://{host or '127.0.0.1'}:{int(port) + 1}"
        return Platform(status["entryUrl"], state / "ca" / "ca.pem", mailbox)


def instances(status: JSON) -> dict[str, JSON]:
    """Every instance in a status document, wherever in it, by its id."""
    found: dict[str, JSON] = {}
    rest: list[Any] = [status]
    while rest:
        match rest.pop():
            case {"id": str(id), "kind": _, "state": _} as instance:
                found[id] = instance
            case dict() as document:
                rest += document.values()
            case list() as items:
                rest += items
    return found


@dataclass
class Receipts:
    """What was acknowledged: order → owner. `sessions` counts the visits that went well."""

    orders: dict[str, str] = field(default_factory=dict)
    sessions: int = 0
    retries: int = 0


class Patient:
    """HTTP to one place, asked again until there is a definite answer."""

    def __init__(self, base: str, authority: Path | None, receipts: Receipts) -> None:
        trust = ssl.create_default_context(cafile=str(authority)) if authority else False
        self.http = httpx.Client(
            base_url=base, verify=trust, timeout=ANSWER_SECONDS, trust_env=False
        )
        self.receipts = receipts
        self.headers: dict[str, str] = {}

    def ask(self, method: str, path: str, *, headers: JSON | None = None, **more: Any) -> Any:
        """The first answer that is neither an outage nor a wait. Raises `SessionFailed`."""
        deadline, pause, last = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE, ""
        asked = {**self.headers, **(headers or {})}
        while True:
            wait = pause
            try:
                answer = self.http.request(method, path, headers=asked, **more)
                if answer.status_code not in TRY_AGAIN:
                    return answer
                last = f"{answer.status_code} {answer.text[:300]}"
                wait = max(pause, float(answer.headers.get("Retry-After", 0)))
            except httpx.TransportError as error:
                last = repr(error)
            if time.monotonic() + wait > deadline:
                raise SessionFailed(f"{method} {path}: after {PATIENCE_SECONDS:g} s still {last}")
            self.receipts.retries += 1
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def get(self, path: str, **params: Any) -> JSON:
        """The document. Raises `SessionFailed` for any other answer than 200."""
        return self._good(self.ask("GET", path, params=params), path)

    def get_list(self, path: str, **params: Any) -> list[JSON]:
        answer = self.ask("GET", path, params=params)
        if answer.status_code != 200:
            raise SessionFailed(f"GET {path}: {answer.status_code} {answer.text[:300]}")
        found: list[JSON] = answer.json()
        return found

    def fresh(self, path: str) -> JSON:
        """The document, past every cache that a client can pass."""
        answer = self.ask("GET", path, headers={"Cache-Control": "no-cache"})
        return self._good(answer, path)

    def post(self, path: str, body: JSON | None = None) -> JSON:
        """One request, however often it has to be sent."""
        key = {"Idempotency-Key": uuid.uuid4().hex}
        return self._good(self.ask("POST", path, headers=key, json=body or {}), path)

    def _good(self, answer: httpx.Response, path: str) -> JSON:
        if not answer.is_success:
            method = answer.request.method
            raise SessionFailed(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        document: JSON = answer.json()
        return document


class Shopper(Patient):
    """A person with an account. Everything that `session` does can be done step by step."""

    def __init__(self, platform: Platform, receipts: Receipts | None = None) -> None:
        super().__init__(platform.entry, platform.authority, receipts or Receipts())
        self.platform = platform
        self.mails = Patient(platform.mailbox, None, self.receipts)
        self.email = f"{uuid.uuid4().hex}@customer.invalid"
        self.password = uuid.uuid4().hex
        self.id = ""

    def close(self) -> None:
        self.http.close()
        self.mails.http.close()

    def register(self) -> None:
        body = {"email": self.email, "name": "Customer", "password": self.password}
        self.id = str(self.post("/api/v1/users", body)["id"])

    def log_in(self) -> None:
        grant = {"grant_type": "password", "username": self.email, "password": self.password}
        key = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self.ask("POST", "/oauth/token", headers=key, data=grant)
        token = self._good(answer, "/oauth/token")["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def product(self) -> JSON:
        found: JSON = self.get("/api/v1/products", limit=5)["products"][0]
        return found

    def stock(self, sku: str) -> int:
        return int(self.fresh(f"/api/v1/products/{sku}")["stock"])

    def order(self, sku: str, quantity: int = 1, method: str = "card") -> str:
        items = [{"sku": sku, "quantity": quantity}]
        placed = self.post("/api/v1/orders", {"items": items, "payment_method": method})
        self.receipts.orders[str(placed["id"])] = self.id
        return str(placed["id"])

    def await_order(self, id: str, **wanted: str) -> JSON:
        """The order once it is as `wanted` (status, stock, payment)."""
        return self.until(
            lambda: self.get(f"/api/v1/orders/{id}"),
            lambda order: wanted.items() <= order.items(),
            f"order {id} to be {wanted}",
        )

    def await_mail(self, about: str) -> JSON:
        """The list of mails once one of them names `about`."""
        return self.until(
            lambda: {"mails": self.mails.get_list("/messages", to=self.email)},
            lambda found: any(about in mail["subject"] + mail["text"] for mail in found["mails"]),
            f"a mail about {about}",
        )

    def search(self, words: str, id: str) -> None:
        """Finds the order by a product's name."""
        self.until(
            lambda: self.get("/api/v1/orders/search", q=words),
            lambda found: id in [order["id"] for order in found["orders"]],
            f"a search for {words!r} to find order {id}",
        )

    def invoice(self, id: str) -> bytes:
        """Fetched by its signed address, without a token."""

        def ask() -> JSON:
            answer = self.ask("GET", f"/api/v1/orders/{id}/invoice")
            return dict(answer.json()) if answer.status_code == 200 else {}

        url = self.until(ask, lambda found: "url" in found, f"the invoice of {id}")["url"]
        stranger = Patient(self.platform.entry, self.platform.authority, self.receipts)
        try:
            answer = stranger.ask("GET", url)
        finally:
            stranger.http.close()
        if answer.status_code != 200 or not answer.content:
            raise SessionFailed(f"GET {url}: {answer.status_code} {answer.text[:300]}")
        return bytes(answer.content)

    def await_stock(self, sku: str, quantity: int) -> None:
        """The catalog is shown from a copy that is rewritten a moment after it changed."""
        self.until(
            lambda: {"stock": self.stock(sku)},
            lambda found: bool(found["stock"] == quantity),
            f"{sku} to have {quantity} in stock",
        )

    def cancel(self, id: str) -> None:
        self.post(f"/api/v1/orders/{id}/cancel")

    def session(self, *, alone: bool = False) -> str:
        """One whole visit; the id of its order. Who is `alone` sees the stock move exactly."""
        self.register()
        self.log_in()
        product = self.product()
        sku = product["sku"]
        before = self.stock(sku) if alone else 0
        id = self.order(sku, 2)
        self.await_order(id, status="confirmed", stock="reserved", payment="captured")
        if alone:
            self.await_stock(sku, before - 2)
        self.await_mail(id)
        self.search(product["name"], id)
        self.invoice(id)
        self.cancel(id)
        self.await_order(id, status="cancelled", stock="returned", payment="refunded")
        if alone:
            self.await_stock(sku, before)
        self.receipts.sessions += 1
        return id

    def until(self, ask: Callable[[], JSON], good: Callable[[JSON], bool], what: str) -> JSON:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not good(found := ask()):
            if time.monotonic() > deadline:
                raise SessionFailed(f"waited {PATIENCE_SECONDS:g} s for {what}: {found}")
            time.sleep(POLL_SECONDS)
        return found
