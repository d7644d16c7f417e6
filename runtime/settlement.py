"""Orders beside what payments, inventory and notifications have recorded of them.

An order that has not moved for some seconds must be settled, and agree with the others. Somebody
outside may be the reason that it is not: while a payment anywhere waits for the payment gateway,
an order may wait for its payment (its own row may be yet to be made, because payments takes
events in their order), never for its stock. A mail counts as lost when mails of events relayed a
minute later went out; so while the mail server refuses everything, none does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.directory import Database, nowhere
from runtime.events import TOLD
from runtime.orders.rules import NOTHING_PAID, NOTHING_TAKEN
from runtime.served import served

PAGE = 5000
MAIL_SECONDS = 60.0
SHOWN = 10

ORDERS = """
SELECT o.user_id, o.id, o.status, o.stock, o.payment, o.version, o.total_cents,
       p.status AS paid, p.amount_cents, p.cancel_requested, p.version AS paid_version,
       greatest(o.updated_at, coalesce(p.updated_at, o.updated_at))
           < clock_timestamp() - make_interval(secs => $1::float8) AS calm
FROM orders o LEFT JOIN payments p ON p.user_id = o.user_id AND p.order_id = o.id
WHERE {which} AND {here} ORDER BY o.user_id, o.id LIMIT $2
"""
NEXT = ORDERS.format(which="(o.user_id, o.id) > ($3, $4)", here=served("o.user_id"))
THESE = ORDERS.format(which="o.id = ANY($3::bigint[])", here=served("o.user_id"))
WAITS = f"""
SELECT EXISTS (SELECT FROM payments
               WHERE (status = 'pending' OR status = 'captured' AND cancel_requested)
                 AND {served()})
"""  # noqa: S608
MOVEMENTS = """
SELECT event_id, min(outcome) AS least, max(outcome) AS most FROM stock_movements
WHERE event_id = ANY($1::bigint[]) GROUP BY event_id
"""
# What an administrator added to the stock belongs to no order, and is never `reserved`.
HELD = """
SELECT DISTINCT order_id FROM stock_movements
WHERE outcome = 'reserved' AND order_id > $1
  AND recorded_at < clock_timestamp() - make_interval(secs => $2::float8)
ORDER BY order_id LIMIT $3
"""
EXISTING = "SELECT id FROM orders WHERE id = ANY($1::bigint[])"
# How far the queue was read: to the newest event that was told after it was relayed.
UNTOLD = f"""
SELECT e.event_id FROM outbox e
WHERE e.kind = ANY($1::text[]) AND {served("e.user_id")}
  AND e.relayed_at < (SELECT max(o.relayed_at) FROM notifications n
                      JOIN outbox o ON o.user_id = n.user_id AND o.event_id = n.event_id
                      WHERE n.created_at >= o.relayed_at) - make_interval(secs => $2::float8)
  AND NOT EXISTS (SELECT FROM notifications n
                  WHERE n.user_id = e.user_id AND n.event_id = e.event_id)
