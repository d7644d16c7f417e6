"""The verdict sheet: each line of the disaster-recovery table beside what was measured."""

from __future__ import annotations

import pytest

from control_plane import figures, report, report_html, report_text
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


@pytest.mark.parametrize(
    ("drill", "told"),
    [
        (
            "reshard",
            [
                "20 hand-overs; pause of writes p50 20 ms, p99 20 ms, max 20 ms; "
                "not known of 2 more; a client waited 970 ms for a write at most"
            ],
        ),
        (
            "data-corruption",
            [
                "came back: 2 payments that were deleted, 3 orders that were changed; "
                "1 of these rows kept what services did since",
                "measured 50.0 MB/s on 50.0 MB; a database of 5 GB would take 0.0 h at this speed",
            ],
        ),
    ],
)
def test_a_drill_about_data_tells_what_it_measured_in_a_sentence(
    drill: str, told: list[str]
) -> None:
    document, files = made(None, drill)
    assert figures.lines(document) == told
    assert all(line in report_text.markdown(document) for line in told)
    assert all(line in report_html.page(document, files) for line in told)


def test_a_restore_is_extrapolated_by_what_grows_with_the_size() -> None:
    document, _ = made(None, "backup-restore")
    (repeat,) = document["repeats"]
    assert repeat["figures"]["extrapolated"] == {
        "productionBytes": 5e9,
        "measuredBytes": 50_000_000,
        "megabytesPerSecond": 50.0,
        "rtoSeconds": 103.0,
    }


def test_what_a_restore_lacks_of_acknowledged_writes_is_its_loss() -> None:
    copies = {"missing": ["o97", "o182"], "asked": 4, "served": 2}
    document, _ = made({"copies.json": copies}, "backup-restore")
    assert document["ledger"]["lost"] == 1, "the other was acknowledged after the loss"
    assert document["objectives"][1]["measuredSeconds"] == pytest.approx(0.13)
    assert document["verdict"] == "passed"
    early, _ = made({"copies.json": {**copies, "missing": ["o2", "o97"]}}, "backup-restore")
    assert [each["met"] for each in early["objectives"]] == [True, False]
    assert early["verdict"] == "failed"
