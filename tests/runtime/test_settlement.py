"""Which contradictions between an order and what others recorded of it are told, and which wait."""

from __future__ import annotations

from typing import Any

import pytest

from runtime import checks, settlement
from runtime.events import event_id
from runtime.shardmap import slot_of
from tests.runtime.conftest import Platform

USER = 7
ORDER = (1 << 22) | (slot_of(USER) << 12)


def row(status: str, stock: str, payment: str, paid: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": 1, "status": status, "stock": stock, "payment": payment, "paid": paid,
        "total_cents": 5, "amount_cents": 5, "cancel_requested": False, "calm": True, **more,
    }  # fmt: skip


AT_REST = [
    (row("confirmed", "reserved", "captured", "captured"), "reserved"),
    (row("cancelled", "returned", "refunded", "refunded"), "returned"),
    (row("cancelled", "refused", "void", "void"), "refused"),
    (row("cancelled", "returned", "declined", "declined"), None),
]


@pytest.mark.parametrize(("order", "outcome"), AT_REST)
def test_an_order_at_rest_is_not_told(order: dict[str, Any], outcome: str | None) -> None:
    assert settlement.payment_fault(order) is None
    assert settlement.stock_fault(order, outcome) is None
    assert settlement.unsettled(order, gateway_waits=False) is None


@pytest.mark.parametrize(
    "order",
    [
        row("confirmed", "reserved", "captured", "captured", amount_cents=4),
        row("confirmed", "reserved", "captured", "captured", cancel_requested=True),
        row("confirmed", "reserved", "captured", "refunded"),
        row("confirmed", "reserved", "captured", None),
        row("cancelled", "returned", "captured", "captured"),
        row("cancelled", "returned", "captured", "refunded"),
        row("placed", "reserved", "pending", "captured"),
        row("placed", "reserved", "pending", "declined"),
    ],
)
def test_an_order_that_contradicts_its_payment_is_told_once_it_is_calm(
    order: dict[str, Any],
) -> None:
    assert settlement.payment_fault(order)
    amount_is_wrong = order["amount_cents"] != order["total_cents"]
    assert bool(settlement.payment_fault({**order, "calm": False})) == amount_is_wrong


@pytest.mark.parametrize(
    ("order", "outcome"),
    [
        (AT_REST[0][0], None),
        (AT_REST[0][0], "returned"),
        (AT_REST[0][0], "mixed"),
        (AT_REST[1][0], "reserved"),
        (AT_REST[2][0], "reserved"),
        (row("placed", "reserved", "pending", "pending"), "returned"),
    ],
)
def test_an_order_that_contradicts_the_catalog_is_told_once_it_is_calm(
    order: dict[str, Any], outcome: str | None
) -> None:
    assert settlement.stock_fault(order, outcome)
    assert settlement.stock_fault({**order, "calm": False}, outcome) is None


@pytest.mark.parametrize(
    ("order", "gateway_waits", "told"),
    [
        (row("placed", "reserved", "pending", "pending"), True, False),
        (row("placed", "reserved", "pending", None), True, False),
        (row("placed", "reserved", "pending", None), False, True),
        (row("placed", "pending", "pending", "pending"), True, True),
        (row("cancelled", "reserved", "void", "void"), True, True),
        (row("cancelled", "returned", "captured", "captured", cancel_requested=True), True, False),
        (row("placed", "pending", "pending", None, calm=False), False, False),
    ],
)
def test_an_order_may_wait_for_the_payment_gateway_but_not_for_its_stock(
    order: dict[str, Any], gateway_waits: bool, told: bool
) -> None:
    assert bool(settlement.unsettled(order, gateway_waits=gateway_waits)) == told


