"""The page about emulation says what the tests show, and nothing is asked of AWS unseen."""

from __future__ import annotations

from infra.aws.limits import REASONS
from tests.infra.aws import table
from tests.infra.aws.test_operate import REFUSALS


def test_the_page_is_what_the_tests_say() -> None:
    made = table.PAGE.read_text(encoding="utf-8")
    assert made == table.page(), "python -m tests.infra.aws.table"


def test_every_operation_that_a_test_shows_is_asked_for_by_the_code() -> None:
    assert set(table.shown()) <= set(table.operations())


def test_every_reason_is_given_by_a_refusal_that_is_tested_or_by_the_contract() -> None:
    assert {what for what, _ in REFUSALS} | {"traffic"} == set(REASONS)
