"""How a limit judges what was measured."""

from __future__ import annotations

import pytest

from control_plane import objectives
from control_plane.objectives import Evidence, Objective
from infra.topology import load


@pytest.mark.parametrize(
    ("measured", "met"), [(299.9, True), (300.0, True), (300.1, False), (None, False)]
)
def test_a_recovery_time_is_met_up_to_its_limit_and_never_when_unproven(
    measured: float | None, met: bool
) -> None:
    assert Objective("rto", 300).judge(Evidence(measured, 0.0, 0)).met is met


@pytest.mark.parametrize(
    ("limit", "lost", "seconds", "met"),
    [
        (0, 0, 0.0, True),
        (0, 1, 0.0, False),
        (0, 1, -0.5, False),
        (60, 3, 59.0, True),
        (60, 3, 61.0, False),
    ],
)
def test_a_limit_of_no_loss_forbids_even_a_loss_in_the_instant_of_the_fault(
    limit: float, lost: int, seconds: float, met: bool
) -> None:
    assert Objective("rpo", limit).judge(Evidence(1.0, seconds, lost)).met is met


def test_loss_that_nobody_looked_for_is_not_within_any_limit() -> None:
    verdict = Objective("rpo", 3600).judge(Evidence(1.0, 0.0, None))
    assert (verdict.met, verdict.measured_seconds) == (False, None)


@pytest.mark.parametrize(("pause", "met"), [(0.1, True), (0.101, False), (None, False)])
def test_a_pause_is_judged_only_when_slots_were_handed_over(pause: float | None, met: bool) -> None:
    verdict = Objective("pause", 0.1).judge(Evidence(None, 0.0, 0, pause))
    assert (verdict.met, verdict.measured_seconds) == (met, pause)


def test_the_limits_come_from_the_topologys_table() -> None:
    rto, rpo = objectives.of(load("two-regions"), "region-failure")
    assert (rto.limit_seconds, rpo.limit_seconds) == (14400, 3600)
    assert objectives.of(load("two-regions"), "earthquake") == ()