LIMIT 20
"""  # noqa: S608


@dataclass
class Faults:
    """Orders (or events) at fault, by what they break."""

    payments: list[str] = field(default_factory=list)
    stock: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    def of(self, row: Mapping[str, Any], outcome: str | None, *, gateway_waits: bool) -> None:
        if fault := payment_fault(row):
            self.payments.append(f"{row['id']}: {fault}")
        if fault := stock_fault(row, outcome):
            self.stock.append(f"{row['id']}: {fault}")
        if fault := unsettled(row, gateway_waits=gateway_waits):
            self.unsettled.append(f"{row['id']}: {fault}")


async def compare(
    shards: Mapping[str, Database], catalog: Database, settled_seconds: float
) -> Faults:
    """What is wrong with orders that have not changed for `settled_seconds`.

    Databases are read one after the other, so an order that seems to be at fault is read again:
    one that moved meanwhile is not.
    """
    faults = Faults()
    waits = [await shard.fetchval(WAITS) for shard in shards.values()]
    for shard in shards.values():
        last = (0, 0)
        while rows := await shard.fetch(NEXT, settled_seconds, PAGE, *last):
            last = (rows[-1]["user_id"], rows[-1]["id"])
            outcomes = await _outcomes(catalog, rows)
            suspects = [row for row in rows if _suspect(row, outcomes.get(row["id"]))]
            if suspects:
                for row in await _unmoved(shard, suspects, settled_seconds):
                    outcome = outcomes.get(row["id"])
                    faults.of(row, outcome, gateway_waits=any(waits))
        told = await shard.fetch(UNTOLD, list(TOLD), MAIL_SECONDS)
        faults.untold += [str(row[0]) for row in told]
    faults.orphans += [str(id) for id in await _orphans(shards, catalog, settled_seconds)]
    return faults


def payment_fault(row: Mapping[str, Any]) -> str | None:
    """How order and payment contradict each other. An order without a payment waits for it."""
    paid, refunding = row["paid"], row["paid"] == "captured" and row["cancel_requested"]
    if paid == "captured" and row["amount_cents"] != row["total_cents"]:
        return f"total {row['total_cents']}, captured {row['amount_cents']}"
    if not row["calm"]:
        return None
    if paid is None:
        return None if row["payment"] == "pending" else f"{row['payment']}, but has no payment"
    if row["status"] == "confirmed" and (paid != "captured" or refunding):
        return f"confirmed, its payment is {'to be refunded' if refunding else paid}"
    if row["status"] != "cancelled" and refunding:
        return f"{row['status']}, its payment is to be refunded"
    if paid in NOTHING_PAID and row["payment"] != paid:
        return f"has payment {row['payment']}, which is {paid}"
    if paid == "captured" and not refunding and row["status"] == "cancelled":
        return "cancelled, its payment is captured and nobody refunds it"
    if paid == "captured" and not refunding and row["payment"] != "captured":
        return f"has payment {row['payment']}, which is captured"
    return None


def stock_fault(row: Mapping[str, Any], outcome: str | None) -> str | None:
    """How order and stock contradict each other; a failover may have lost a refusal's rows."""
    if not row["calm"]:
        return None
    holds = outcome == "reserved"
    if outcome == "mixed":
        return "its lines are recorded differently"
    if (row["status"] == "confirmed" or row["stock"] == "reserved") and not holds:
        return f"{row['status']} with stock {row['stock']}, the catalog has it {outcome}"
    if row["stock"] in NOTHING_TAKEN and holds:
        return f"{row['status']} with stock {row['stock']}, the catalog still holds it"
    return None


def unsettled(row: Mapping[str, Any], *, gateway_waits: bool) -> str | None:
    """What a calm order waits for though nobody outside is the reason."""
    if not row["calm"] or row["status"] == "confirmed":
        return None
    cancelled = row["status"] == "cancelled"
    stock_settled = row["stock"] in NOTHING_TAKEN or (row["stock"] == "reserved" and not cancelled)
    if not stock_settled:
        return f"{row['status']} with stock {row['stock']}"
    if (cancelled and row["payment"] in NOTHING_PAID) or gateway_waits:
        return None
    return f"{row['status']} with payment {row['payment']}"


def _suspect(row: Any, outcome: str | None) -> bool:
    return bool(
        payment_fault(row) or stock_fault(row, outcome) or unsettled(row, gateway_waits=False)
    )


async def _orphans(
    shards: Mapping[str, Database], catalog: Database, settled_seconds: float
) -> list[int]:
    """Orders that no shard has and whose stock is taken (`checks.return_orphan_stock` mends it).

    The catalog is read first: an order is made before its movement, and never deleted.
    """
    found: list[int] = []
    last = 0
    while rows := await catalog.fetch(HELD, last, settled_seconds, PAGE):
        last = rows[-1]["order_id"]
        held = {row["order_id"] for row in rows}
        found += sorted(await nowhere(shards, EXISTING, held))
    return found


async def _outcomes(catalog: Database, rows: Iterable[Any]) -> dict[int, str]:
    found = await catalog.fetch(MOVEMENTS, [row["id"] for row in rows])
    return {
        row["event_id"]: row["most"] if row["least"] == row["most"] else "mixed" for row in found
    }


async def _unmoved(shard: Database, suspects: Sequence[Any], settled_seconds: float) -> list[Any]:
    """Those of `suspects` that are now as they were."""
    again = await shard.fetch(
        THESE, settled_seconds, len(suspects), [row["id"] for row in suspects]
    )
    seen = {row["id"]: (row["version"], row["paid_version"]) for row in again}
    return [row for row in suspects if seen.get(row["id"]) == (row["version"], row["paid_version"])]
