"""Payments compared with the real payment gateway."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest

from runtime import checks
from runtime.app import _context
from runtime.errors import Unavailable
from runtime.payments import consumer
from runtime.payments.gateway import Gateway
from runtime.payments.reconciler import Reconciler
from runtime.payments.settle import Settler
from tests.runtime.conftest import Platform
from tests.runtime.payment_orders import (
    USER,
    event,
    order_id,
    place,
    said,
    settings,
    statuses,
)
from tests.runtime.payment_peer import PaymentPeer

pytestmark = pytest.mark.process


async def test_the_reconciler_finishes_what_stopped_and_returns_the_money_of_lost_orders(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    stuck, half, known = await place(shard_db, [1, 2, 3])
    lost = order_id(4)
    row = """
        INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status,
                              cancel_requested, updated_at)
        VALUES ($1, $2, 500, 'USD', 'card', 'pending', $3, now() - interval '5 minutes')
    """
    await shard_db.execute(row, USER, stuck, False)
    await shard_db.execute(row, USER, half, True)
    for order in (half, known, lost):
        assert (await peer.charge(str(order))).status_code == 201
    context = _context(settings(platform, peer.url))
    context.routing.refresh()
    gateway = Gateway(context.settings)
    reconciler = Reconciler(context, gateway, Settler(context, gateway))
    try:
        await reconciler.once()
        assert (await peer.charges(lost))[0]["status"] == "captured"
        for _ in range(2):
            await reconciler.once(young=0)
    finally:
        await gateway.close()
        context.shards.close()
    assert await statuses(shard_db) == ["captured", "refunded", "captured"]
    assert (await peer.charges(lost))[0]["status"] == "refunded"
    assert (await peer.charges(known))[0]["status"] == "captured"


async def test_the_refund_of_an_old_charge_that_a_region_lost_is_learned(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    (order,) = await place(shard_db, [1])
    charge = (await peer.charge(str(order))).json()
    await shard_db.execute(
        "INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status, "
        "transaction_id) VALUES ($1, $2, 500, 'USD', 'card', 'captured', $3)",
        *(USER, order, charge["id"]),
    )
    peer.kill()
    ledger = sqlite3.connect(peer.root / "peer.db")
    week = timedelta(days=7) // timedelta(microseconds=1)
    ledger.execute("UPDATE charges SET created = created - ?, changed = changed - ?", (week, week))
    ledger.commit()
    ledger.close()
    await peer.start()
    context = _context(settings(platform, peer.url))
    context.routing.refresh()
    gateway = Gateway(context.settings)
    try:
        await gateway.refund(order, charge["id"])
        await Reconciler(context, gateway, Settler(context, gateway)).once(young=0)
    finally:
        await gateway.close()
        context.shards.close()
    assert await statuses(shard_db) == ["refunded"]


async def test_money_of_a_payment_that_was_lost_is_found_by_its_cancellation_and_by_its_age(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    cancelled, old = await place(shard_db, [1, 2])
    for order in (cancelled, old):
        # Under a key that is not the order's: as if the gateway had forgotten that one.
        assert (await peer.charge(str(order), key=f"forgotten {order}")).status_code == 201
    await shard_db.execute(
        "INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status, "
        "updated_at) VALUES ($1, $2, 2410, 'EUR', 'card', 'pending', now() - interval '21 hours')",
        *(USER, old),
    )
    context = _context(settings(platform, peer.url))
    context.routing.refresh()
    gateway = Gateway(context.settings)
    settler = Settler(context, gateway)
    try:
        take = consumer.Consumer(context, settler).take
        await take([event(cancelled, "OrderCancelled"), event(old)])
    finally:
        await gateway.close()
        context.shards.close()
    assert await statuses(shard_db) == ["refunded", "captured"]
    assert [len(await peer.charges(order)) for order in (cancelled, old)] == [1, 1]
    amount = "SELECT amount_cents FROM payments WHERE order_id = $1"
    assert await shard_db.fetchval(amount, cancelled) == 2410


async def test_one_payment_that_fails_for_ever_keeps_no_money_of_others(
    platform: Platform, shard_db: checks.Database, peer: PaymentPeer
) -> None:
    bad, returned = await place(shard_db, [1, 2])
    lost = order_id(3)
    await shard_db.execute(
        "INSERT INTO payments (user_id, order_id, amount_cents, currency, method, status, "
        "cancel_requested, transaction_id, updated_at) VALUES "
        "($1, $2, 500, 'USD', 'card', 'captured', true, 'unknown', now() - interval '1 hour')",
        *(USER, bad),
    )
    for order in (returned, lost):
        assert (await peer.charge(str(order))).status_code == 201
    context = _context(settings(platform, peer.url))
    context.routing.refresh()
    gateway = Gateway(context.settings)
    settler = Settler(context, gateway)
    try:
        await gateway.refund(returned, (await peer.charges(returned))[0]["id"])
        with pytest.raises(Unavailable):
            await Reconciler(context, gateway, settler).once(young=0)
        # The order's event comes only now: its first charge must not be believed again.
        await consumer.Consumer(context, settler).take([event(returned)])
    finally:
        await gateway.close()
        context.shards.close()
    assert (await peer.charges(lost))[0]["status"] == "refunded"
    assert await statuses(shard_db) == ["captured", "refunded"]
    assert await said(shard_db, returned) == [("PaymentRefunded", None)]
