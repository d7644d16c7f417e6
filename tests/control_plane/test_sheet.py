"""The verdict sheet: each line of the disaster-recovery table beside what was measured."""

from __future__ import annotations

import pytest

from control_plane import report
from tests.control_plane.test_report import JSON, TOPOLOGY, VERSIONS, made


def state(reports: list[JSON], **versions: str) -> str:
    rows = report.verdict_sheet(TOPOLOGY, reports, {**VERSIONS, **versions})
    (row,) = [row for row in rows if row["scenario"] == "database-failure"]
    return str(row["state"])


def test_the_sheet_tells_proven_from_missed_void_and_stale() -> None:
    good, _ = made()
    bad, _ = made({"readback.json": {"missing": ["o12"]}})
    void, _ = made({"selftest.json": []})
    assert state([]) == "not proven"
    assert state([void]) == "not proven"
    assert state([good]) == "proven"
    assert state([void, good]) == "proven"
    assert state([bad, good]) == "missed"
    assert state([good], postgres="19") == "stale"
    elsewhere = {**good, "topology": {"name": "x", "digest": "y"}}
    assert state([elsewhere]) == "stale"


def row_of(reports: list[JSON]) -> JSON:
    rows = report.verdict_sheet(TOPOLOGY, reports, VERSIONS)
    (row,) = [row for row in rows if row["scenario"] == "database-failure"]
    return row


def test_a_run_that_missed_outweighs_every_older_proof_until_one_passes_again() -> None:
    good, _ = made()
    bad, _ = made({"readback.json": {"missing": ["o12"]}})
    bad = {**bad, "operation": "op-7", "finishedAt": "2026-02-02T00:00:00+00:00"}
    row = row_of([bad, good])
    assert (row["state"], row["operation"], row["lost"]) == ("missed", "op-7", 1)
    assert row["because"].startswith("the newest run, op-7, missed")
    assert row["lastProvenAt"] == good["finishedAt"]
    assert row_of([good, bad])["state"] == "proven"
    elsewhere = {**bad, "topology": {"name": "x", "digest": "y"}}
    assert row_of([elsewhere, good])["state"] == "missed"


def test_a_void_run_proves_nothing_and_is_named_beside_the_older_proof() -> None:
    good, _ = made()
    void, _ = made({"selftest.json": []})
    bad, _ = made({"readback.json": {"missing": ["o12"]}})
    assert row_of([void, good])["because"] == "the newest run, op-1, is void"
    assert row_of([void, bad, good])["state"] == "missed"
    old = {**good, "versions": {**VERSIONS, "postgres": "17"}}
    assert row_of([void, old])["state"] == "stale"
    assert row_of([void])["rtoSeconds"] is None
    assert row_of([void])["because"].endswith("no drill has proven it")


def test_the_sheet_has_every_row_of_the_table_with_margins() -> None:
    good, _ = made()
    rows = {row["scenario"]: row for row in report.verdict_sheet(TOPOLOGY, [good], VERSIONS)}
    assert list(rows) == [
        "service-outage", "database-failure", "region-failure", "data-corruption",
    ]  # fmt: skip
    assert rows["data-corruption"]["state"] == "not proven"
    assert rows["database-failure"]["rtoMarginSeconds"] == pytest.approx(3600 - 1.02)
    assert rows["database-failure"]["lastProvenAt"] == good["finishedAt"]
