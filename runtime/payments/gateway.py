"""The payment gateway's API, as this service uses it."""

from __future__ import annotations

from typing import Any

import httpx

from runtime.errors import Unavailable
from runtime.outside import KEY, Outside
from runtime.payments.rules import (
    Charge,
    Charged,
    NothingCharged,
    Payment,
    Refunded,
    charge_key,
    charge_of,
    finding,
    refund_key,
)
from runtime.settings import Settings

TIMEOUT_SECONDS = 5.0
PAGE = 500
NAME = "payment gateway"
HINT = (
    "Orders are taken meanwhile, and charged when it is back. Look at REGIONCTL_PAYMENT_GATEWAY"
    " and at the gateway's own state if this goes on."
)


class Gateway:
    """Every method may be repeated, and raises `Unavailable`."""

    def __init__(self, settings: Settings) -> None:
        key = settings.secrets.get("gatewayKey", "")
        self._outside = Outside(
            NAME,
            settings.payment_gateway,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT_SECONDS,
            hint=HINT,
        )

    async def charge(self, payment: Payment) -> Charged | Refunded:
        """A request that the gateway will never take is as good as declined."""
        body = {
            "amount_cents": payment.amount_cents,
            "currency": payment.currency,
            "method": payment.method,
            "reference": str(payment.order_id),
        }
        answer = await self._outside.call(
            "POST", "/v1/charges", json=body, headers={KEY: charge_key(payment.order_id)}
        )
        if answer.status_code in (400, 422):
            return Charged(None, False, "rejected-by-gateway")
        return finding(_charge(answer))

    async def look(self, order_id: int) -> Charged | Refunded | NothingCharged:
        """What the gateway has for an order; a captured charge before a declined one."""
        answer = await self._outside.call("GET", "/v1/charges", params={"reference": str(order_id)})
        found = [charge for charge in _charges(answer)[0] if charge.reference == str(order_id)]
        found.sort(key=lambda charge: ("captured", "refunded", "declined").index(charge.status))
        return finding(found[0]) if found else NothingCharged()

    async def refund(self, order_id: int | str, transaction_id: str) -> Refunded:
        answer = await self._outside.call(
            "POST",
            f"/v1/charges/{transaction_id}/refund",
            json={},
            headers={KEY: refund_key(order_id)},
        )
        charge = _charge(answer)
        if charge.status != "refunded":
            raise _strange(answer)
        return Refunded(charge.id, charge.refund_id)

    async def charges(self, after: int) -> tuple[list[Charge], int | None]:
        """Charges made or refunded after `after` (µs since 1970), in the order of that; and where
        the next page begins, None on the last."""
        answer = await self._outside.call(
            "GET", "/v1/charges", params={"changed_after": str(after), "limit": str(PAGE)}
        )
        return _charges(answer)

    async def close(self) -> None:
        await self._outside.close()


def _charge(answer: httpx.Response) -> Charge:
    if answer.status_code not in (200, 201):
        raise _strange(answer)
    try:
        return charge_of(answer.json())
    except ValueError as error:
        raise _strange(answer) from error


def _charges(answer: httpx.Response) -> tuple[list[Charge], int | None]:
    if answer.status_code != 200:
        raise _strange(answer)
    try:
        document: Any = answer.json()
        following = document["next"]
        charges = [charge_of(each) for each in document["charges"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _strange(answer) from error
    return charges, following if type(following) is int else None


def _strange(answer: httpx.Response) -> Unavailable:
    return Unavailable(
        f"The {NAME} answers {answer.status_code} to {answer.request.method}"
        f" {answer.request.url.path}, which says nothing about the payment.",
        hint="A 401 means that gatewayKey of the secrets is not the gateway's key."
        if answer.status_code == 401
        else HINT,
    )
