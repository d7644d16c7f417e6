"""HTTP of payments: what an order's payment has come to, its invoice, and the gateway's webhook."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from runtime.context import Background, Context
from runtime.errors import Invalid, NotFound, Refused, Unauthorized, Unavailable
from runtime.identity import caller
from runtime.objects import INVOICES, Objects
from runtime.payments import invoice, rules, store
from runtime.payments.consumer import Consumer
from runtime.payments.gateway import Gateway
from runtime.payments.reconciler import Reconciler
from runtime.payments.rules import Charge, Turn
from runtime.payments.schemas import Hook, HookData, Invoice, Payment
from runtime.payments.settle import Settler
from runtime.payments.store import Known
from runtime.shardmap import slot_of_order
from runtime.shards import Done, of_slot
from runtime.wire import (
    PRIVATE,
    SECURED,
    IfNoneMatch,
    PositionHeader,
    answer,
    compact,
    money,
    parse_id,
    parse_position,
    placed_at,
    tagged,
)

log = logging.getLogger(__name__)

INVOICE_SECONDS = 3600
OPEN: dict[str, Any] = {
    "security": [],
    # https://www.standardwebhooks.com: the signature is of the three and the body.
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": Hook.model_json_schema(ref_template="#/components/schemas/{model}")
            }
        },
    },
}


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes, the consumer of orders, and the comparison with the gateway."""
    gateway = Gateway(context.settings)
    settler = Settler(context, gateway)
    reconciler = Reconciler(context, gateway, settler)
    consumer = Consumer(context, settler)
    routes = APIRouter(prefix="/api/v1")
    _add_reading(routes, context)
    _add_webhook(routes, context, settler)

    async def take() -> None:
        try:
            await consumer.run()
        finally:
            await gateway.close()

    return routes, {"consumer": take, "reconciler": reconciler.run}


def _add_reading(routes: APIRouter, context: Context) -> None:
    objects = Objects(context.settings)

    @routes.get("/orders/{order_id}/payment", response_model=Payment, openapi_extra=SECURED)
    async def payment(
        request: Request,
        order_id: str,
        position: PositionHeader = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        done = await _known(context, request, order_id, position)
        # With the epoch: a failover between regions may make a version anew.
        found = done.value.payment
        tag = f'"{found.order_id}-{done.place.epoch}.{found.version}"'
        body = compact(_document(done.value))
        return tagged(body, tag, if_none_match, placed_at(done) | PRIVATE)

    @routes.get("/orders/{order_id}/invoice", response_model=Invoice, openapi_extra=SECURED)
    async def get_invoice(
        request: Request, order_id: str, position: PositionHeader = None
    ) -> Response:
        done = await _known(context, request, order_id, position)
        if done.value.payment.status not in ("captured", "refunded"):
            raise Refused(
                f"Order {order_id} is not paid: its payment is {done.value.payment.status}.",
                hint=f"GET /api/v1/orders/{order_id}/payment says when it is captured.",
            )
        expires = context.clock.now() + timedelta(seconds=INVOICE_SECONDS)
        url = await _invoice(context, objects, done.value)
        document = {"url": url, "expires_at": expires.isoformat()}
        return answer(document, headers={"Cache-Control": "private, no-store"})


async def _known(
    context: Context, request: Request, order_id: str, position: str | None
) -> Done[Known]:
    """Raises `NotFound`, also for somebody else's order: that it exists is not to be told."""
    who = caller(request)
    id = parse_id(order_id)
    done = await context.shards.read(
        of_slot(slot_of_order(id)),
        lambda connection, _: store.of_orders(connection, [id]),
        position=parse_position(position),
    )
    found = done.value.get(id)
    if found is None or not who.may_act_for(found.payment.user_id):
        raise NotFound(f"There is no order {order_id}.")
    return Done(found, done.place, done.endpoint)


async def _invoice(context: Context, objects: Objects, known: Known) -> str:
    """The signed URL of the invoice, which is made when it is first asked for."""
    key = invoice.key_of(known.payment)
    if not await objects.exists(INVOICES, key):
        done = await context.shards.read(
            of_slot(slot_of_order(known.payment.order_id)),
            lambda connection, _: store.lines(connection, known.payment),
        )
        page = invoice.page(known.payment, known.ordered_at, done.value)
        await objects.put(INVOICES, key, page, "text/html; charset=utf-8")
    return objects.sign(INVOICES, key, INVOICE_SECONDS)


def _add_webhook(routes: APIRouter, context: Context, settler: Settler) -> None:
    secret = context.settings.secrets.get("webhookSecret", "")
    webhook = Webhook(secret) if secret else None

    @routes.post("/payments/webhook", status_code=204, openapi_extra=OPEN)
    async def hook(request: Request) -> Response:
        if webhook is None:
            raise Unavailable(
                "This service cannot check the gateway's signature.",
                hint="Put webhookSecret into the secrets of payments.",
            )
        body = await request.body()
        try:
            webhook.verify(body, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            raise Unauthorized("The webhook's signature is not good, or is too old.") from error
        try:
            told = Hook.model_validate_json(body)
        except ValidationError as error:
            raise Invalid(f"The webhook's body: {error.error_count()} faults.") from error
        await _learn(context, settler, told.data)
        return Response(status_code=204)


async def _learn(context: Context, settler: Settler, told: HookData) -> None:
    """What a charge says, written to its order's payment, and what follows from it done."""
    order_id = rules.order_of(told.reference)
    if order_id is None:
        return
    done = await context.shards.read(
        of_slot(slot_of_order(order_id)),
        lambda connection, _: store.of_orders(connection, [order_id]),
    )
    known = done.value.get(order_id)
    if known is None or not known.stored:
        return
    charge = Charge(told.id, told.reference, told.status, told.reason, told.refund_id, told.changed)
    change = rules.finding(charge)
    payment: rules.Payment | None = known.payment
    if rules.advance(known.payment, change) != known.payment:
        payment = await settler.note(Turn(known.payment.user_id, order_id, change))
    _, problems = await settler.settle([payment] if payment else [])
    if problems:
        # What was told is written; the rest is for the reconciler.
        log.warning("refund to be repeated", extra={"data": {"reason": problems[0].detail}})


def _document(known: Known) -> dict[str, Any]:
    payment = known.payment
    return {
        "order_id": str(payment.order_id),
        "user_id": str(payment.user_id),
        "status": payment.status,
        "amount": money(payment.amount_cents, payment.currency),
        "method": payment.method,
        "transaction_id": payment.transaction_id,
        "refund_id": payment.refund_id,
        "reason": payment.reason,
        "cancel_requested": payment.cancel_requested,
        "updated_at": (payment.updated_at or known.ordered_at).isoformat(),
    }
