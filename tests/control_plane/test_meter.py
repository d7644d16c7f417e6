"""A drill proves its own meter: one that misses a planted failure makes the drill void."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.drill import VERDICTS
from control_plane import drills, evidence
from control_plane import ledger as ledgers
from control_plane.ledger import Ledger
from infra.repair import DAMAGES
from runtime.errors import Exit
from tests.control_plane.test_report import made


def ignores_losses(files: dict[str, bytes], name: str) -> Any:
    """A meter that takes every write for found."""
    document = json.loads(files[name])
    return {**document, "missing": []} if "readback" in name or "planted" in name else document


def ignores_the_outage(book: Ledger, *_: Any, **times: Any) -> dict[str, float | None]:
    """A meter that takes the first answer, however late, as one that came at once."""
    return {"create-order": 1.02}


def ignores_writers(book: Ledger, **_: Any) -> tuple[Any, ...]:
    return ()


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "lost": (evidence, "load", ignores_losses),
    "stall": (ledgers, "rto", ignores_the_outage),
    "second-writer": (evidence, "two_writers", ignores_writers),
}


def test_there_is_a_broken_meter_for_every_planted_failure() -> None:
    assert set(MUTANTS) == set(evidence.CONTROLS)


@pytest.mark.parametrize("kind", MUTANTS)
@pytest.mark.parametrize("drill", drills.DRILLS)
def test_a_meter_that_misses_a_planted_failure_makes_the_drill_void(
    drill: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lag = {"fault.json": {"lagSeconds": 0.1, "sampled": 9.9}}
    good, _ = made(lag, drill)
    assert (good["verdict"], good["because"]) == ("passed", [])
    planted = {*MUTANTS, *drills.find(drill).damages}
    assert {c["kind"] for c in good["selfTest"]["controls"] if c["caught"]} == planted
    monkeypatch.setattr(*MUTANTS[kind])
    document, _ = made(lag, drill)
    assert document["verdict"] == "void"
    assert any(f"missed a planted {kind}" in why for why in document["because"])
    assert document["selfTest"]["caught"] == document["selfTest"]["planted"] - 1
    assert VERDICTS[document["verdict"]] == Exit.VOID == 9


@pytest.mark.parametrize("kind", MUTANTS)
def test_a_drill_that_forgot_one_planted_failure_is_void(kind: str) -> None:
    planted = json.loads(made()[1]["run-01/selftest.json"])
    document, _ = made({"selftest.json": [p for p in planted if p["kind"] != kind]})
    assert document["verdict"] == "void"
    assert document["because"] == [f"the meter was not tested by a planted {kind}"]


@pytest.mark.parametrize("drill", ["data-corruption", "backup-restore"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_backup_that_a_restore_does_not_notice_makes_the_drill_void(
    drill: str, kind: str
) -> None:
    damages = [{"kind": each, "caught": each != kind, "saw": ""} for each in DAMAGES]
    document, _ = made({"damages.json": damages}, drill)
    assert document["verdict"] == "void"
    assert f"run 1: the meter missed a planted {kind}" in document["because"]
    forgotten, _ = made({"damages.json": [d for d in damages if d["kind"] != kind]}, drill)
    assert forgotten["because"] == [f"the meter was not tested by a planted {kind}"]
