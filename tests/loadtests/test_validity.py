"""A run that measured its own generator proves nothing about the platform."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.validity import faults

GOOD: dict[str, Any] = {
    "partial": False,
    "offered": {"planned": 1000, "started": 1000, "dropped": 0},
    "generator": {
        "workers": 2,
        "missing": 0,
        "lagP99Ms": 1.2,
        "lagMaxMs": 9.0,
        "cpuMax": 0.4,
        "clockJumps": 0,
        "lagLimitMs": 5.0,
    },
    "endpoints": [{"ok": 990, "errors": 10, "limited": 0}],
}


def changed(part: str, **values: Any) -> dict[str, Any]:
    return {**GOOD, part: {**GOOD[part], **values}}


def test_a_run_that_kept_its_plan_is_trusted_also_when_the_platform_failed() -> None:
    assert faults(GOOD) == []
    assert faults({**GOOD, "endpoints": [{"ok": 1, "errors": 999, "limited": 0}]}) == []
    assert faults({**changed("offered", started=991)}) == []


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (changed("generator", lagP99Ms=5.1), "late"),
        (changed("generator", cpuMax=0.81), "saturated"),
        (changed("generator", missing=1), "lost"),
        (changed("generator", clockJumps=1), "clock"),
        (changed("offered", dropped=1), "dropped"),
        (changed("offered", started=989), "planned"),
        (changed("offered", started=1011), "planned"),
        ({**GOOD, "partial": True}, "broken off"),
        ({**GOOD, "endpoints": []}, "no samples"),
        ({**GOOD, "endpoints": [{"ok": 0, "errors": 5, "limited": 0}]}, "down from the start"),
        ({**GOOD, "endpoints": [{"ok": 90, "errors": 0, "limited": 10}]}, "rate limit"),
        ({**GOOD, "ended": "nobody answers at https://x"}, "nobody answers"),
    ],
)
def test_what_makes_a_run_prove_nothing_is_said_in_words(run: dict[str, Any], word: str) -> None:
    (because,) = faults(run)
    assert word in because


def test_a_machine_may_state_another_lag_limit() -> None:
    late = changed("generator", lagP99Ms=40.0, lagLimitMs=50.0)
    assert faults(late) == []


def test_a_breakpoint_run_that_ended_at_its_limit_is_no_broken_off_one() -> None:
    late = {**changed("generator", lagP99Ms=90.0), "partial": True}
    assert faults({**late, "brokeAt": {"by": "latency", "rate": 80}}) == []
    (because,) = faults({**late, "brokeAt": {"by": "generator", "rate": 80}})
    assert "late" in because
