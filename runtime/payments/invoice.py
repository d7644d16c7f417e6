"""The invoice of a payment: one page of HTML that needs nothing else. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from runtime.payments.rules import Payment
from runtime.payments.store import Line
from runtime.wire import money

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Invoice {order}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 44em; margin: 3em auto; color: #222 }}
table {{ width: 100%; border-collapse: collapse; margin: 2em 0 }}
th, td {{ padding: .4em; border-bottom: 1px solid #ddd; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
tfoot td {{ font-weight: bold; border: 0 }}
</style>
<h1>Invoice</h1>
<p>Order {order}<br>Ordered {date}<br>Paid by {method}, transaction {transaction}</p>
<table>
<thead><tr><th>Product</th><th>Quantity</th><th>Price</th><th>Amount</th></tr></thead>
<tbody>
{rows}
</tbody>
<tfoot><tr><td>Total</td><td></td><td></td><td>{total}</td></tr></tfoot>
</table>
{refund}</html>
"""
REFUNDED = "<p><strong>Refunded</strong> in full, refund {refund}.</p>\n"


def key_of(payment: Payment) -> str:
    """The object's key: another one once the money was returned."""
    return f"{payment.order_id}/{payment.status}.html"


def page(payment: Payment, ordered_at: datetime, lines: Sequence[Line]) -> bytes:
    """The same bytes however often it is made."""
    rows = "\n".join(_row(line, payment.currency) for line in lines)
    refund = ""
    if payment.status == "refunded":
        refund = REFUNDED.format(refund=escape(payment.refund_id or "-"))
    return PAGE.format(
        order=payment.order_id,
        date=ordered_at.date().isoformat(),
        method=escape(payment.method),
        transaction=escape(payment.transaction_id or "-"),
        rows=rows,
        total=_money(payment.amount_cents, payment.currency),
        refund=refund,
    ).encode()


def _row(line: Line, currency: str) -> str:
    return (
        f"<tr><td>{escape(line.name or line.sku)}</td><td>{line.quantity}</td>"
        f"<td>{_money(line.unit_price_cents, currency)}</td>"
        f"<td>{_money(line.quantity * line.unit_price_cents, currency)}</td></tr>"
    )


def _money(cents: int, currency: str) -> str:
    written = money(cents, escape(currency))
    return f"{written['amount']} {written['currency']}"
