"""Which event makes which mail, whatever names and payloads hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.clock import SystemClock
from runtime.events import TOLD, Event, Kind, Poison, event_id
from runtime.notifications.mailer import Mailer
from runtime.notifications.rules import Mail, Recipient, amount, mail_of, notice_of, printable
from runtime.settings import Settings

ORDER = {
    "order_id": 7,
    "user_id": 9,
    "items": [["MUG", 2]],
    "total_cents": 2410,
    "amount_cents": 2410,
    "currency": "EUR",
}
SETTINGS = Settings("notifications", "n", "r", "a", Path("map"), "", "")


def event(kind: Kind, **payload: Any) -> Event:
    return Event(event_id(7, kind), kind, ORDER | payload)


@pytest.mark.parametrize(
    ("told", "subject", "words"),
    [
        (event("OrderCreated"), "Order received: 7", "2 x MUG\n\nTotal: 24.10 EUR"),
        (event("PaymentProcessed", status="captured"), "Receipt: 7", "24.10 EUR"),
        (event("PaymentProcessed", status="declined"), "Payment declined: 7", "was declined"),
        (event("PaymentProcessed", status="void"), None, ""),
        (event("PaymentRefunded"), "Refund: 7", "returned 24.10 EUR"),
        (event("OrderCancelled", reason="out-of-stock"), "Order cancelled: 7", "out of stock"),
        (event("OrderCancelled", reason=None), "Order cancelled: 7", "You asked for it."),
    ],
)
def test_each_event_says_one_thing(told: Event, subject: str | None, words: str) -> None:
    notice = notice_of(told)
    assert notice is not None
    assert notice.subject == subject
    assert words in notice.text


def test_other_events_say_nothing_to_anybody() -> None:
    assert notice_of(event("StockReserved")) is None


@pytest.mark.parametrize(
    "payload",
    [
        {"order_id": None},
        {"status": "paid"},
        {"status": "captured", "amount_cents": -1},
        {"status": "captured", "amount_cents": "x"},
        {"status": "captured", "amount_cents": float("inf")},
        {"user_id": float("-inf")},
    ],
)
def test_a_payload_that_makes_no_sense_is_poison(payload: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        notice_of(event("PaymentProcessed", **payload))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(TOLD),
    st.dictionaries(st.sampled_from([*ORDER, "status", "reason"]), JSON, max_size=8),
)
def test_any_payload_makes_a_notice_or_is_poison(kind: Kind, payload: dict[str, Any]) -> None:
    try:
        notice = notice_of(event(kind, **payload))
    except Poison:
        return
    assert notice is not None
    assert notice.subject is None or (notice.subject.isprintable() and notice.text)


@given(st.text())
def test_a_name_becomes_one_printable_line(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert len(shown) <= 200


@given(st.integers(0, 10**15))
def test_an_amount_loses_no_cent(cents: int) -> None:
    whole, _, rest = amount({"amount_cents": cents, "currency": "EUR"})[:-4].partition(".")
    assert int(whole) * 100 + int(rest) == cents


@settings(max_examples=50)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=64),
)
def test_no_name_or_address_makes_a_header(name: str, local: str) -> None:
    notice = notice_of(event("OrderCreated"))
    assert notice is not None
    evil = f"{name}\r\nBcc: eve@example.org\n\nspam"
    mail = mail_of(notice, Recipient(9, f"{local}@example.org", evil))
    try:
        message, recipient = Mailer(SETTINGS, SystemClock())._message(mail)
    except ValueError:
        return
    assert recipient.endswith("@example.org")
    assert [*message] == [
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type",
        "Content-Transfer-Encoding", "MIME-Version",
    ]  # fmt: skip
    head = message.as_bytes().partition(b"\r\n\r\n")[0]
    starts = [line.split(b":")[0].lower() for line in head.split(b"\r\n") if line[:1] not in b" \t"]
    assert b"bcc" not in starts
    assert len(starts) == 9


def test_a_line_break_in_an_address_is_refused() -> None:
    mail = Mail("<1@x>", "ada@example.org\r\nBcc: eve@example.org", "Ada", "s", "t")
    with pytest.raises(ValueError, match="invalid"):
        Mailer(SETTINGS, SystemClock())._message(mail)


def test_the_message_id_comes_from_the_event() -> None:
    created = notice_of(event("OrderCreated"))
    assert created is not None
    ids = {mail_of(created, Recipient(9, "a@b", name)).id for name in ("Ada", "Eve")}
    assert ids == {"<7@regionctl.example>"}
