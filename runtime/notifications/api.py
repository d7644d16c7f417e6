"""HTTP of notifications: what a user was told about an order."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from runtime import analytics
from runtime.context import Background, Context
from runtime.errors import NotFound
from runtime.events import TOLD, event_id
from runtime.identity import Caller, caller
from runtime.notifications import store
from runtime.notifications.consumer import consume
from runtime.notifications.schemas import NotificationList
from runtime.objects import Objects
from runtime.pool import Connection
from runtime.shardmap import Placement, slot_of_order
from runtime.shards import of_slot
from runtime.wire import PRIVATE, SECURED, Id, PositionHeader, answer, parse_position


def service(context: Context) -> tuple[APIRouter, Background]:
    """The route, and what sends mails and keeps events; each only where it has a server to."""
    background: dict[str, Any] = {}
    if context.settings.smtp:
        background["consumer"] = lambda: consume(context)
    if context.settings.objects:
        objects = Objects(context.settings)
        background["analytics"] = lambda: analytics.consume(context, objects)
    return _routes(context), background


def _routes(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/api/v1")

    @routes.get(
        "/orders/{order_id}/notifications",
        response_model=NotificationList,
        openapi_extra=SECURED,
        operation_id="list_order_notifications",
    )
    async def notifications(
        order_id: Id, request: Request, x_regionctl_position: PositionHeader = None
    ) -> Response:
        found = await _told(
            context, caller(request), int(order_id), parse_position(x_regionctl_position)
        )
        rows = [
            {
                "kind": each.kind,
                "recipient": each.recipient,
                "status": each.status,
                "reason": each.reason,
                "created_at": each.created_at.isoformat(),
            }
            for each in found
        ]
        return answer({"notifications": rows}, headers=PRIVATE)

    return routes


async def _told(context: Context, who: Caller, order_id: int, position: Any) -> list[store.Told]:
    """Raises `NotFound`, also for somebody else's order."""

    async def work(connection: Connection, place: Placement) -> list[store.Told] | None:
        owner = await store.owner_of(connection, order_id)
        if owner is None or not who.may_act_for(owner):
            return None
        return await store.told(connection, owner, [event_id(order_id, kind) for kind in TOLD])

    done = await context.shards.read(of_slot(slot_of_order(order_id)), work, position=position)
    if done.value is None:
        raise NotFound(f"There is no order {order_id}.")
    return done.value