@pytest.mark.process
async def test_what_databases_lost_is_found_and_asked_for_again(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    """A confirmed order whose reservation the catalog lost, and a mail that nobody sent."""
    await shard_db.execute(
        "INSERT INTO orders (id, user_id, status, stock, payment, idempotency_key, request_hash, "
        "currency, total_cents, created_at, updated_at) VALUES ($1, $2, 'confirmed', 'reserved', "
        "'captured', 'k', '', 'USD', 5, now(), now() - interval '1 hour')",
        *(ORDER, USER),
    )
    await shard_db.execute(
        "INSERT INTO order_items (user_id, order_id, sku, quantity, unit_price_cents) "
        "VALUES ($2, $1, 'MUG-ONCALL', 1, 5)",
        *(ORDER, USER),
    )
    await shard_db.execute(
        "INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status, "
        "updated_at) VALUES ($2, $1, 5, 'USD', 'card', 'captured', now() - interval '1 hour')",
        *(ORDER, USER),
    )
    payment = event_id(ORDER, "PaymentProcessed")
    for event, kind in ((ORDER, "OrderCreated"), (payment, "PaymentProcessed")):
        await shard_db.execute(
            "INSERT INTO outbox (user_id, event_id, kind, payload, created_at, relayed_at) VALUES "
            "($1, $2, $3, jsonb_build_object('order_id', $4::bigint), now() - interval '1 hour', "
            "now() - interval '1 hour')",
            *(USER, event, kind, ORDER),
        )

    async def broken() -> list[str]:
        found = await checks.invariants({"s1": shard_db}, catalog_db)
        return [each["name"] for each in found if not each["held"]]

    assert await broken() == ["no-event-lost", "stock-follows-orders"]
    told = (
        "INSERT INTO notifications (user_id, event_id, kind, recipient, status) "
        "VALUES ($1, $2, 'OrderCreated', 'ada@example.org', 'sent')"
    )
    await shard_db.execute(told, USER, ORDER)
    # Mails go out by their turn, an hour late: the payment's may be the next.
    assert await broken() == ["no-event-lost", "stock-follows-orders"]
    earlier = "UPDATE outbox SET relayed_at = relayed_at - interval '2 minutes' WHERE event_id = $1"
    await shard_db.execute(earlier, payment)
    assert await broken() == ["no-event-lost", "stock-follows-orders", "users-told"]
    assert await checks.resend_events(shard_db, catalog_db) == 2
    movement = (
        "INSERT INTO stock_movements (event_id, sku, order_id, user_id, quantity, outcome) "
        "VALUES ($1, 'MUG-ONCALL', $1, $2, 1, 'reserved')"
    )
    await catalog_db.execute(movement, ORDER, USER)
    await catalog_db.execute("UPDATE products SET stock = stock - 1 WHERE sku = 'MUG-ONCALL'")
    await shard_db.execute(told, USER, payment)
    assert await broken() == []
    await catalog_db.execute("UPDATE stock_movements SET outcome = 'returned'")
    await catalog_db.execute("UPDATE products SET stock = stock + 1 WHERE sku = 'MUG-ONCALL'")
    assert await broken() == ["stock-follows-orders"]
    assert await checks.resend_events(shard_db, catalog_db) == 1


@pytest.mark.process
async def test_an_export_holds_nothing_that_opens_an_account(
    platform: Platform, shard_db: checks.Database
) -> None:
    await shard_db.execute(
        "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at, "
        "password_hash) VALUES (7, 'a@b.org', 'Ada', 'k', 'digest', now(), 'the-password-hash')"
    )
    await shard_db.execute(
        "INSERT INTO sessions (user_id, id, client_id, token_hash, previous_hash, rotation_key, "
        "created_at, expires_at) VALUES (7, 9, 'web', 'now', 'before', 'key', now(), now())"
    )
    orphans = [
        *await checks._export(shard_db, "users", "user_id", [7]),
        *await checks._export(shard_db, "sessions", "id", [9]),
    ]
    assert [each["row"]["user_id"] for each in orphans] == [7, 7]
    assert not any(secret in each["row"] for each in orphans for secret in checks.SECRETS)
    assert {table for table, _, _ in checks.SALVAGED} >= {"payments", "sessions", "notifications"}


@pytest.mark.process
async def test_stock_of_an_order_that_no_shard_has_is_told_and_put_back(
    platform: Platform, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    async def held(**options: Any) -> bool:
        found = await checks.invariants({"s1": shard_db}, catalog_db, **options)
        return next(each["held"] for each in found if each["name"] == "stock-has-orders")

    moved = (
        "INSERT INTO stock_movements (event_id, sku, order_id, user_id, quantity, outcome, "
        "recorded_at) VALUES ($1, 'MUG-ONCALL', $1, $2, 1, $3, now() - interval '1 minute')"
    )
    await catalog_db.execute(moved, 5, 0, "added")
    await catalog_db.execute(moved, 6, USER, "returned")
    assert await held()
    await catalog_db.execute(moved, ORDER, USER, "reserved")
    assert await held(settled_seconds=3600)
    assert not await held()
    assert await checks.return_orphan_stock({"s1": shard_db}, catalog_db) == 1
    assert await held()
