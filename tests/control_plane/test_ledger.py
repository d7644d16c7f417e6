"""The ledger's rules, against journals written by hand and against a brute-force model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import ledger as ledgers
from control_plane.ledger import Attempt, Ledger
from control_plane.writers import two_writers
from runtime.errors import MeasurementVoid

START = {"line": "start", "monotonic": 0.0, "wall": 1.0e9, "rate": 10.0}


def attempt(n: int, sent: float, done: float | None, **fields: Any) -> Attempt:
    defaults: dict[str, Any] = {
        "kind": "create-order",
        "key": f"k{n}",
        "user": "u1",
        "outcome": "ok" if done is not None else "unknown",
        "record": f"o{n}",
        "shard": "s1",
        "epoch": 1,
        "region": "us-east-1",
        "amount_cents": 500,
    }
    return Attempt(n=n, intended=sent, sent=sent, done=done, **{**defaults, **fields})


def ledger(*attempts: Attempt, end: float = 100.0) -> Ledger:
    return Ledger(tuple(attempts), 0.0, 1e9, 0.0, end, len(attempts), 10.0)


def found(book: Ledger, **fields: Any) -> dict[str, Any]:
    """A read-back that found everything, save what `fields` say."""
    acknowledged = sum(a.ok and a.kind in ledgers.WRITES for a in book.attempts)
    return {"acknowledged": acknowledged, "missing": [], "wrong": [], "duplicates": [], **fields}


def test_only_a_request_sent_after_the_fault_took_effect_proves_recovery() -> None:
    before = attempt(1, 9.9, 10.4)
    after = [attempt(n, 11 + n / 10, 11.05 + n / 10) for n in range(2, 60)]
    times = ledgers.rto(ledger(before, *after), ["s1"], began=10.0, effective=10.1)
    assert times["create-order"] == pytest.approx(1.25)


def test_a_success_that_does_not_hold_is_not_recovery() -> None:
    early = attempt(1, 10.5, 10.6)
    relapse = attempt(2, 11.0, 11.1, outcome="failed")
    after = [attempt(n, 12 + n / 10, 12.05 + n / 10) for n in range(3, 60)]
    times = ledgers.rto(ledger(early, relapse, *after), ["s1"], began=10.0, effective=10.0)
    assert times["create-order"] == pytest.approx(2.35)


def test_recovery_is_not_proven_when_the_probe_ended_within_the_hold_period() -> None:
    book = ledger(attempt(1, 11.0, 11.1), end=13.0)
    assert ledgers.rto(book, ["s1"], began=10.0, effective=10.0)["create-order"] is None


def test_a_request_that_never_got_an_answer_counts_against_its_users_shard() -> None:
    known = attempt(1, 1.0, 1.1)
    hung = attempt(2, 11.0, None, shard=None)
    other = attempt(3, 11.0, 11.1, user="u2", shard="s2")
    assert [a.n for a in ledgers.affected(ledger(known, hung, other), ["s1"])] == [1, 2]


def test_loss_counts_acknowledged_writes_that_cannot_be_read_back() -> None:
    book = ledger(attempt(1, 8.0, 8.1), attempt(2, 9.0, 9.1), attempt(3, 9.5, None))
    result = ledgers.loss(book, found(book, missing=["o1"]), until=10.0)
    assert (result.count, result.value_cents, result.records) == (1, 500, ("o1",))
    assert result.seconds == pytest.approx(1.9)


def test_a_readback_that_looked_for_too_little_is_void() -> None:
    book = ledger(attempt(1, 8.0, 8.1))
    with pytest.raises(MeasurementVoid):
        ledgers.loss(book, found(book, acknowledged=0), until=10.0)


def test_an_older_epoch_acknowledging_a_later_write_is_two_writers() -> None:
    new = attempt(1, 10.0, 10.1, epoch=2)
    late = attempt(2, 10.5, 10.6, epoch=1)
    (window,) = two_writers(ledger(new, late))
    assert (window.shard, window.writes) == (new.user, 1)
    assert window.seconds == pytest.approx(0.4)


def test_while_slots_move_a_slot_is_followed_from_shard_to_shard() -> None:
    """User 1 is of slot 1023, user 42 of slot 703; both began on s1 under epoch 1."""
    moved = attempt(1, 10.0, 10.1, user="42", shard="s3", epoch=5)
    stays = attempt(2, 10.5, 10.6, user="1", epoch=1)
    other = attempt(3, 10.5, 10.6, user="1", shard="s3", epoch=4)
    assert two_writers(ledger(moved, stays)) == ()
    assert two_writers(ledger(moved, other)) == ()
    stale = attempt(4, 10.5, 10.6, user="42", shard="s1", epoch=1)
    (window,) = two_writers(ledger(moved, stays, stale))
    assert (window.shard, window.writes) == ("slot 703", 1)


def test_a_late_answer_to_an_early_write_is_not_two_writers() -> None:
    frozen = attempt(1, 9.0, 12.0, epoch=1)
    new = attempt(2, 10.0, 10.1, epoch=2)
    assert two_writers(ledger(frozen, new)) == ()


def test_one_epoch_may_move_between_regions_once_but_not_alternate() -> None:
    east = attempt(1, 1.0, 1.1)
    west = attempt(2, 2.0, 2.1, region="us-west-2")
    again = attempt(3, 3.0, 3.1)
    assert two_writers(ledger(east, west)) == ()
    assert len(two_writers(ledger(east, west, again))) == 1


def lines_of(*documents: dict[str, Any]) -> list[str]:
    return [json.dumps(document) for document in (START, *documents)]


INTENT = {
    "line": "intent",
    "n": 1,
    "kind": "create-order",
    "key": "k",
    "user": "u",
    "intended": 2.0,
    "sent": 2.0,
}


def test_an_intent_without_an_outcome_is_unknown() -> None:
    book = ledgers.parse(lines_of({"line": "ready", "monotonic": 1.0}, INTENT))
    assert ledgers.counts(book).writes == ledgers.Tally(1, 0, 0, 1)
    assert book.planned is None


def test_a_torn_last_line_is_left_out_and_a_torn_middle_line_is_void() -> None:
    lines = lines_of(INTENT)
    assert len(ledgers.parse([*lines, '{"line": "outc']).attempts) == 1
    with pytest.raises(MeasurementVoid):
        ledgers.parse([*lines, '{"line": "outc', json.dumps(INTENT)])


def test_a_probe_that_fell_behind_its_plan_offered_too_little() -> None:
    late = [attempt(n, 5.0, 5.1) for n in range(4)]
    book = Ledger(tuple(late), 0.0, 1e9, 0.0, 10.0, 8, 10.0)
    assert book.offered() == 0.5


@st.composite
def histories(draw: st.DrawFn) -> Ledger:
    grid = st.integers(0, 40).map(lambda tick: tick / 4)
    found: list[Attempt] = []
    for n in range(draw(st.integers(0, 25))):
        sent = draw(grid)
        wait = draw(st.none() | grid)
        done = None if wait is None else sent + wait / 4
        outcome = "unknown" if done is None else draw(st.sampled_from(["ok", "ok", "ok", "failed"]))
        found.append(attempt(n, sent, done, outcome=outcome, epoch=draw(st.integers(1, 2))))
    return ledger(*found, end=draw(grid) + 4)


def model_of_recovery(book: Ledger, effective: float, hold: float, success: float) -> float | None:
    after = [a for a in book.attempts if a.sent >= effective]
    for first in sorted((a for a in after if a.ok), key=lambda a: a.done or 0.0):
        begin = first.done or 0.0
        if begin + hold > book.end:
            continue
        window = [
            a
            for a in after
            if begin <= a.sent <= begin + hold
            or (a.done is not None and begin <= a.done <= begin + hold)
        ]
        if sum(a.ok for a in window) >= success * len(window):
            return begin
    return None


@given(histories(), st.sampled_from([0.0, 2.5, 5.0]), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=300)
def test_recovery_agrees_with_a_brute_force_model(
    book: Ledger, effective: float, success: float
) -> None:
    measured = ledgers.recovery_seconds(
        book.attempts, book.end, began=0.0, effective=effective, hold_seconds=2.0, success=success
    )
    assert measured == model_of_recovery(book, effective, 2.0, success)


@given(histories())
@settings(max_examples=200)
def test_two_writers_agree_with_a_brute_force_model(book: Ledger) -> None:
    acks = [a for a in book.attempts if a.ok]
    proven = any(
        old.sent > (new.done or 0.0)
        for old in acks
        for new in acks
        if (old.epoch or 0) < (new.epoch or 0)
    )
    assert bool(two_writers(book)) == proven


@given(histories(), st.lists(st.sampled_from(["create-order", "read-order", "create-user"])))
@settings(max_examples=200)
def test_every_attempt_is_counted_once_and_under_one_outcome(
    book: Ledger, kinds: list[str]
) -> None:
    mixed = [replace(a, kind=kind) for a, kind in zip(book.attempts, kinds, strict=False)]
    counts = ledgers.counts(ledger(*mixed))
    assert counts.writes.attempted + counts.reads.attempted == len(mixed)
    for each in (counts.writes, counts.reads):
        assert each.attempted == each.acknowledged + each.failed + each.unknown
    lost = ledgers.loss(ledger(*mixed), nothing_found(mixed), until=0.0)
    assert lost.count <= counts.writes.acknowledged


def nothing_found(attempts: list[Attempt]) -> dict[str, Any]:
    """A read-back that found nothing at all."""
    gone = [a.record for a in attempts if a.ok and a.kind in ledgers.WRITES]
    return found(ledger(*attempts), missing=gone)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.sampled_from([50, 95, 99, 100]))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[float], percent: int
) -> None:
    result = ledgers.percentile(values, percent)
    covering = [v for v in values if sum(w <= v for w in values) >= percent * len(values) / 100]
    assert result == min(covering)
